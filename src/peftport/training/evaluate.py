"""Test modules on a host: many lanes in one pass, or the bare host."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch

from peftport.errors import RunFailed
from peftport.metrics import Evaluation
from peftport.progress import Portion
from peftport.tasks.batches import TEST_TOKENS
from peftport.techniques.base import Parameters, Technique, lanes_of
from peftport.techniques.embeddings import attached
from peftport.training.readout import Readout

if TYPE_CHECKING:
    from peftport.hosts.geometry import Geometry
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded

_MOST_TOKENS = 65_536


@torch.no_grad()
def scores(
    host: Host,
    technique: Technique | None,
    config: Any,
    parameters: Parameters,
    encoded: Encoded,
    readout: Readout,
    read: Callable[[int], None] = lambda _rows: None,
) -> torch.Tensor:
    """What is kept of every row under every lane's module: (lanes, rows, columns), on the CPU; of
    classes their logits.

    Args:
        technique: None tests the bare host; `parameters` then holds the heads of an encoder, or
            nothing.
        read: called after each batch with how many rows it had.
    """
    lanes = lanes_of(parameters) if parameters else 1
    parameters = {name: tensor.to(host.device) for name, tensor in parameters.items()}
    result = torch.zeros(lanes, len(encoded), readout.columns)
    tokens = readout.tokens_at_once(host) or _tokens_at_once(host)
    with _attached(host, technique, config, parameters):
        for rows, batch in encoded.evaluation_batches(tokens, lanes):
            found = readout.answers(host, batch, parameters)  # (lanes * batch, columns)
            result[:, rows] = found.view(lanes, -1, readout.columns).float().cpu()
            read(len(rows))
    return result


@torch.no_grad()
def _written(
    host: Host,
    technique: Technique | None,
    config: Any,
    parameters: Parameters,
    encoded: Encoded,
    readout: Readout,
    done: Callable[[int], None],
) -> list[list[str]] | None:
    """What is written to every row under every lane's module, [lane][row]; args as `scores`."""
    lanes = lanes_of(parameters) if parameters else 1
    parameters = {name: tensor.to(host.device) for name, tensor in parameters.items()}
    with _attached(host, technique, config, parameters):
        return readout.written(host, encoded, lanes, done)


def _attached(
    host: Host, technique: Technique | None, config: Any, parameters: Parameters
) -> AbstractContextManager[None]:
    return nullcontext() if technique is None else attached(host, technique, config, parameters)


def _tokens_at_once(host: Host) -> int:
    """Tokens of a test batch: as many as stay in a CPU's cache, or as a GPU's memory holds.

    They follow from the machine alone, not from what else is in its memory, so that two runs of
    one configuration see the same batches.
    """
    if host.device.type != "cuda":
        return TEST_TOKENS
    memory = torch.cuda.get_device_properties(host.device).total_memory
    return tokens_that_fit(memory, host.geometry)


def tokens_that_fit(memory: int, geometry: Geometry) -> int:
    """Tokens whose states fit into a quarter of so many bytes; no more than a GPU gains by.

    A token's states in one layer, in single precision, are counted generously: sixteen as wide as
    the host and four as wide as its feed-forward layer. Nothing is kept from layer to layer.
    """
    a_token = 4 * (16 * geometry.width + 4 * geometry.ffn)
    return min(_MOST_TOKENS, max(TEST_TOKENS, memory // 4 // a_token))


def evaluate(
    host: Host,
    technique: Technique | None,
    config: Any,
    parameters: Parameters,
    encoded: Encoded,
    readout: Readout,
    unlabelled: Encoded | None = None,
    portion: Portion = lambda _share, _what: None,
) -> list[Evaluation | None]:
    """Test every lane's module; None for a lane whose scores are not finite. Args as `scores`.

    Args:
        unlabelled: texts that the label-free correction is to rest on; without them there are no
            corrected figures.
        portion: called now and then with the share that is done and what was done.
    """
    this = (host, technique, config, parameters)
    apart_rows = 0 if unlabelled is None else len(unlabelled)
    read = _counted(len(encoded) * (1 + readout.writes) + apart_rows, portion)
    every = scores(*this, encoded, readout, read)
    apart = None if unlabelled is None else scores(*this, unlabelled, readout, read)
    written = _written(*this, encoded, readout, read)
    found: list[Evaluation | None] = []
    for lane, tested in enumerate(every):
        parts = [tested] if apart is None else [tested, apart[lane]]
        if all(bool(torch.isfinite(part).all()) for part in parts):
            rest = None if apart is None else apart[lane].numpy()
            said = None if written is None else written[lane]
            found.append(readout.evaluation(tested.numpy(), encoded, rest, said))
        else:
            found.append(None)
    return found


def _counted(total: int, portion: Portion) -> Callable[[int], None]:
    """A function that is told how many rows more were read, or written to."""
    done = 0

    def read(rows: int) -> None:
        nonlocal done
        done += rows
        portion(done / total, f"{done:,} of {total:,} rows tested")

    return read


def evaluate_one(
    host: Host,
    technique: Technique | None,
    config: Any,
    parameters: Parameters,
    encoded: Encoded,
    readout: Readout,
    unlabelled: Encoded | None = None,
    portion: Portion = lambda _share, _what: None,
) -> Evaluation:
    """Test one module, given without lane axis; RunFailed when its scores are not finite."""
    alone = {name: tensor[None] for name, tensor in parameters.items()}
    this = (host, technique, config, alone)
    (evaluation,) = evaluate(*this, encoded, readout, unlabelled, portion)
    if evaluation is None:
        what = "its" if technique is None else "under the module its"
        raise RunFailed(f"host {host.name}: {what} scores are not finite.")
    return evaluation

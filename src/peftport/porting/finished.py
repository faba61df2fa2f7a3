"""Layers of a port that are finished, on disk until all of it is.

A port between large hosts takes long. One that is killed goes on with the layers that are there
when the same is asked for again, and the result is the same to the bit.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import by_library, write_atomic
from peftport.hosts.fingerprint import fingerprint
from peftport.modules import versions
from peftport.porting.base import Request
from peftport.techniques.base import Parameters

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.reading import TokenRows
    from peftport.training.readout import ClassReadout

    Read = tuple[Host, Sequence[TokenRows], ClassReadout | None]
    """A host, what it reads, and how classes are read off it."""

_log = logging.getLogger(__name__)
EVERY = 1.0
"""Seconds of work from one file to the next: short ports leave none."""


@contextmanager
def work_beside(out: Path | None) -> Iterator[Path | None]:
    """A hidden folder beside a new one, for what is done of it; not made yet. It is left there
    where the process is killed or interrupted, and else removed."""
    if out is None:
        yield None
        return
    work = out.with_name(f".{out.name}.part")
    try:
        yield work
    except KeyboardInterrupt:
        raise
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    shutil.rmtree(work, ignore_errors=True)


class FinishedLayers:
    """The tensors that were made of finished layers, by layer, in the order of the work.

    Args:
        folder: of the files; None to keep them in memory alone.

    What cannot be read there is removed, with a notice, and made again.
    """

    def __init__(self, folder: Path | None) -> None:
        self.layers: dict[str, Parameters] = {}
        self._folder, self._new, self._since = folder, list[str](), time.monotonic()
        self._files = sorted(folder.glob("*.safetensors")) if folder is not None else []
        for file in list(self._files):
            try:
                self._read(file)
            except BadInput as error:
                _log.warning("notice: %s; its layers are made again", error)
                file.unlink(missing_ok=True)
                self._files.remove(file)

    def _read(self, file: Path) -> None:
        with by_library(f"{file} cannot be read", "It is removed"), safe_open(file, "pt") as kept:
            for layer, names in json.loads(kept.metadata()["layers"]).items():
                self.layers[layer] = _plain({name: kept.get_tensor(name) for name in names})

    @property
    def tensors(self) -> Parameters:
        """Those of all layers."""
        return {name: tensor for made in self.layers.values() for name, tensor in made.items()}

    def put(self, layer: str, made: Parameters) -> None:
        """Keep what was made of one more layer."""
        self.layers[layer] = _plain(made)
        self._new.append(layer)
        if self._folder is None or time.monotonic() - self._since < EVERY:
            return
        new = {layer: self.layers[layer] for layer in self._new}
        told = json.dumps({layer: list(tensors) for layer, tensors in new.items()})
        tensors = {name: tensor for made in new.values() for name, tensor in made.items()}
        number = int(self._files[-1].stem) + 1 if self._files else 0
        self._files.append(self._folder / f"{number:04}.safetensors")
        write_atomic(self._files[-1], save(tensors, {"layers": told}))
        self._new, self._since = [], time.monotonic()


def _plain(tensors: Parameters) -> Parameters:
    """Tensors that lie in memory as new ones do, read or made: products are the same then."""
    return {n: t.clone(memory_format=torch.contiguous_format) for n, t in tensors.items()}


def code_mark() -> str:
    """A name for the package's own code, which changes more often than its version."""
    package, digest = Path(__file__).parents[1], hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _tokens(read: Sequence[Read]) -> Iterator[Tensor]:
    """All that hosts read, and at which places."""
    for rows in (rows for _, passes, _ in read for rows in passes):
        given = rows.input_ids, rows.attention_mask, rows.decoder_ids, rows.labels
        yield from (each for each in given if each is not None)
        yield from rows.places.values()


def port_mark(
    request: Request,
    donor: Parameters,
    read: Sequence[Read],
    how: Any,
    generator: torch.Generator,
) -> str:
    """A name for all that a port by maps depends on.

    Args:
        donor: its tensors, those among them that are not mapped.
        read: by both hosts. What their tokenizers make of the texts is told by the tokens.
        how: says it by its `repr`.
    """
    told = {
        "donor": request.donor.model_dump(mode="json"),
        "options": request.options.model_dump(mode="json"),
        "how": repr(how),
        "hosts": [
            (fingerprint(host.folder), host.precision, str(host.device), repr(readout))
            for host, _, readout in read
        ],
        "versions": versions(),
        "code": code_mark(),
        "threads": torch.get_num_threads(),
    }
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    digest.update(generator.get_state().numpy().tobytes())
    tokens = {str(place): each for place, each in enumerate(_tokens(read))}
    for name, tensor in sorted({**donor, **tokens}.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

"""`pretrain_host`: a new host, or a continued one, from texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.hosts import device_named
from peftport.api.result import Result
from peftport.progress import Losses

if TYPE_CHECKING:
    from peftport.hosts.precision import Precision


@dataclass(frozen=True)
class PretrainedHost(Result):
    """A host that was made from text.

    record: its geometry and fingerprint, the objective, the losses as (step, mean loss in nats).
    """

    folder: Path
    record: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The record, with the host's folder."""
        return {"host": str(self.folder), **self.record}

    def __str__(self) -> str:
        record = self.to_dict()
        origin = f"from {record['from']['name'] if record['from'] else 'nothing'}"
        if "teacher" in record:
            origin = f"taught by {record['teacher']['name']}"
        first, last = record["losses"][0], record["losses"][-1]
        return "\n".join(
            [
                f"{record['family']} {origin}, {record['steps']} steps of {record['objective']}: "
                f"{record['host']}",
                f"loss {first[1]:.3f} up to step {first[0]}, {last[1]:.3f} at the end",
                f"fingerprint {record['fingerprint']}",
            ]
        )


def pretrain_host(
    out: str | Path,
    texts: str | Path,
    steps: int,
    *,
    family: str | None = None,
    origin: str | None = None,
    teacher: str | None = None,
    seed: int = 0,
    learning_rate: float | None = None,
    tokens_per_batch: int = 4096,
    length: int = 128,
    text_column: str | None = None,
    sizes: Mapping[str, int] | None = None,
    cased: bool = False,
    precision: Precision = "fp32",
    device: str | None = None,
    progress: Losses = lambda step, loss: None,
) -> PretrainedHost:
    """Make a host from text: a new one of a family, or the continuation of another.

    It learns to fill gaps (T5), to name hidden tokens (encoders) or the next token (decoders), or
    what a teacher makes of the text (encoders).

    Args:
        out: a new folder.
        texts: a file of text, Parquet, CSV, TSV, JSONL or JSON, or a folder.
        family: of a new host.
        origin: the host to continue. One of both is needed.
        teacher: a new encoder learns this one's states, and takes its tokenizer.
        steps: of training.
        learning_rate: the highest; 1e-3 for a new host, 1e-4 for a continuation.
        tokens_per_batch: in a step.
        length: the most tokens in a row of text.
        sizes: of a new host: `width`, `layers`, `heads`, `ffn`, `vocabulary`.
        seed: of weights, order and what is hidden.
        text_column: in files with columns.
        cased: the tokenizer of a new host keeps upper case letters.
        precision: of the products in training, "fp32" or "bf16"; what is saved is in single
            precision.
        device: "cpu" or "cuda"; the GPU when there is one.
        progress: called after each step with its number, from 1, and its loss in nats.

    Raises:
        BadInput: the text cannot be read, the sizes do not fit, or `out` exists already.

    >>> import peftport as pp
    >>> small = {"width": 16, "layers": 1, "heads": 2, "vocabulary": 300}
    >>> made = pp.pretrain_host("new", "texts.txt", 2, family="gpt2", length=8,
    ...                         tokens_per_batch=64, sizes=small)
    >>> made.folder.name
    'new'
    """
    from peftport.hosts.fingerprint import fingerprint
    from peftport.hosts.source import geometry_in
    from peftport.pretraining.pretrain import Settings, pretrain

    folder = Path(out)
    made = pretrain(
        folder,
        Path(texts),
        Settings(steps, seed, learning_rate, length, tokens_per_batch, precision),
        family=family,
        origin=origin,
        teacher=teacher,
        sizes=_sizes(sizes or {}),
        cased=cased,
        text_column=text_column,
        device=device_named(device),
        progress=progress,
    )
    geometry = geometry_in(folder, str(folder))
    record = {
        "kind": geometry.kind,
        **geometry.record(),
        "fingerprint": fingerprint(folder),
        **made.record,
        "final_loss": made.record["losses"][-1][1],
    }
    return PretrainedHost(folder, record)


def _sizes(asked: Mapping[str, int]) -> Any:
    """The sizes of a new host, None when none is given."""
    from peftport.pretraining.scratch import Sizes

    asked = dict(asked)
    if "width" in asked:
        asked.setdefault("ffn", 4 * asked["width"])
    return Sizes(**asked) if asked else None

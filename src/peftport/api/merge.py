"""A LoRA module merged into its host."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.binding import noticed_host
from peftport.api.hosts import HostHandle, as_host
from peftport.api.modules import as_handle
from peftport.api.result import Result

if TYPE_CHECKING:
    from peftport.api.modules import ModuleLike

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Merged(Result):
    """A plain model folder.

    Attributes:
        out: the folder.
        module: the module's folder.
        host: name of the host.
        changed: weights that the module changed.
        bytes: of all weights.
        shards: files of them.
        types: that they are stored in, as safetensors names them ("BF16").
    """

    out: Path
    module: str
    host: str
    changed: int
    bytes: int
    shards: int
    types: tuple[str, ...]

    def push_to_hub(self, name: str, *, private: bool = False) -> str:
        """Upload the folder; as `ModuleHandle.push_to_hub`."""
        from peftport.modules.hub import push

        return push(self.out, name, private=private)

    def to_dict(self) -> dict[str, Any]:
        """Everything."""
        return {**vars(self), "out": str(self.out), "types": list(self.types)}

    def __str__(self) -> str:
        files = f"{self.shards} file{'s' * (self.shards != 1)}"
        return (
            f"{self.module} merged into {self.host}: {self.out}\n"
            f"{self.changed} weights changed; {self.bytes / 1e9:.2f} GB of {', '.join(self.types)} "
            f"in {files}"
        )


def merge(
    module: ModuleLike,
    host: str | Path | HostHandle,
    out: str | Path,
    *,
    shard: int | None = None,
) -> Merged:
    """Add a LoRA module to the weights of its host and write a plain model folder, which loads
    without peft: W' = W + scale * B A (Hu et al. 2021, arXiv 2106.09685).

    Weights keep the type that they are stored in; no more than one shard is in memory.

    Args:
        module: a folder, or what `load_module`, `port` or `train` gave.
        host: a name, or what `load_host` gave.
        out: a new folder.
        shard: bytes of weights in a file, at most; 2 GiB if not given.

    Raises:
        BadInput: the module is not LoRA, has a head, or is made for another geometry, or `out`
            exists already.

    >>> import peftport as pp
    >>> merged = pp.merge("modules/films", "lab:small", "merged")
    >>> merged.types, pp.load_host("merged").geometry.width
    (('F16',), 64)
    """
    from peftport.modules.merge import SHARD
    from peftport.modules.merge import merge as write
    from peftport.techniques.head import BIAS

    handle, there = as_handle(module), as_host(host)
    loaded = handle.module
    noticed_host(handle, there, "this merges a plain copy")
    if BIAS in loaded.tensors and loaded.record.head == "words":
        _log.warning(
            "notice: %s adds a bias to the scores of its label words, for which a plain model has "
            "no place: it is left out",
            handle.called,
        )
    written = write(
        loaded, there.folder, there.geometry, Path(out), name=there.name, shard=shard or SHARD
    )
    return Merged(Path(out), handle.called, there.name, **vars(written))

"""Tensors that lie in a temporary file while nothing needs them.

They are written and read as a whole, and the file is not mapped into memory: mapped pages count as
the program's own wherever memory is measured, and stay there after their use.
"""

from __future__ import annotations

import os
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.porting.estimate import gigabytes

_FEW = 128 << 20
"""Bytes that are left in memory, where a file would gain little."""

_Piece = tuple[int, torch.Size]
"""Where in the file values begin, and their shape."""


def on_disk(size: float) -> float:
    """How many bytes go to the disk, of so many that can be put aside: all or none."""
    return size if size > _FEW else 0.0


class Aside:
    """Where tensors are put until they are needed again: in a file, if they are large.

    Args:
        size: bytes of all of them, about.

    Raises:
        BadInput: the temporary folder has no room for them; also when they are put there.
    """

    def __init__(self, size: int) -> None:
        self._size, self._end = size, 0
        self._pieces: dict[Tensor, list[_Piece]] = {}
        self._file: Any = None
        self._reading = Lock()  # maps are fitted two at a time
        if on_disk(size):
            with self._at_disk():
                # It has no name, so that it goes with this process however that ends.
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
                weakref.finalize(self, self._file.close)
                if sys.platform == "linux":
                    os.posix_fallocate(self._file.fileno(), 0, size)

    def put(self, tensor: Tensor) -> None:
        """Take a tensor's values out of memory. They are NaN until they are at hand again; to
        autograd it stays the same tensor."""
        if self._file is None:
            return
        values = tensor.detach().cpu().contiguous()
        with self._at_disk():
            self._file.seek(self._end)
            self._file.write(_bytes(values))
        self._pieces[tensor] = [(self._end, tensor.shape)]
        self._end += values.nbytes
        _empty(tensor)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """One tensor of what was put here in parts, along the last axis but one."""
        if self._file is None:
            return torch.cat(list(parts), dim=-2)
        shape = list(parts[0].shape)
        shape[-2] = sum(part.shape[-2] for part in parts)
        whole = _nothing(parts[0].dtype, parts[0].device).expand(shape)
        self._pieces[whole] = [piece for part in parts for piece in self._pieces.pop(part)]
        return whole

    @contextmanager
    def at_hand(self, tensors: Iterable[object]) -> Iterator[None]:
        """Have those of these tensors that were put here in memory meanwhile."""
        mine = [each for each in tensors if isinstance(each, Tensor) and each in self._pieces]
        for tensor in mine:
            pieces = [self._read(piece, tensor.dtype) for piece in self._pieces[tensor]]
            values = pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=-2)
            tensor.data = values.to(tensor.device)
        try:
            yield
        finally:
            for tensor in mine:
                _empty(tensor)

    def _read(self, piece: _Piece, dtype: torch.dtype) -> Tensor:
        place, shape = piece
        values = torch.empty(shape, dtype=dtype)
        with self._reading, self._at_disk():
            self._file.seek(place)
            self._file.readinto(_bytes(values))
        return values

    @contextmanager
    def _at_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BadInput(
                f"what is seen of a host's layers lies in {tempfile.gettempdir()} while the module "
                f"is ported, and {gigabytes(self._size)} cannot be written there: "
                f"{error.strerror or error}. Name a folder with more room in TMPDIR, or give fewer "
                "texts with --text-count."
            ) from error


def _bytes(values: Tensor) -> Any:
    return values.flatten().view(torch.uint8).numpy()


def _empty(tensor: Tensor) -> None:
    """Let go of a tensor's values; its shape stays."""
    tensor.data = _nothing(tensor.dtype, tensor.device).expand(tensor.shape)


@cache
def _nothing(dtype: torch.dtype, device: torch.device) -> Tensor:
    """One NaN for all: one for each tensor would come to lie where the tensor was, and no other
    tensor would fit into what is left of the place."""
    return torch.full((), float("nan"), dtype=dtype, device=device)

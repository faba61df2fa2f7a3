"""The head of a GGUF file, walked before another library opens it: whether all that it counts is
there. Readers believe a file's counts, and a count of 2**63 has no end.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import os
import struct
from io import BufferedReader
from pathlib import Path

from peftport.errors import BadInput
from peftport.files import opened

_VERSIONS = (2, 3)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of a value, by its type."""
_STRING, _ARRAY = 8, 9
_DIMENSIONS, _KEYS, _TENSORS, _LONGEST_KEY = 4, 10_000, 100_000, 65_535
_WEIGHTS_IN_A_BYTE = 8


def require_whole_gguf(path: Path) -> None:
    """Raise BadInput unless a GGUF file holds all that its head says, and no tensor claims more
    weights than the file has bits."""
    with opened(path) as file:
        try:
            _Head(file).walk()
        except (ValueError, struct.error) as error:
            raise BadInput(f"{path} is no whole GGUF file: {error}.") from error


class _Head:
    """A cursor in a file's head."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._left = os.fstat(file.fileno()).st_size
        self._weights = _WEIGHTS_IN_A_BYTE * self._left

    def walk(self) -> None:
        """Go through the head; ValueError where it does not hold."""
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin as one")
        if (version := self._number("I")) not in _VERSIONS:
            raise ValueError(f"it is of version {version}, expected 2 or 3, little-endian")
        tensors = self._count(self._number("Q"), _TENSORS, "tensors")
        for _ in range(self._count(self._number("Q"), _KEYS, "keys")):
            key = self._take(self._count(self._number("Q"), _LONGEST_KEY, "bytes of a key"))
            kind = self._number("I")
            if key.endswith(b".block_count") and kind in _SIZES:
                # Whoever reads it makes something of every layer.
                layers = int.from_bytes(self._take(self._size(kind)), "little")
                if layers > tensors:
                    raise ValueError(f"it claims {layers} layers, and has {tensors} tensors")
            else:
                self._value(kind)
        for _ in range(tensors):
            self._tensor()

    def _value(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind != _ARRAY:
            self._take(self._size(kind))
        else:
            inner, count = self._number("I"), self._number("Q")
            if inner != _STRING:
                self._skip(self._size(inner) * count)
                return
            if 8 * count > self._left:
                raise ValueError(f"it claims {count} strings, which it has no bytes for")
            for _ in range(count):
                self._string()

    def _tensor(self) -> None:
        self._string()
        count = self._count(self._number("I"), _DIMENSIONS, "dimensions of a tensor")
        shape = [self._number("Q") for _ in range(count)]
        self._take(4 + 8)  # its type and its place
        if math.prod(max(n, 1) for n in shape) > self._weights:
            raise ValueError(f"a tensor claims the shape {shape}, which the file has no bytes for")

    def _size(self, kind: int) -> int:
        if kind not in _SIZES:
            raise ValueError(f"it has a value of type {kind}, which is none of a key")
        return _SIZES[kind]

    def _count(self, number: int, most: int, what: str) -> int:
        if number > most:
            raise ValueError(f"it claims {number} {what}, and at most {most} are read")
        return number

    def _string(self) -> None:
        self._skip(self._number("Q"))

    def _number(self, form: str) -> int:
        found: int = struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))[0]
        return found

    def _take(self, size: int) -> bytes:
        self._spend(size)
        return self._file.read(size)

    def _skip(self, size: int) -> None:
        self._spend(size)
        self._file.seek(size, os.SEEK_CUR)

    def _spend(self, size: int) -> None:
        if size > self._left:
            raise ValueError("it ends before its head does")
        self._left -= size

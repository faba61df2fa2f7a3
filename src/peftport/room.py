"""How much memory the data files of strangers may take, as tables and as Python's objects.

A small file can stand for much: a text that is written once and repeated, columns that most rows
leave out, millions of rows of a letter each. So what a file takes is counted, and not its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from peftport.errors import BadInput

MOST = 1 << 30
"""Bytes of the table that a data file may be."""
ROW, VALUE = 64, 80
"""Bytes that a row takes whatever it holds, and that a Python object takes beside its text."""


class _Room:
    def __init__(self, size: int) -> None:
        self.size = self.left = size


_ROOM: ContextVar[_Room | None] = ContextVar("room", default=None)


@contextmanager
def within(size: int) -> Iterator[None]:
    """Refuse data files whose tables take more than `size` bytes in the block, or all of whose
    texts together do."""
    token = _ROOM.set(_Room(size))
    try:
        yield
    finally:
        _ROOM.reset(token)


def require_room(size: int, where: str) -> None:
    """Raise BadInput where a table of so many bytes, which `where` has, is more than may be."""
    room = _ROOM.get()
    most = MOST if room is None else min(MOST, room.size)
    if size > most:
        raise _too_much(where, most)


def take(size: int, where: str) -> None:
    """Count what is kept of `where`; raise BadInput where it is more than there is room for."""
    if (room := _ROOM.get()) is not None:
        room.left -= size
        if room.left < 0:
            raise _too_much(where, room.size)


def as_table(array: Any) -> int:
    """Bytes of an Arrow array, texts that are kept once and repeated written out."""
    return _weight(array, 0)


def as_objects(array: Any) -> int:
    """Bytes of what an Arrow array holds as Python's objects, at most."""
    return _weight(array, VALUE)


def _too_much(where: str, most: int) -> BadInput:
    return BadInput(
        f"{where} takes more than {most:,} bytes of memory, which is more than is read here: give "
        "a part of it, and only the columns that are used."
    )


def _weight(array: Any, each: int) -> int:
    """Bytes of an array, `each` added for every value within it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        return sum(_weight(chunk, each) for chunk in array.chunks)
    if pa.types.is_dictionary(kind):
        lengths = _lengths(array.dictionary, each)
        return len(array) * each + (pc.sum(lengths.take(array.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        inner = sum(_weight(part, each) for part in array.flatten())
        return len(array) * 4 * each + inner
    if pa.types.is_nested(kind) and hasattr(array, "flatten"):  # lists of all kinds
        return len(array) * (each + 8) + _weight(array.flatten(), each)
    if kind in (pa.string(), pa.large_string()):
        return len(array) * (each + 8) + (pc.sum(_lengths(array, each)).as_py() or 0)
    return len(array) * each // 2 + int(array.nbytes)


def _lengths(array: Any, each: int) -> Any:
    """Bytes of each text of an array; as a Python object, a text that is not ASCII takes up to
    four for a character."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if array.type not in (pa.string(), pa.large_string(), pa.binary(), pa.large_binary()):
        return pa.array([8] * len(array), pa.int64())
    found = pc.cast(pc.binary_length(array), pa.int64())
    if each and array.type in (pa.string(), pa.large_string()):
        characters = pc.cast(pc.utf8_length(array), pa.int64())
        twice = pc.add(characters, characters)  # a number of Python's own would load pandas
        found = pc.if_else(pc.equal(characters, found), found, pc.add(twice, twice))
    return found

"""Rows of text files, one after the other: lines, and the objects of JSONL and JSON files.

No more of a file is in memory than a row at a time.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from peftport.errors import BadInput
from peftport.files import opened, parse_first, parse_json

LONGEST = 1 << 23
"""Bytes of a row: as objects in memory, up to thirty times as many."""
AT_ONCE = 1 << 20
_WRITTEN = re.compile(r"[^ \t\n\r]")


@dataclass(frozen=True)
class JsonRow:
    """An object of a file: where it stands, for messages, and the bytes of its text."""

    where: str
    value: dict[str, Any]
    size: int


def size_of(text: str) -> int:
    """Bytes of a text in UTF-8, as files have it."""
    return len(text) if text.isascii() else len(text.encode())


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers and what ends them.

    Raises:
        BadInput: a line is longer than a row can be, or the file is not UTF-8.
    """
    with opened(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
            if len(line) > LONGEST:
                raise BadInput(
                    f"line {number} of {path} has more than {LONGEST:,} bytes, which no row has: "
                    "is each row on a line of its own?"
                )
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise BadInput(f"{path} is not UTF-8 text: line {number}: {error}.") from error


def of_lines(path: Path) -> Iterator[JsonRow]:
    """The objects of a JSONL file; BadInput names the line of what is none."""
    for number, line in lines(path):
        if line.strip():
            where = f"line {number} of {path}"
            value = parse_json(line, where, halves=True)
            yield JsonRow(where, _object(value, where), size_of(line))


def of_list(path: Path) -> Iterator[JsonRow]:
    """The objects of a JSON list; a file that begins otherwise is read as JSONL.

    Raises:
        BadInput: names the row of what is no object, or longer than a row can be.
    """
    with opened(path) as file:
        text = _Text(file, path)
        if text.next_mark() != "[":
            yield from of_lines(path)
            return
        yield from _items(text, path)
        if text.next_mark():
            raise BadInput(f"{path} is not valid JSON: something follows its list.")


def _items(text: _Text, path: Path) -> Iterator[JsonRow]:
    """The objects of a list, of which `text` stands at the beginning, and then at its end."""
    text.place += 1
    empty, number, mark = text.next_mark() == "]", 0, ","
    while mark == "," and not empty:
        number += 1
        where = f"row {number} of {path}"
        value, size = text.next_value(where)
        yield JsonRow(where, _object(value, where), size)
        mark = text.next_mark()
        if mark not in (",", "]"):
            raise BadInput(f"{path} is not valid JSON: no ',' and no ']' follows its row {number}.")
        text.place += 1
    text.place += empty


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f'{where} is not an object like {{"text": ..., "label": ...}}.')
    return value


class _Text:
    """A text out of a file, of which more is read when it is needed.

    Attributes:
        place: what is before it was taken.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), path
        self._text, self._ended = "", False
        self.place = 0

    def next_mark(self) -> str:
        """The next character that is not blank, which is not taken; "" at the end."""
        while not (found := _WRITTEN.search(self._text, self.place)):
            if self._ended:
                return ""
            self.place = len(self._text)
            self._read_on()
        self.place = found.start()
        return found[0]

    def next_value(self, where: str) -> tuple[Any, int]:
        """The JSON value that comes next, and the bytes of its text."""
        self.next_mark()
        why = ""
        while True:
            try:
                value, end = parse_first(self._text, self.place, where)
            except BadInput as error:  # it may only be cut off
                if self._ended:
                    raise
                why = f" {error}"
            else:
                size = size_of(self._text[self.place : end])
                if size > LONGEST:
                    raise BadInput(f"{where} has more than {LONGEST:,} bytes.")
                if end < len(self._text) or self._ended:  # a number may go on behind the end
                    self.place = end
                    return value, size
            if size_of(self._text[self.place :]) > LONGEST:
                raise BadInput(
                    f"{where} is not valid JSON, or has more than {LONGEST:,} bytes, which no "
                    f"row has: is each row an object of its own?{why}"
                )
            self._read_on()

    def _read_on(self) -> None:
        """Read as much again as is left, so that a long value is not tried often."""
        left = self._text[self.place :]
        try:
            new = self._file.read(max(AT_ONCE, len(left)))
        except UnicodeDecodeError as error:
            raise BadInput(f"{self._path} is not UTF-8 text: {error}.") from error
        self._text, self.place, self._ended = left + new, 0, not new

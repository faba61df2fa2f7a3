"""Texts without labels, out of files: to pretrain on, and to look at what hosts make of them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from sys import getsizeof
from typing import Any

from peftport import tables
from peftport.errors import BadInput
from peftport.files import is_folder, opened
from peftport.records import LONGEST, lines, size_of
from peftport.room import VALUE, take

ENDINGS = (".txt", *tables.ENDINGS)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TextFile:
    """The texts of one file, without empty ones."""

    path: Path
    texts: list[str]

    def record(self) -> dict[str, Any]:
        """What a host's record says of the file; where it lay does not count."""
        with opened(self.path) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"file": self.path.name, "sha256": digest, "texts": len(self.texts)}


def read_texts(path: Path, column: str | None = None) -> list[TextFile]:
    """Read a file, or all files of a folder that end as data files do, in the order of their names.

    Blank lines separate the texts of a `.txt` file. Rows without text are left out.

    Args:
        column: the column of the texts in files that have columns; else the first of
            `tables.TEXT_COLUMNS` that is there.

    Raises:
        BadInput: nothing is there, a file cannot be read or lacks the column, or there is no text.
    """
    files = text_files(path) if is_folder(path) else [path]
    found = [TextFile(file, _texts(file, column)) for file in files]
    for file in found:
        if not file.texts:
            raise BadInput(f"{file.path} has no text: every row of it is empty.")
    return found


def text_files(folder: Path) -> list[Path]:
    """The files of a folder that end as data files do, by name; BadInput where there is none."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in ENDINGS)
    if not files:
        raise BadInput(f"{folder} has no file that ends in {', '.join(ENDINGS)}.")
    return files


def _texts(path: Path, column: str | None) -> list[str]:
    rows = list(_raw(path, column))
    found = [text for text in rows if text and not text.isspace()]
    if found and len(found) < len(rows):
        left_out = len(rows) - len(found)
        _log.warning(
            "notice: %d of %d rows of %s have no text: left out", left_out, len(rows), path
        )
    return found


def _raw(path: Path, column: str | None) -> Iterator[str | None]:
    if tables.require_file(path, ENDINGS).suffix.lower() == ".txt":
        yield from _paragraphs(path)
        return
    table = tables.read_table(path)
    hint = "Name the right one with --text-column."
    columns = list(table.column_names)
    name = tables.column_named(columns, column, tables.TEXT_COLUMNS, "text", str(path), hint)
    yield from tables.texts_in(table, name, str(path))


def _paragraphs(path: Path) -> Iterator[str]:
    """The texts of a `.txt` file: lines with no blank one between."""
    text: list[str] = []
    size, first = 0, 1
    for number, whole in lines(path):
        for line in whole.splitlines():
            if line.strip():
                text.append(line)
                size += size_of(line)
            elif text:
                yield _joined(text, path)
                text, size, first = [], 0, number + 1
        if size > LONGEST:
            raise BadInput(
                f"the text from line {first} of {path} on has more than {LONGEST:,} bytes: "
                "separate texts by blank lines."
            )
    if text:
        yield _joined(text, path)


def _joined(text: list[str], path: Path) -> str:
    found = "\n".join(text)
    take(getsizeof(found) + VALUE, str(path))
    return found

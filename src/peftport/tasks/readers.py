"""Rows as the files of a data set have them: which files, and the columns of text and label.

Missing values and class names are checked in one place for all formats, and every message names the
file and the row (counted from 1, without the header).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import parse_json
from peftport.tables import ENDINGS, TEXT_COLUMNS, column_named, texts_in, values_in
from peftport.tasks.labels import Label, canonical

SPLITS = ("train", "validation", "test")
LABEL_COLUMNS = ("label",)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_SHARD = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")


@dataclass(frozen=True)
class Table:
    """Rows as one file has them.

    Attributes:
        texts: what is put before a host; of chats, the turns before the answer as JSON.
        labels: what is asked for: a label, or the text of an answer, by the rows' form.
        names: the words that the file gives its label numbers.
        form: of the rows (`peftport.tasks.forms`).
        answers: of rows with several answers, those of each.
    """

    origin: str
    texts: list[str]
    labels: list[Label]
    names: tuple[str, ...] | None = None
    form: str = "labelled"
    answers: tuple[tuple[str, ...], ...] = ()


def find_splits(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the data files of a folder by split: `train.csv`, `dev.jsonl`,
    `test-00000-of-00002.parquet`; a split in several shards is one split.

    Raises:
        BadInput: no such file, two files for one split, or a shard that is missing.
    """
    found: dict[str, dict[str, list[Path]]] = {}
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in ENDINGS)
    for path in files:
        shard = _SHARD.fullmatch(path.stem)
        name = shard["name"] if shard else path.stem
        split = SPLIT_NAMES.get(name.lower())
        if split:
            kind = f"{name}-*-of-{shard['count']}{path.suffix}" if shard else path.name
            found.setdefault(split, {}).setdefault(kind, []).append(path)
    if not found:
        there = ", ".join(f.name for f in files[:8]) or "no data file"
        raise BadInput(
            f"{folder} has no train, validation or test file ({', '.join(ENDINGS)}); it has "
            f"{there}. Name a file itself, or list the files under `splits` in a task YAML."
        )
    for split, kinds in found.items():
        if len(kinds) > 1:
            raise BadInput(
                f"{folder} has more than one {split} split: {', '.join(sorted(kinds))}. "
                "Remove one, or name the right one under `splits` in a task YAML."
            )
    return {split: _all_shards(paths) for split, (paths,) in _values(found).items()}


def labelled(table: Any, origin: str, text: str | None = None, label: str | None = None) -> Table:
    """Take texts and labels out of a pyarrow Table.

    Args:
        text: the column of the texts; else the first of `TEXT_COLUMNS` that is there.
        label: the column of the labels; else "label".

    Raises:
        BadInput: it lacks a column, has no rows, or has a row without text or label.
    """
    columns = list(table.column_names)
    column_of(columns, text, TEXT_COLUMNS, "text", origin)
    label_column = column_of(columns, label, LABEL_COLUMNS, "label", origin)
    return Table(
        origin,
        texts_of(table, text, origin),
        _labels(values_in(table, label_column, origin), origin),
        _class_names(table.schema.metadata, label_column),
    )


def texts_of(
    table: Any,
    asked: str | None,
    origin: str,
    usual: tuple[str, ...] = TEXT_COLUMNS,
    what: str = "text",
) -> list[str]:
    """The texts of the column that is asked for, or of the first usual one that is there.

    Args:
        what: they are, for messages, and the key of a task YAML that names their column.

    Raises:
        BadInput: there is no such column, no row, or a row without text.
    """
    column = column_of(list(table.column_names), asked, usual, what, origin)
    if table.num_rows == 0:
        raise BadInput(f"{origin} has no rows.")
    return _texts(table, column, origin)


def _values(found: dict[str, dict[str, list[Path]]]) -> dict[str, list[list[Path]]]:
    return {split: list(kinds.values()) for split, kinds in found.items()}


def _all_shards(paths: list[Path]) -> tuple[Path, ...]:
    shard = _SHARD.fullmatch(paths[0].stem)
    if shard and len(paths) != int(shard["count"]):
        numbers = {match["number"] for path in paths if (match := _SHARD.fullmatch(path.stem))}
        missing = [n for n in range(int(shard["count"])) if f"{n:05d}" not in numbers]
        raise BadInput(
            f"{paths[0].parent} has {len(paths)} of {int(shard['count'])} files of its "
            f"{shard['name']} split; missing: {', '.join(f'{n:05d}' for n in missing[:8])}."
        )
    return tuple(paths)


def column_of(
    columns: list[str], asked: str | None, usual: tuple[str, ...], what: str, origin: str
) -> str:
    """The column asked for, or the first usual one; BadInput names those that are there."""
    hint = f"Name the right one with `{what}: COLUMN` in a task YAML."
    return column_named(columns, asked, usual, what, origin, hint)


def _texts(table: Any, name: str, origin: str) -> list[str]:
    texts = []
    for row, text in enumerate(texts_in(table, name, origin), start=1):
        if text is None:
            raise BadInput(f"row {row} of {origin} has no text in column {name!r}.")
        texts.append(text)
    return texts


def _labels(values: list[object], origin: str) -> list[Label]:
    known: dict[tuple[type, str], Label] = {}
    labels = []
    for row, value in enumerate(values, start=1):
        key = (type(value), str(value))
        if key not in known:
            try:
                known[key] = canonical(value)
            except ValueError as error:
                raise BadInput(f"row {row} of {origin} has {error}.") from None
        labels.append(known[key])
    return labels


def _class_names(metadata: dict[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """The class names that `datasets` writes into the metadata of its Parquet files."""
    try:
        said = parse_json((metadata or {})[b"huggingface"], "the metadata")
        feature = said["info"]["features"][column]
        return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else None
    except (BadInput, KeyError, TypeError, ValueError):
        return None

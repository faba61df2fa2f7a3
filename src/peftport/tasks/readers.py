"""Reads rows of text and label from Parquet, CSV, TSV, JSONL and JSON files.

Every reader ends in an Arrow table, so that columns, missing values and class names are checked
in one place and every message names the file and the row (counted from 1, without the header).
"""

from __future__ import annotations

import csv as text_csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.tasks.labels import Label, canonical

SPLITS = ("train", "validation", "test")
ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
TEXT_COLUMNS = ("text", "sentence")
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
    """Rows as one file has them; `names` are the words that the file gives its label numbers."""

    origin: str
    texts: list[str]
    labels: list[Label]
    names: tuple[str, ...] | None = None


def read_file(path: Path, text: str | None = None, label: str | None = None) -> Table:
    """Read one file's rows.

    Args:
        path: a file with one of `ENDINGS`.
        text: the column of the texts; else the first of `TEXT_COLUMNS` that is there.
        label: the column of the labels; else "label".

    Raises:
        BadInput: the file is missing, empty, corrupt or of an unknown kind, lacks a column, or
            has a row without text or label.
    """
    require_file(path)
    return from_arrow(_READERS[path.suffix.lower()](path), str(path), text, label)


def require_file(path: Path) -> Path:
    """Return `path`; BadInput when it is no data file by its name, is missing or is empty."""
    if path.suffix.lower() not in _READERS:
        raise BadInput(f"{path} is no data file: its name must end in {', '.join(ENDINGS)}.")
    if not path.is_file():
        raise BadInput(f"data file {path} does not exist.")
    if path.stat().st_size == 0:
        raise BadInput(f"data file {path} is empty.")
    return path


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


def from_arrow(table: Any, origin: str, text: str | None = None, label: str | None = None) -> Table:
    """Take texts and labels out of a pyarrow Table; for arguments and errors see `read_file`."""
    columns = list(table.column_names)
    text_column = _column(columns, text, TEXT_COLUMNS, "text", origin)
    label_column = _column(columns, label, LABEL_COLUMNS, "label", origin)
    if table.num_rows == 0:
        raise BadInput(f"{origin} has no rows.")
    return Table(
        origin,
        _texts(table.column(text_column), text_column, origin),
        _labels(table.column(label_column).to_pylist(), origin),
        _class_names(table.schema.metadata, label_column),
    )


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


def _column(
    columns: list[str], asked: str | None, usual: Sequence[str], what: str, origin: str
) -> str:
    for name in (asked,) if asked else usual:
        if columns.count(name) == 1:
            return name
        if name in columns:
            raise BadInput(f"{origin} has the column {name!r} more than once.")
    wanted = repr(asked) if asked else " or ".join(map(repr, usual))
    raise BadInput(
        f"{origin} has no column {wanted} for the {what}; its columns are: {', '.join(columns)}. "
        f"Name the right one with `{what}: COLUMN` in a task YAML."
    )


def _texts(column: Any, name: str, origin: str) -> list[str]:
    import pyarrow as pa

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        raise BadInput(f"row 1 of {origin} has no text in column {name!r}.")
    if kind not in (pa.string(), pa.large_string(), pa.string_view()):
        raise BadInput(f"column {name!r} of {origin} holds {kind}, not text.")
    texts: list[str] = column.to_pylist()
    if column.null_count:
        raise BadInput(f"row {texts.index(None) + 1} of {origin} has no text in column {name!r}.")  # type: ignore[arg-type]
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
        feature = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]
        return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else None
    except (KeyError, TypeError, ValueError):
        return None


def _read_parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} is not a whole Parquet file: {_first_line(error)}") from error


def _read_delimited(path: Path) -> Any:
    """Read a CSV or TSV file as text; an empty field that is not quoted is a missing value."""
    import pyarrow as pa
    from pyarrow import csv

    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # One block holds the whole file: pyarrow refuses a quoted field that spans two blocks.
    block = max(1 << 20, path.stat().st_size + 1)
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        read = csv.ReadOptions(use_threads=False, block_size=block)
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = next(text_csv.reader(file, delimiter=delimiter), [])
        convert = csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return csv.read_csv(path, read_options=read, parse_options=parse, convert_options=convert)
    except (pa.ArrowException, OSError, UnicodeDecodeError, text_csv.Error) as error:
        raise BadInput(f"{path} cannot be read as {path.suffix[1:].upper()}: {error}.") from error


def _read_json_lines(path: Path) -> Any:
    lines = _decoded(path).split("\n")
    return _from_records(
        [
            (f"line {number}", _record(line, f"line {number} of {path}"))
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ],
        path,
    )


def _read_json(path: Path) -> Any:
    """Read a JSON list of objects; a file that begins otherwise is read as JSONL."""
    text = _decoded(path)
    if not text.lstrip().startswith("["):
        return _read_json_lines(path)
    records = _record(text, str(path))
    return _from_records([(f"row {i}", record) for i, record in enumerate(records, 1)], path)


def _record(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadInput(f"{where} is not valid JSON: {error}.") from error


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}.") from error


def _from_records(records: list[tuple[str, Any]], path: Path) -> Any:
    """An Arrow table of objects; a column in which types are mixed is kept as text."""
    import pyarrow as pa

    for where, record in records:
        if not isinstance(record, dict):
            raise BadInput(
                f'{where} of {path} is not an object like {{"text": ..., "label": ...}}.'
            )
    columns = list(dict.fromkeys(key for _, record in records for key in record))
    arrays = {}
    for column in columns:
        values = [record.get(column) for _, record in records]
        try:
            arrays[column] = pa.array(values)
        except (pa.ArrowException, UnicodeEncodeError):
            arrays[column] = pa.array([_as_text(value) for value in values])
    return pa.table(arrays)


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


_READERS = {
    ".parquet": _read_parquet,
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
}

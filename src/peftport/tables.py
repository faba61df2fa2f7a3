"""Tables in Parquet, CSV, TSV, JSONL and JSON files, and the column of texts in them.

Every reader ends in an Arrow table, so that columns and missing values are checked in one place and
every message names the file.
"""

from __future__ import annotations

import csv as text_csv
import io
import json
import os
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import by_library, exists, opened, parse_json, read_text

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
TEXT_COLUMNS = ("text", "sentence")
LARGEST, _START = 1 << 30, 1 << 12
"""Bytes of a data file that is read, and of its start by which it is told whether it is text."""
_FEW = 1_000_000
"""Rows that a file may have, however small it is."""
_LONGEST, _COLUMNS = 1 << 25, 10_000
"""Bytes of a line, and columns, of more than any table: they would take many times that memory."""
_USUAL, _CELLS = 64, 1 << 25
"""Columns that a table of any length may have, and cells of those beyond them, which a small file
can claim by leaving most of them out."""
_IN_LINES = (".csv", ".tsv", ".jsonl", ".ndjson")


def require_file(path: Path, endings: Sequence[str] = ENDINGS) -> Path:
    """Return `path`; BadInput when it is no data file by its name, is missing, empty,
    larger than 1 GiB, or text with null bytes."""
    if path.suffix.lower() not in endings:
        raise BadInput(f"{path} is no data file: its name must end in {', '.join(endings)}.")
    if not exists(path):
        raise BadInput(f"data file {path} does not exist.")
    with opened(path) as file:
        start = file.read(_START)
        if not start:
            raise BadInput(f"data file {path} is empty.")
        if path.suffix.lower() != ".parquet" and b"\0" in start:
            raise BadInput(f"data file {path} is not text: it has null bytes.")
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise BadInput(
                f"data file {path} has more than {LARGEST:,} bytes, which are not read in one "
                "piece: give a part of it."
            )
        if path.suffix.lower() in _IN_LINES and os.fstat(file.fileno()).st_size > _LONGEST:
            _require_lines(file, path)
    return path


def _require_lines(file: BufferedReader, path: Path) -> None:
    """Raise BadInput where a line of a text file is longer than a row can be."""
    file.seek(0)
    for number, line in enumerate(iter(lambda: file.readline(_LONGEST + 1), b""), 1):
        if len(line) > _LONGEST:
            raise BadInput(
                f"line {number} of {path} has more than {_LONGEST:,} bytes, which no row has: is "
                "each row on a line of its own?"
            )


def _require_columns(count: int, path: Path, rows: int = 0) -> None:
    if count > _COLUMNS or (count - _USUAL) * rows > _CELLS:
        raise BadInput(
            f"data file {path} has {count:,} columns; at most {_COLUMNS:,} are read, and of many "
            "rows fewer. Is each row on a line of its own? Leave out the columns that are not used."
        )


def read_table(path: Path) -> Any:
    """Read a file with one of `ENDINGS` as a pyarrow Table.

    Raises:
        BadInput: the file is missing, empty, corrupt or of an unknown kind.
    """
    return _READERS[require_file(path).suffix.lower()](path)


def column_named(
    columns: list[str], asked: str | None, usual: Sequence[str], what: str, origin: str, hint: str
) -> str:
    """The column that was asked for, or else the first of the usual ones.

    Args:
        what: what it holds; origin: where the columns are; hint: what to do without it. These are
            for the message.

    Raises:
        BadInput: there is no such column, or more than one.
    """
    for name in (asked,) if asked else usual:
        if columns.count(name) == 1:
            return name
        if name in columns:
            raise BadInput(f"{origin} has the column {name!r} more than once.")
    wanted = repr(asked) if asked else " or ".join(map(repr, usual))
    raise BadInput(
        f"{origin} has no column {wanted} for the {what}; its columns are: {', '.join(columns)}. "
        f"{hint}"
    )


def texts_in(table: Any, name: str, origin: str) -> list[str | None]:
    """The texts of a column, None where there is none; BadInput when it holds something else."""
    import pyarrow as pa

    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if kind not in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
        raise BadInput(f"column {name!r} of {origin} holds {kind}, not text.")
    with by_library(f"column {name!r} of {origin} cannot be read"):
        texts: list[str | None] = column.to_pylist()
    return texts


def decoded(path: Path) -> str:
    """A data file's text, however large; BadInput when it is not UTF-8."""
    return read_text(path, limit=None)


def _read_parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    advice = "Copy it again from where it came from."
    with opened(path) as file, by_library(f"{path} is not a whole Parquet file", advice):
        found = pq.ParquetFile(file)
        # What is written once and repeated takes no room in the file, and all of it in memory.
        if found.metadata.num_rows > max(_FEW, os.fstat(file.fileno()).st_size):
            raise ValueError(f"it claims {found.metadata.num_rows:,} rows, more than it has bytes")
        _require_columns(found.metadata.num_columns, path, found.metadata.num_rows)
        table = found.read()
        table.validate(full=True)
        return table


def _read_delimited(path: Path) -> Any:
    """Read a CSV or TSV file as text; an empty field that is not quoted is a missing value."""
    import pyarrow as pa
    from pyarrow import csv

    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    parse = csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with (
        opened(path) as file,
        by_library(f"{path} cannot be read as {path.suffix[1:].upper()}"),
    ):
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        names = next(text_csv.reader(text, delimiter=delimiter), [])
        _require_columns(len(names), path)
        text.detach().seek(0)
        # One block holds the whole file: pyarrow refuses a quoted field that spans two blocks.
        block = max(1 << 20, os.fstat(file.fileno()).st_size + 1)
        read = csv.ReadOptions(use_threads=False, block_size=block)
        convert = csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        return csv.read_csv(file, read_options=read, parse_options=parse, convert_options=convert)


def _read_json_lines(path: Path) -> Any:
    lines = decoded(path).split("\n")
    return _from_records(
        [
            (f"line {number}", parse_json(line, f"line {number} of {path}", halves=True))
            for number, line in enumerate(lines, start=1)
            if line.strip()
        ],
        path,
    )


def _read_json(path: Path) -> Any:
    """Read a JSON list of objects; a file that begins otherwise is read as JSONL."""
    text = decoded(path)
    if not text.lstrip().startswith("["):
        with opened(path) as file:
            _require_lines(file, path)
        return _read_json_lines(path)
    records = parse_json(text, str(path), halves=True)
    return _from_records([(f"row {i}", record) for i, record in enumerate(records, 1)], path)


def _from_records(records: list[tuple[str, Any]], path: Path) -> Any:
    """An Arrow table of objects; a column in which types are mixed is kept as text."""
    import pyarrow as pa

    for where, record in records:
        if not isinstance(record, dict):
            raise BadInput(
                f'{where} of {path} is not an object like {{"text": ..., "label": ...}}.'
            )
    columns = list(dict.fromkeys(key for _, record in records for key in record))
    _require_columns(len(columns), path, len(records))
    arrays = {}
    for column in columns:
        values = [record.get(column) for _, record in records]
        try:
            arrays[column] = pa.array(values)
        except (pa.ArrowException, ValueError, OverflowError):  # also half a character
            arrays[column] = pa.array([_as_text(value) for value in values])
    with by_library(f"{path} is no table"):
        return pa.table({_as_text(name): array for name, array in arrays.items()})


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


_READERS = {
    ".parquet": _read_parquet,
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
}

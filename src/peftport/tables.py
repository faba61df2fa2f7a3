"""Tables in Parquet, CSV, TSV, JSONL and JSON files, and the column of texts in them.

Every reader ends in an Arrow table, so that columns and missing values are checked in one place and
every message names the file.
"""

from __future__ import annotations

import codecs
import csv as text_csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import by_library, exists, opened
from peftport.records import LONGEST, JsonRow, lines, of_lines, of_list
from peftport.room import ROW, as_objects, as_table, require_room, take

ENDINGS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
TEXT_COLUMNS = ("text", "sentence")
LARGEST, _START = 1 << 30, 1 << 12
"""Bytes of a data file that is read, and of its start by which it is told whether it is text."""
_COLUMNS = 10_000
"""Columns, of more than any table."""
_USUAL, _CELLS = 64, 1 << 25
"""Columns that a table of any length may have, and cells of those beyond them, which a small file
can claim by leaving most of them out."""
BATCH = 1 << 22
"""Bytes of text that are objects in memory before they are part of a table."""


def require_file(path: Path, endings: Sequence[str] = ENDINGS) -> Path:
    """Return `path`; BadInput when it is no data file by its name, is missing, empty,
    larger than 1 GiB, or text with null bytes."""
    if not exists(path):
        raise BadInput(f"data file {path} does not exist.")
    if path.suffix.lower() not in endings:
        raise BadInput(f"{path} is no data file: its name must end in {', '.join(endings)}.")
    with opened(path) as file:
        start = file.read(_START)
        if not start:
            raise BadInput(f"data file {path} is empty.")
        if path.suffix.lower() != ".parquet" and b"\0" in start:
            wide = start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            what = "UTF-16; save it as UTF-8" if wide else "not text: it has null bytes"
            raise BadInput(f"data file {path} is {what}.")
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise BadInput(
                f"data file {path} has more than {LARGEST:,} bytes, which are not read in one "
                "piece: give a part of it."
            )
    return path


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


class NoColumn(BadInput):
    """A table has not the column that was asked for, or none of the usual ones.

    Attributes:
        columns: those that it has.
    """

    def __init__(self, message: str, columns: Sequence[str]) -> None:
        super().__init__(message)
        self.columns = tuple(columns)


def column_named(
    columns: list[str], asked: str | None, usual: Sequence[str], what: str, origin: str, hint: str
) -> str:
    """The column that was asked for, or else the first of the usual ones.

    Args:
        what: what it holds; origin: where the columns are; hint: what to do without it. These are
            for the message.

    Raises:
        BadInput: there is no such column, as `NoColumn`, or more than one.
    """
    for name in (asked,) if asked else usual:
        if columns.count(name) == 1:
            return name
        if name in columns:
            raise BadInput(f"{origin} has the column {name!r} more than once.")
    if len(columns) == 1 and ";" in columns[0]:
        hint = "Its columns seem to be separated by semicolons: save it with commas."
    wanted = repr(asked) if asked else " or ".join(map(repr, usual))
    raise NoColumn(
        f"{origin} has no column {wanted} for the {what}; its columns are: {', '.join(columns)}. "
        f"{hint}",
        columns,
    )


def texts_in(table: Any, name: str, origin: str) -> list[str | None]:
    """The texts of a column, None where there is none; BadInput when it holds something else."""
    import pyarrow as pa

    column = table.column(name)
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if kind not in (pa.string(), pa.large_string(), pa.string_view(), pa.null()):
        raise BadInput(f"column {name!r} of {origin} holds {kind}, not text.")
    texts: list[str | None] = values_in(table, name, origin)
    return texts


def values_in(table: Any, name: str, origin: str) -> list[Any]:
    """The values of a column; BadInput when they cannot be read, or take too much memory."""
    with by_library(f"column {name!r} of {origin} cannot be read"):
        column = table.column(name)
        take(as_objects(column), origin)
        values: list[Any] = column.to_pylist()
    return values


def _read_parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    advice = "Copy it again from where it came from."
    with opened(path) as file, by_library(f"{path} is not a whole Parquet file", advice):
        found = pq.ParquetFile(file)
        told, schema = found.metadata, found.schema_arrow
        _require_columns(told.num_columns, path, told.num_rows)
        groups = [told.row_group(n) for n in range(told.num_row_groups)]
        parts = [group.column(n) for group in groups for n in range(told.num_columns)]
        require_room(ROW * told.num_rows + 8 * sum(part.num_values for part in parts), str(path))
        # A text that is written once and repeated takes no room in the file, and all of it written
        # out: texts are read as what they are, and places in that, and counted before.
        leaves = [found.schema.column(n) for n in range(told.num_columns)]
        texts = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
        file.seek(0)
        table = pq.ParquetFile(file, read_dictionary=texts).read()
        require_room(ROW * table.num_rows + sum(map(as_table, table.columns)), str(path))
        table.validate(full=True)
        return table.cast(schema)


def _read_delimited(path: Path) -> Any:
    """Read a CSV or TSV file as text; an empty field that is not quoted is a missing value."""
    import pyarrow as pa
    from pyarrow import csv

    for _ in lines(path):
        pass  # none is too long
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
        read = csv.ReadOptions(use_threads=False, block_size=LONGEST)
        convert = csv.ConvertOptions(
            column_types={name: pa.string() for name in names},
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        )
        reader = csv.open_csv(file, read_options=read, parse_options=parse, convert_options=convert)
        batches, size = [], 0
        for batch in reader:
            batches.append(batch)
            size += ROW * batch.num_rows + batch.nbytes
            require_room(size, str(path))
        return pa.Table.from_batches(batches, reader.schema)


def _read_records(path: Path, records: Callable[[Path], Iterator[JsonRow]]) -> Any:
    """An Arrow table of objects; a column in which types are mixed is kept as text."""
    import pyarrow as pa

    made = _Columns(path, frozenset())
    made.fill(records(path))
    if mixed := made.mixed():  # batch by batch they were not
        made = _Columns(path, mixed)
        made.fill(records(path))
    with by_library(f"{path} is no table"):
        return pa.table({_as_text(name): array for name, array in made.whole()})


class _Columns:
    """Columns of objects that are made of a batch of them at a time.

    Args:
        as_text: the columns that are text whatever a batch holds.
    """

    def __init__(self, path: Path, as_text: frozenset[str]) -> None:
        self._path, self._as_text = path, as_text
        self._rows, self._size = 0, 0
        self._chunks: dict[str, list[Any]] = {}

    def fill(self, records: Iterator[JsonRow]) -> None:
        """Add all records."""
        batch, size = list[dict[str, Any]](), 0
        for record in records:
            batch.append(record.value)
            size += record.size
            if size > BATCH:
                self._add(batch)
                batch, size = [], 0
        if batch:
            self._add(batch)

    def _add(self, batch: list[dict[str, Any]]) -> None:
        import pyarrow as pa

        for name in dict.fromkeys(key for each in batch for key in each):
            self._chunks.setdefault(name, [pa.nulls(self._rows)])
        self._rows += len(batch)
        _require_columns(len(self._chunks), self._path, self._rows)
        self._size += ROW * len(batch)
        require_room(self._size, str(self._path))
        for name, chunks in self._chunks.items():
            chunks.append(self._array([each.get(name) for each in batch], name in self._as_text))
            self._size += chunks[-1].nbytes
            require_room(self._size, str(self._path))

    @staticmethod
    def _array(values: list[Any], as_text: bool) -> Any:
        import pyarrow as pa

        if not as_text:
            try:
                return pa.array(values)
            except (pa.ArrowException, ValueError, OverflowError):  # also half a character
                pass
        return pa.array([_as_text(value) for value in values])

    def mixed(self) -> frozenset[str]:
        """The columns whose batches have types that are not of one kind."""
        return frozenset(name for name in self._chunks if self._type(name) is None)

    def whole(self) -> Iterator[tuple[str, Any]]:
        """The columns, each of one type."""
        import pyarrow as pa

        for name, chunks in self._chunks.items():
            kind = self._type(name)
            yield name, pa.chunked_array([chunk.cast(kind) for chunk in chunks], kind)

    def _type(self, name: str) -> Any:
        """The type that all batches of a column can be; None where there is none."""
        import pyarrow as pa

        kinds = dict.fromkeys(chunk.type for chunk in self._chunks[name])
        schemas = [pa.schema([pa.field("", kind)]) for kind in kinds]
        try:
            found = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
            for chunk in self._chunks[name] if len(kinds) > 1 else ():
                chunk.cast(found)  # a large integer is no double
        except pa.ArrowException:
            return None
        return found


def _as_text(value: Any) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode()


_READERS: dict[str, Callable[[Path], Any]] = {
    ".parquet": _read_parquet,
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": partial(_read_records, records=of_lines),
    ".ndjson": partial(_read_records, records=of_lines),
    ".json": partial(_read_records, records=of_list),
}

"""Files as strangers write them: good ones of every kind, and what can be done to them.

A reader's contract: whatever a file holds, it is read, or the command ends with exit code 2 and an
error that says why. No traceback, no waiting for ever, no memory beyond 1 GB.
"""

from __future__ import annotations

import copy
import csv
import datetime
import io
import json
import os
import pickle
import re
import shutil
import sqlite3
import struct
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from hypothesis import strategies as st

from peftport.studies.rows import DONOR_FIELDS, RUN_FIELDS, digest
from peftport.studies.salvage import seal_meta

GOLDEN = Path(__file__).parent / "golden"

DEEP: Any = "[deep]"
"""Stands for lists within lists, which Python cannot write down by itself."""
HUGE = "[huge]"
"""Stands for an integer of 5,000 digits."""
_WRITTEN = {json.dumps(DEEP): "[" * 2000 + "]" * 2000, json.dumps(HUGE): "9" * 5000}

ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2.5, 1e308, float("nan"), float("inf"), 10**9, 2**63, 10**40),
    *("", " ", "a\0b", "x" * 5000, "\ud800", "../../x", "/dev/zero", "\x1b[31m", "<b>", "{text}"),
    *([], [[]], ["q", 5], {}, {"a": 1}, {"": None}, [None], DEEP, HUGE),
)


def json_text(document: Any) -> str:
    """JSON of a document in which `DEEP` and `HUGE` may stand."""
    text = json.dumps(document)
    for stand_in, written in _WRITTEN.items():
        text = text.replace(stand_in, written)
    return text


def yaml_text(document: Any) -> str:
    """YAML of a document, in JSON's way of writing it, which YAML has too."""
    return json_text(document)


def places(document: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a document: the list or mapping that holds it, and its key there."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield document, key
        if isinstance(value, dict | list):
            yield from places(value)


_TABLE = 50


@st.composite
def edited(draw: Any, document: Any) -> Any:
    """A document with one to three values replaced, removed, renamed or put elsewhere."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        found = list(places(document)) if isinstance(document, dict | list) else []
        # In a large table, such as a vocabulary, one entry is as good as another.
        few = [place for place in found if len(place[0]) < _TABLE]
        found = few if few and draw(st.booleans()) else found
        if not found or draw(st.integers(0, 30)) == 0:
            return copy.deepcopy(draw(st.sampled_from(ODD)))
        holder, key = found[draw(st.integers(0, len(found) - 1))]
        how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "move")))
        if how == "replace":
            holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif how == "remove":
            del holder[key]
        elif how == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(("", "x" * 300, "\ud800", "a.b", "..", "__class__")))] = (
                holder.pop(key)
            )
        else:
            other, place = found[draw(st.integers(0, len(found) - 1))]
            holder[key] = copy.deepcopy(other[place])
    return document


@st.composite
def damaged(draw: Any, data: bytes) -> bytes:
    """Bytes cut off, overwritten, repeated or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 64)))
        how = draw(st.sampled_from(("cut", "overwrite", "insert", "repeat", "end")))
        new = draw(st.binary(max_size=32))
        if how == "cut":
            data = data[:start] + data[end:]
        elif how == "overwrite":
            data = data[:start] + new + data[start + len(new) :]
        elif how == "insert":
            data = data[:start] + new + data[start:]
        elif how == "repeat":
            data = data[:end] + data[start:]
        else:
            data = data[:start]
    return data


# What is no file of bytes.


def pipe(path: Path) -> None:
    """A named pipe, into which nobody writes."""
    os.mkfifo(path)


def endless(path: Path) -> None:
    """A file without an end."""
    path.symlink_to("/dev/zero")


def folder(path: Path) -> None:
    """A folder where a file is expected."""
    path.mkdir()


def circle(path: Path) -> None:
    """A link to itself."""
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    """A sparse file of 64 GB, none of which takes room."""
    with path.open("wb") as file:
        file.truncate(64 << 30)


SPECIAL: tuple[Callable[[Path], None], ...] = (pipe, endless, folder, circle, sparse)


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the data of a safetensors file."""
    whole = path.read_bytes()
    (length,) = struct.unpack("<Q", whole[:8])
    return json.loads(whole[8 : 8 + length]), whole[8 + length :]


def with_header(header: Any, data: bytes) -> bytes:
    """A safetensors file with this header, whatever it says."""
    text = json_text(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@st.composite
def a_stranger(draw: Any, good: Path) -> Callable[[Path], None]:
    """Something in the place of a good file: a function that puts it at a path."""
    kind = draw(st.sampled_from(("edited",) * 6 + ("damaged",) * 2 + ("special",)))
    if kind == "special":
        return draw(st.sampled_from(SPECIAL))
    whole = good.read_bytes()
    if kind == "damaged" or good.suffix not in _EDITED:
        new = draw(damaged(whole))
    else:
        new = draw(_EDITED[good.suffix](good))
    return lambda path: path.write_bytes(new) and None


def _edited_json(good: Path) -> Any:
    return edited(json.loads(good.read_text())).map(lambda found: json_text(found).encode())


def _edited_lines(good: Path) -> Any:
    rows = [json.loads(line) for line in good.read_text().splitlines()]
    return edited(rows).map(
        lambda found: "\n".join(
            json_text(row) for row in (found if isinstance(found, list) else [found])
        ).encode()
    )


def _edited_yaml(good: Path) -> Any:
    return edited(yaml.safe_load(good.read_text())).map(lambda found: yaml_text(found).encode())


def _edited_tensors(good: Path) -> Any:
    header, data = header_of(good)
    return edited(header).map(lambda found: with_header(found, data))


@st.composite
def _edited_store(draw: Any, good: Path) -> bytes:
    """A store in which one to three values are odd, or odd within their JSON."""
    copied = good.with_name("edited.sqlite")
    shutil.copy(good, copied)
    with closing(sqlite3.connect(copied, isolation_level=None)) as db:
        db.execute("PRAGMA ignore_check_constraints = ON")
        for _ in range(draw(st.integers(1, 3))):
            table = draw(st.sampled_from(("meta", "meta", "runs", "runs", "gold", "donors")))
            columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            column = draw(st.sampled_from(columns))
            rows = db.execute(f"SELECT {column}, {columns[0]} FROM {table}").fetchall()
            if not rows:
                continue
            value, key = draw(st.sampled_from(rows))
            try:
                new = json_text(draw(edited(json.loads(value))))
            except (ValueError, TypeError):
                new = draw(st.sampled_from((None, -1, 2.5, 2**62, "", "x" * 300, b"", b"\xff\0")))
            try:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE {columns[0]} = ?", (new, key))
            except sqlite3.Error:
                continue
        if draw(st.booleans()):  # a stranger can write digests, too
            _seal(db)
    found = copied.read_bytes()
    copied.unlink()
    return found


def _seal(db: sqlite3.Connection) -> None:
    """Make the digests of a store fit what it holds."""
    for table, fields in (("runs", RUN_FIELDS), ("donors", DONOR_FIELDS)):
        for key, *values in db.execute(
            f"SELECT rowid, {', '.join(fields)} FROM {table}"
        ).fetchall():
            mark = digest(values[:-1])
            db.execute(f"UPDATE {table} SET digest = ? WHERE rowid = ?", (mark, key))
    seal_meta(db)


def _edited_card(good: Path) -> Any:
    lines = good.read_text().splitlines()
    return edited(lines).map(
        lambda found: "\n".join(map(str, found if isinstance(found, list) else [found])).encode(
            "utf-8", "surrogatepass"
        )
    )


class Caller:
    """What a pickle calls when it is loaded by a loader that calls."""

    def __reduce__(self) -> Any:
        return os.mkdir, (str(CALLED),)


CALLED = Path(tempfile.gettempdir()) / f"peftport-called-{os.getpid()}"
"""A folder that is there when a pickle was executed."""
_ODD_TENSORS: tuple[Any, ...] = (
    *(torch.zeros(0), torch.tensor(2.5), torch.zeros(4, 32, dtype=torch.int64)),
    *(torch.zeros(1).expand(10**9, 10**9), torch.eye(32).to_sparse(), torch.zeros(2, 2, 2)),
    *(torch.full((4, 32), float("nan")), torch.zeros(4, 32, dtype=torch.complex64)),
    *(torch.empty(4, 32, device="meta"), torch.nn.Parameter(torch.ones(4, 32))),
    *({"a": torch.ones(2)}, Caller(), {1, 2}, b"", OrderedDict(), None, "x", 1, [torch.ones(2)]),
)


@st.composite
def _edited_pickle(draw: Any, good: Path) -> bytes:
    """A pickle in which tensors are others, or no tensors, by other names, as savers write it."""
    tensors: dict[Any, Any] = dict(torch.load(good, weights_only=True))
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(map(str, tensors)) or ["x"]))
        how = draw(st.sampled_from(("replace", "remove", "rename")))
        value = tensors.pop(name, None)
        if how != "remove":
            other = draw(st.sampled_from(("", "x" * 300, "a.b", 3, None, (1, 2), "\x1b[31m")))
            odd = draw(st.sampled_from(range(len(_ODD_TENSORS))))
            tensors[other if how == "rename" else name] = (
                _ODD_TENSORS[odd] if how == "replace" else value
            )
    whole = draw(st.sampled_from((tensors, tensors, tensors, [tensors], Caller(), None)))
    made = io.BytesIO()
    if draw(st.integers(0, 4)) == 0:
        pickle.dump(whole, made, protocol=draw(st.integers(0, 5)))
    else:
        torch.save(whole, made, _use_new_zipfile_serialization=draw(st.booleans()))
    return made.getvalue()


_KEY = re.compile(rb"[a-z0-9_]+(?:\.[a-z0-9_]+)+")
_NUMBERS = (0, 1, 2, 9, 255, 10**6, 2**31 - 1, 2**32 - 1, 2**40, 2**63, 2**64 - 1)


@st.composite
def _edited_gguf(draw: Any, good: Path) -> bytes:
    """A GGUF file in which counts, types, lengths and values of its head are others."""
    data = bytearray(good.read_bytes())
    keys = [found.end() for found in _KEY.finditer(data)]
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.sampled_from((4, 8, 16, *keys, *keys)))
        start += draw(st.sampled_from((0, 0, 4, 4, 4, 8, 12, -8, -16)))
        width = draw(st.sampled_from((4, 8)))
        number = draw(st.sampled_from(_NUMBERS)) % 2 ** (8 * width)
        data[start : start + width] = number.to_bytes(width, "little")
    return bytes(data)


_COLUMNS: tuple[Callable[[int], Any], ...] = (
    lambda rows: pa.nulls(rows),
    lambda rows: pa.array([None, "x", " ", "<b>"] * rows)[:rows],
    lambda rows: pa.array([2**62] * rows),
    lambda rows: pa.array([float("nan"), float("inf"), -1e308] * rows)[:rows],
    lambda rows: pa.array([True, None] * rows)[:rows],
    lambda rows: pa.array(["a", "b"] * rows)[:rows].dictionary_encode(),
    lambda rows: pa.array([1, 2] * rows)[:rows].dictionary_encode(),
    lambda rows: pa.array([[], ["x", None], None] * rows)[:rows],
    lambda rows: pa.array([[{"role": "user", "content": "x"}], []] * rows)[:rows],
    lambda rows: pa.array([{"a": [1]}, None] * rows)[:rows],
    lambda rows: pa.array([b"\xff", b""] * rows)[:rows],
    lambda rows: pa.array(["x"] * rows, pa.large_string()),
    lambda rows: pa.array(["x"] * rows, pa.string_view()),
    lambda rows: pa.array([Decimal("1.50")] * rows),
    lambda rows: pa.array([datetime.date(1, 1, 1), None] * rows)[:rows],
    lambda rows: pa.array([datetime.datetime(9999, 1, 1)] * rows, pa.timestamp("s", "UTC")),
    lambda rows: pa.array([2**62] * rows, pa.duration("s")),
)


@st.composite
def _edited_parquet(draw: Any, good: Path) -> bytes:
    """A Parquet file in which columns have other types, other names or are not there."""
    table = pq.read_table(good)
    columns = list(zip(table.column_names, table.columns, strict=True))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(columns) - 1)) if columns else 0
        how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "repeat")))
        name, column = columns.pop(place) if columns else ("text", pa.nulls(table.num_rows))
        if how == "replace":
            column = draw(st.sampled_from(_COLUMNS))(table.num_rows)
        elif how == "rename":
            name = draw(st.sampled_from(("", "x" * 300, "label", "text", "\x1b[31m", "__index__")))
        if how != "remove":
            columns[place:place] = [(name, column)] * (2 if how == "repeat" else 1)
    table = pa.Table.from_arrays([column for _, column in columns], [name for name, _ in columns])
    made = io.BytesIO()
    whole = table.slice(0, draw(st.sampled_from((0, 1, table.num_rows, table.num_rows))))
    pq.write_table(whole, made, compression=draw(st.sampled_from(("none", "zstd"))))
    return made.getvalue()


@st.composite
def _edited_cells(draw: Any, good: Path) -> bytes:
    """A CSV file in which cells are odd."""
    with good.open(newline="") as file:
        rows = list(csv.reader(file))
    cells = draw(edited(rows))
    made = io.StringIO()
    writer = csv.writer(made)
    for row in cells if isinstance(cells, list) else [cells]:
        # What stands for an odd value elsewhere is a text here.
        writer.writerow([str(cell) for cell in row] if isinstance(row, list) else [str(row)])
    return made.getvalue().encode("utf-8", "surrogatepass")


_EDITED: dict[str, Callable[[Path], Any]] = {
    ".json": _edited_json,
    ".jsonl": _edited_lines,
    ".yaml": _edited_yaml,
    ".safetensors": _edited_tensors,
    ".sqlite": _edited_store,
    ".md": _edited_card,
    ".bin": _edited_pickle,
    ".gguf": _edited_gguf,
    ".parquet": _edited_parquet,
    ".csv": _edited_cells,
}

"""The rows of a study as CSV, Parquet or JSON."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import refuse_existing, write_atomic
from peftport.registry import did_you_mean
from peftport.studies.schema import COLUMNS
from peftport.studies.store import read_store

Rows = Iterator[dict[str, Any]]


def export_rows(folder: Path, form: str, out: Path | None = None) -> None:
    """Write the rows of the study in `folder`, in the order of `COLUMNS`.

    Args:
        form: "csv", "parquet" or "json" (a list of objects).
        out: a new file, written whole or not at all; None is standard output.

    Raises:
        BadInput: no such study or format, or `out` exists or cannot be written.
    """
    if form not in _WRITERS:
        raise BadInput(
            f"--format {form!r} is unknown.{did_you_mean(form, _WRITERS)} "
            f"Known: {', '.join(_WRITERS)}."
        )
    if out is not None:
        _check_place(out)
    elif form == "parquet" and sys.stdout.isatty():
        raise BadInput("Parquet is no text for a terminal; give --out FILE.")
    with read_store(folder) as store:
        data = _WRITERS[form](store.rows())
    if out is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        write_atomic(out, data)
    except OSError as error:
        raise BadInput(f"--out {out} cannot be written: {error}.") from error


def _check_place(out: Path) -> None:
    refuse_existing(out)
    if out.is_dir():
        raise BadInput(f"--out {out} is a folder; name a file in it.")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}.")


def _csv(rows: Rows) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _json(rows: Rows) -> bytes:
    return (json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n").encode()


def _parquet(rows: Rows) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    whole, real = ("budget", "seed", "n_test"), ("accuracy", "macro_f1", "auroc", "log_loss")
    types = dict.fromkeys(COLUMNS, pa.string()) | dict.fromkeys(whole, pa.int64())
    types |= dict.fromkeys((*real, "train_seconds"), pa.float64())
    table = pa.Table.from_pylist(list(rows), schema=pa.schema(list(types.items())))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


_WRITERS: dict[str, Callable[[Rows], bytes]] = {
    "csv": _csv,
    "parquet": _parquet,
    "json": _json,
}

"""The rows of a study as a file's bytes: CSV, Parquet or JSON."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from peftport.errors import BadInput
from peftport.registry import did_you_mean
from peftport.studies.schema import columns_of, kind_of_columns

_COMPUTED = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are the first four at full width, which some spreadsheets take for them."""
FORMATS = ("csv", "parquet", "json")


def write_export(rows: pd.DataFrame, format: str, excel_safe: bool = False) -> bytes:
    """The rows with the columns of their study's kind (`studies.schema.columns_of`), in order.

    Args:
        format: "csv" (UTF-8, with a header), "parquet" or "json" (a list of objects; figures that
            a failed run does not have are null).
        excel_safe: in CSV, put an apostrophe before texts that a spreadsheet would compute.

    Raises:
        BadInput: an unknown format, a column is missing, or `excel_safe` for another than CSV.
    """
    writers: dict[str, Callable[[pd.DataFrame], bytes]] = {
        "csv": _csv,
        "parquet": _parquet,
        "json": _json,
    }
    if format not in writers:
        raise BadInput(
            f"unknown format {format!r}.{did_you_mean(format, FORMATS)} "
            f"Known: {', '.join(FORMATS)}."
        )
    columns = columns_of(kind_of_columns(rows.columns))
    missing = [name for name in columns if name not in rows.columns]
    if missing:
        raise BadInput(f"the rows lack the columns {', '.join(missing)}.")
    rows = rows[list(columns)]
    if excel_safe:
        if format != "csv":
            raise BadInput(f"--excel-safe is for CSV: in {format} no cell is ever computed.")
        rows = rows.map(_uncomputed)
    return writers[format](rows)


def _uncomputed(value: Any) -> Any:
    """A text that a spreadsheet takes for one, whatever it begins with."""
    return f"'{value}" if isinstance(value, str) and value[:1] in _COMPUTED else value


def _csv(rows: pd.DataFrame) -> bytes:
    return str(rows.to_csv(index=False, lineterminator="\n")).encode()


def _parquet(rows: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _json(rows: pd.DataFrame) -> bytes:
    records = json.loads(rows.to_json(orient="records", double_precision=15))
    return (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode()

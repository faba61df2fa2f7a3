"""The rows as files: all columns in order, and back without loss."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from peftport.errors import BadInput
from peftport.reports.exports import FORMATS, write_export
from peftport.reports.results import COLUMNS, Results
from peftport.reports.stored import read_exported
from synthetic_studies import Synthetic

STUDY = Synthetic(failed=lambda row: row["condition"] == "native" and row["seed"] == 1)


def read(data: bytes, form: str) -> pd.DataFrame:
    if form == "csv":
        return pd.read_csv(io.BytesIO(data), keep_default_na=True)
    if form == "parquet":
        return pd.read_parquet(io.BytesIO(data))
    return pd.DataFrame(json.loads(data))


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_reads_back_the_same(form: str) -> None:
    results = STUDY.results()
    back = read(write_export(results.rows, form), form)
    assert list(back.columns) == list(COLUMNS)
    pd.testing.assert_frame_equal(Results(back).rows, results.rows, check_exact=False, rtol=1e-12)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_exported_is_read_for_a_report_the_same(form: str, tmp_path: Path) -> None:
    results, file = STUDY.results(), tmp_path / f"rows.{form}"
    file.write_bytes(write_export(results.rows, form))
    found = read_exported(file).rows
    pd.testing.assert_frame_equal(found, results.rows, check_exact=False, rtol=1e-12)


@pytest.mark.parametrize(
    ("column", "odd"),
    [("task", [["x"], None]), ("task", [{"a": 1}]), ("accuracy", [["x"]]), ("status", [b"\xff"])],
)
def test_what_a_file_says_of_pandas_types_is_not_believed(column, odd, tmp_path: Path) -> None:
    """Another column stands where it says that there is one of texts."""
    table = pa.Table.from_pandas(STUDY.results().rows, preserve_index=False)
    place = table.column_names.index(column)
    new = pa.array((odd * len(table))[: len(table)])
    pq.write_table(table.set_column(place, column, new), tmp_path / "rows.parquet")
    try:
        read_exported(tmp_path / "rows.parquet")
    except BadInput as error:
        assert column in str(error)


@pytest.mark.parametrize("name", ["task", "unknown"])
def test_columns_of_one_name_are_refused_before_they_are_looked_at(name, tmp_path: Path) -> None:
    table = pa.Table.from_pandas(STUDY.results().rows, preserve_index=False)
    words, lists = pa.array(["x"] * len(table)), pa.array([["x"]] * len(table))
    twice = table.append_column(name, lists)
    if name not in table.column_names:
        twice = twice.append_column(name, words)
    pq.write_table(twice, tmp_path / "rows.parquet")
    with pytest.raises(BadInput, match=f"have the columns {name} more than once"):
        read_exported(tmp_path / "rows.parquet")


def test_a_failed_run_has_null_figures_in_json() -> None:
    rows = json.loads(write_export(STUDY.results().rows, "json"))
    failed = [row for row in rows if row["status"] == "failed"]
    assert len(failed) == 4
    assert all(row["accuracy"] is None and "not a number" in row["error"] for row in failed)


def test_an_unknown_format_is_refused_with_a_suggestion() -> None:
    with pytest.raises(BadInput, match=r"unknown format 'parket'. Did you mean 'parquet'"):
        write_export(STUDY.results().rows, "parket")


def test_missing_columns_are_named() -> None:
    with pytest.raises(BadInput, match="lack the columns task"):
        write_export(STUDY.results().rows.drop(columns="task"), "csv")

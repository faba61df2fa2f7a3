"""The rows as files: all columns in order, and back without loss."""

from __future__ import annotations

import io
import json

import pandas as pd
import pytest

from peftport.errors import BadInput
from peftport.reports.exports import FORMATS, write_export
from peftport.reports.results import COLUMNS, Results
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

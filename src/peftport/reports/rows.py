"""Rows of a study as a report wants them: every column there, in order, words as text, numbers as
numbers."""

from __future__ import annotations

from typing import get_args

import pandas as pd

from peftport.errors import BadInput
from peftport.kind import Kind
from peftport.registry import did_you_mean
from peftport.studies.schema import columns_of, figures_of
from peftport.studies.spec import Condition

COUNTS = ("budget", "seed", "n_test")
"""Columns of whole numbers."""
NEW = ("corrected_accuracy", "agreement")
"""Figures that studies of older packages do not have."""
_EXACT, _MOST = 2.0**53, 1e100
_ROUNDING = 1e-6


def number_columns(kind: Kind) -> tuple[str, ...]:
    """Columns of figures that are no whole numbers."""
    return tuple(name for name in figures_of(kind) if name not in COUNTS)


def word_columns(kind: Kind) -> tuple[str, ...]:
    """Columns of texts."""
    numbers = (*number_columns(kind), *COUNTS)
    return tuple(name for name in columns_of(kind) if name not in numbers)


def tidy_rows(rows: pd.DataFrame, kind: Kind) -> pd.DataFrame:
    """The rows with their columns in order, words as text, numbers as numbers.

    Raises:
        BadInput: names a column that is missing or stands twice, a row whose condition is unknown,
            that lacks its seed or budget, or has a number that cannot be, or a run that occurs
            twice.
    """
    columns = columns_of(kind)
    missing = [name for name in columns if name not in rows.columns and name not in NEW]
    if missing:
        raise BadInput(f"the rows lack the columns {', '.join(missing)}.")
    twice = [name for name in columns if list(rows.columns).count(name) > 1]
    if twice:
        raise BadInput(f"the rows have the columns {', '.join(twice)} more than once.")
    there = rows[[name for name in columns if name in rows.columns]]
    tidy = there.reindex(columns=list(columns)).reset_index(drop=True)
    for name in word_columns(kind):
        tidy[name] = tidy[name].astype(object).where(tidy[name].notna(), "").map(str)
    for name in number_columns(kind):
        tidy[name] = _numbers(tidy[name])
    for name in COUNTS:
        found = _numbers(tidy[name], whole=True)
        if name != "n_test":  # which failed runs have not
            _require(tidy.assign(**{name: found}), found.notna(), name, "a whole number")
        tidy[name] = found.fillna(0).astype(int)
    for name, metric in kind.metrics.items():
        if metric.share and name in tidy:
            within = tidy[name].between(-_ROUNDING, 1 + _ROUNDING) | tidy[name].isna()
            _require(tidy, within, name, "a share from 0 to 1")
    _require_conditions(tidy)
    again = tidy["run_id"][tidy["run_id"].duplicated()]
    if len(again):
        raise BadInput(f"run {again.iloc[0]} occurs twice in the rows.")
    return tidy


def _require(rows: pd.DataFrame, right: pd.Series, name: str, expected: str) -> None:
    """BadInput names the first row that is not right in the column `name`."""
    if not right.all():
        row = int((~right).to_numpy().argmax())
        found = rows[name].iloc[row]
        what = "nothing" if pd.isna(found) else f"{found:g}"
        raise BadInput(f"row {row + 1} of the rows has {what} as its {name}; expected {expected}.")


def _require_conditions(rows: pd.DataFrame) -> None:
    known = get_args(Condition)
    strange = rows["condition"][~rows["condition"].isin(known)]
    if len(strange):
        name, row = strange.iloc[0], strange.index[0]
        raise BadInput(
            f"row {row + 1} of the rows has the unknown condition {name!r}."
            f"{did_you_mean(name, known)} Known: {', '.join(known)}."
        )


def _numbers(column: pd.Series, whole: bool = False) -> pd.Series:
    """A column as floats, with nothing where it has nothing; BadInput names what is no number."""
    try:
        found = pd.to_numeric(column, errors="coerce").astype(float)
        said = column.notna() & ~column.astype(str).str.strip().str.lower().isin(("", "nan"))
    # Times, bytes that are no text, and what holds several values.
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(
            f"the column {column.name} of the rows holds no numbers: {error}."
        ) from error
    wrong = (found.isna() & said) | (found.abs() > _MOST)
    if whole:
        wrong |= (found % 1 != 0) & found.notna() | (found.abs() > _EXACT)
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        kind = "whole number" if whole else "number"
        raise BadInput(
            f"row {row + 1} of the rows has {str(column.iloc[row])[:80]!r} as its {column.name}; "
            f"expected a {kind}."
        )
    return found

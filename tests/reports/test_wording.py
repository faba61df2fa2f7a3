"""Numbers in words: signs, dashes and rounding."""

from __future__ import annotations

from math import inf, nan

import pytest

from peftport.reports.measures import Steps
from peftport.reports.statistics import Estimate
from peftport.reports.wording import (
    count,
    listed,
    number,
    p_text,
    sentence,
    steps_text,
    with_span,
)


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [
        (0.846, False, "0.85"),
        (0.2, True, "+0.20"),
        (-0.2, True, "\N{MINUS SIGN}0.20"),
        (-0.001, True, "0.00"),
        (0.001, True, "0.00"),
        (nan, False, "\N{EN DASH}"),
        (-inf, False, "\N{MINUS SIGN}\N{INFINITY}"),
    ],
)
def test_numbers(value: float, sign: bool, text: str) -> None:
    assert number(value, sign=sign) == text


def test_intervals() -> None:
    known = Estimate(0.84, 0.81, 0.87, 0.01, 0.5, 3, "seeds")
    assert with_span(known) == "0.84 (0.81 to 0.87)"
    assert with_span(Estimate(0.84, nan, nan, nan, nan, 1, "")) == "0.84"
    assert with_span(None) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        (Steps(38.2, 31, 52, 100), "38 (31 to 52)"),
        (Steps(38.2, 31, inf, 100), "38 (31 to beyond 100)"),
        (Steps(inf, 60, inf, 100), "not within 100"),
        (Steps(0, 0, 0, 100), "0"),
        (Steps(12, nan, nan, 100), "12"),
    ],
)
def test_steps(steps: Steps, text: str) -> None:
    assert steps_text(steps) == text


def test_p_values_counts_lists_and_times() -> None:
    assert [p_text(p).replace("\N{NO-BREAK SPACE}", " ") for p in (0.0004, 0.0126, nan)] == [
        "p < 0.001", "p = 0.013", "\N{EN DASH}",
    ]  # fmt: skip
    assert [count(n, "run") for n in (1, 1440)] == ["1 run", "1,440 runs"]
    assert [listed(list("abc")[:n]) for n in (0, 1, 2, 3)] == ["", "a", "a and b", "a, b and c"]
    assert sentence("bert on SST-2") == "Bert on SST-2"

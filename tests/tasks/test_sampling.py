"""Rows are chosen by their text: the same on every machine, in every order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftport.tasks.sampling import fraction, sampled_rows, share

texts = st.lists(st.text(max_size=20), max_size=60)


@given(st.text(), st.sampled_from(["split", "limit"]))
def test_a_fraction_lies_between_0_and_1_and_is_decided_by_the_text(text: str, salt: str) -> None:
    assert 0 <= fraction(text, salt) < 1
    assert fraction(text, salt) == fraction(f"  {text}\n", salt)


def test_fractions_stay_what_they_are() -> None:
    assert fraction("A fine film", "split") == fraction("a  fine film ", "split")
    assert fraction("a fine film", "split") == pytest.approx(0.7942511370285967, abs=1e-12)
    assert fraction("a fine film", "limit") == pytest.approx(0.8931346280687779, abs=1e-12)


@given(texts, st.floats(0, 1))
def test_shares_part_the_rows_and_never_a_text(rows: list[str], cut: float) -> None:
    low, high = share(rows, 0, cut), share(rows, cut, 1)
    assert sorted(low + high) == list(range(len(rows)))
    assert not {rows[i] for i in low} & {rows[i] for i in high}


def test_shares_are_of_about_their_size() -> None:
    rows = [f"text number {i}" for i in range(4000)]
    assert len(share(rows, 0.0, 0.1)) == pytest.approx(400, abs=60)


@given(texts, st.integers(1, 70), st.integers(0, 70))
def test_a_sample_has_its_size_keeps_the_order_and_lies_in_a_larger_one(
    rows: list[str], size: int, more: int
) -> None:
    small, large = sampled_rows(rows, size), sampled_rows(rows, size + more)
    assert len(small) == min(size, len(rows))
    assert small == sorted(set(small))
    assert set(small) <= set(large)


@given(texts.filter(lambda rows: len(set(rows)) == len(rows)), st.integers(1, 20))
def test_a_sample_does_not_depend_on_the_order_of_the_file(rows: list[str], size: int) -> None:
    turned = rows[::-1]
    plain = [" ".join(row.split()).casefold() for row in rows]
    if len(set(plain)) == len(plain):
        assert {rows[i] for i in sampled_rows(rows, size)} == {
            turned[i] for i in sampled_rows(turned, size)
        }


def test_a_sample_of_rows_sorted_by_label_has_both_labels() -> None:
    rows = [f"text {i}" for i in range(1000)]
    positive = sum(i >= 500 for i in sampled_rows(rows, 200))
    assert 70 <= positive <= 130

"""The label-free correction: classes are answered as often as they occur, whatever the scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from peftport.correction import agreement, most_likely, offsets

quick = settings(deadline=None, derandomize=True, database=None, max_examples=40)


def scores_of(seed: int, classes: int, texts: int = 400) -> np.ndarray:
    """Scores that lean towards some classes and are spread unevenly."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(texts, classes)) * rng.uniform(0.2, 5) + rng.normal(size=classes) * 3


@quick
@given(st.integers(0, 10**6), st.integers(2, 6))
def test_every_class_is_answered_equally_often(seed, classes):
    found = scores_of(seed, classes)
    counts = np.bincount(most_likely(found, offsets(found)), minlength=classes)
    assert np.abs(counts - len(found) / classes).max() <= 3


@pytest.mark.parametrize("classes", [3, 8, 20, 40, 77])
@pytest.mark.parametrize("margin", [0.5, 4])
def test_no_class_of_many_is_left_with_what_the_others_leave(classes, margin):
    """Where classes are told apart sharply the first one was answered next to never."""
    rng = np.random.default_rng(0)
    labels = rng.integers(classes, size=500)
    found = rng.normal(size=(500, classes)) + margin * np.eye(classes)[labels]
    found += 3 * rng.normal(size=classes)
    answers = most_likely(found, offsets(found))
    counts = np.bincount(answers, minlength=classes)
    assert np.abs(counts - 500 / classes).max() <= 2
    order = rng.permutation(classes)
    other = order[most_likely(found[:, order], offsets(found[:, order]))]
    assert np.mean(answers != other) <= 0.02


@pytest.mark.parametrize("shares", [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.001, 0.002, 0.997]])
def test_shares_of_next_to_nothing_are_kept_to(shares):
    found = scores_of(0, 3)
    counts = np.bincount(most_likely(found, offsets(found, shares)), minlength=3)
    assert np.abs(counts - 400 * np.array(shares)).max() <= 1.5


@quick
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_or_as_often_as_it_is_said_to_occur(seed, classes):
    shares = np.random.default_rng(seed).dirichlet(np.full(classes, 4.0))
    found = scores_of(seed, classes)
    counts = np.bincount(most_likely(found, offsets(found, list(shares))), minlength=classes)
    assert np.abs(counts - len(found) * shares).max() <= 3


@quick
@given(st.integers(0, 10**6), st.integers(2, 4), st.floats(0.01, 100))
def test_neither_a_shift_nor_a_scale_of_the_scores_changes_an_answer(seed, classes, scale):
    found = scores_of(seed, classes)
    moved = scale * found + 7 * np.arange(classes) + np.arange(len(found))[:, None]
    before, after = (most_likely(each, offsets(each)) for each in (found, moved))
    assert np.mean(before != after) <= 0.02


def test_two_classes_are_parted_at_the_median_of_their_difference():
    found = np.stack([np.zeros(5), np.array([1.0, 2.0, 3.0, 4.0, 9.0])], axis=1)
    moved = found + offsets(found)
    assert moved[2, 0] == pytest.approx(moved[2, 1])
    assert most_likely(found).tolist() == [1, 1, 1, 1, 1]
    assert offsets(found).sum() == pytest.approx(0)


def test_scores_that_tell_nothing_apart_give_one_answer_and_no_error():
    for classes in (2, 3):
        alike = np.ones((20, classes))
        assert len(set(most_likely(alike, offsets(alike)))) == 1
    assert set(most_likely(np.ones((20, 2)), offsets(np.ones((20, 2))))) == {0}


@quick
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=2, max_size=60))
def test_agreement_is_cohens_kappa(pairs):
    first, second = np.array(pairs).T
    table = np.zeros((3, 3))
    np.add.at(table, (first, second), 1)
    found = agreement(first, second)
    if found is None:
        assert set(first) == set(second) and len(set(first)) == 1
    else:
        assert found == pytest.approx(float(cohens_kappa(table, return_results=False)))


def test_agreement_is_one_where_all_agree_and_minus_one_where_none_does():
    half = np.array([0, 1] * 10)
    assert agreement(half, half) == 1
    assert agreement(half, 1 - half) == -1
    assert agreement(np.zeros(5, int), np.zeros(5, int)) is None

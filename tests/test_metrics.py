"""Metrics are what their definitions say, on rows that can be counted by hand and on any."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, mannwhitneyu, sem, t

from peftport.metrics import METRICS, Scored, measure

quick = settings(deadline=None, derandomize=True, database=None, max_examples=60)


def rows(*scores: tuple[float, ...]) -> np.ndarray:
    return np.array(scores, dtype=np.float32)


def test_six_rows_counted_by_hand():
    """Right: rows 0, 1, 3, 4. Class 0: 2 found of 3, 3 said; class 1: 2 found of 3, 3 said."""
    scores = rows((2, 0), (1, 0), (0, 1), (0, 3), (0, 2), (3, 0))
    found = measure(scores, np.array([0, 0, 0, 1, 1, 1]))
    assert found.predictions.tolist() == [0, 0, 1, 1, 1, 0]
    assert found.figures["accuracy"] == pytest.approx(4 / 6)
    assert found.figures["macro_f1"] == pytest.approx(2 / 3)
    # Of the 9 pairs of a 1 and a 0, the 1 at margin -3 loses all three.
    assert found.figures["auroc"] == pytest.approx(6 / 9)
    margins = [2, 1, -1, 3, 2, -3]
    expected = sum(math.log(1 + math.exp(-margin)) for margin in margins) / 6
    assert found.figures["log_loss"] == pytest.approx(expected)
    assert found.figures["n_test"] == 6


def test_equal_scores_count_half_in_auroc_and_are_the_first_class():
    found = measure(rows((1, 1), (1, 1), (0, 0), (5, 5)), np.array([0, 1, 1, 0]))
    assert found.figures["auroc"] == 0.5
    assert found.predictions.tolist() == [0, 0, 0, 0]
    assert found.figures["accuracy"] == 0.5
    assert found.figures["macro_f1"] == pytest.approx((2 / 3) / 2)
    assert found.figures["log_loss"] == pytest.approx(math.log(2))
    # One pair is won, one is lost, two are ties.
    found = measure(rows((0, 1), (0, 2), (0, 1), (0, 0.5)), np.array([0, 0, 1, 1]))
    assert found.figures["auroc"] == pytest.approx(0.5 / 4)


def test_a_class_that_never_comes_has_no_auroc_and_counts_in_macro_f1():
    found = measure(rows((2, 0, 0), (0, 2, 0), (0, 2, 1)), np.array([0, 1, 1]))
    assert found.figures["accuracy"] == 1.0
    assert found.figures["macro_f1"] == pytest.approx(2 / 3)
    figures = found.figures
    assert figures["auroc"] is None
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    one_class = measure(rows((1, 0), (0, 1)), np.array([1, 1]))
    assert one_class.figures["auroc"] is None
    assert one_class.figures["log_loss"] == pytest.approx(
        (math.log(1 + math.e) + math.log(1 + 1 / math.e)) / 2
    )


def test_large_scores_neither_tie_nor_overflow():
    scores = rows((0, 1000), (0, 2000), (0, 3000), (4000, 0))
    found = measure(scores, np.array([1, 0, 1, 0]))
    assert found.figures["auroc"] == pytest.approx(3 / 4)
    assert found.figures["log_loss"] == pytest.approx(2000 / 4)
    three = np.concatenate([scores, np.zeros((4, 1), np.float32)], axis=1)
    found = measure(three, np.array([1, 0, 1, 2]))
    # Class 0: the 0 (margin -2000) beats one of three; class 1: 3 of 4; class 2: the 2 at -4000
    # is below all.
    assert found.figures["auroc"] == pytest.approx((1 / 3 + 3 / 4 + 0) / 3)


def test_figures_and_predictions_are_those_of_the_test():
    scores = rows((2, 0), (0, 1), (1, 0))
    found = measure(scores, np.array([0, 1, 1]))
    assert set(found.figures) == {*METRICS, "n_test"}
    assert found.scored.scores is scores
    assert found.unlabelled is None
    assert found.figures["corrected_accuracy"] is None, "there was nothing to correct by"
    assert found.predictions.shape == (3,)


@st.composite
def any_test(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and labels in which every class comes."""
    classes = draw(st.integers(2, 4))
    labels = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), max_size=12))]
    labels = draw(st.permutations(labels))
    score = st.integers(-3, 3).map(float)
    row = st.lists(score, min_size=classes, max_size=classes)
    scores = draw(st.lists(row, min_size=len(labels), max_size=len(labels)))
    return np.array(scores, dtype=np.float32), np.array(labels)


@quick
@given(any_test())
def test_any_test_agrees_with_the_definitions(case):
    scores, labels = case
    found = measure(scores, labels)
    classes = range(scores.shape[1])
    said = scores.argmax(1)
    assert found.figures["accuracy"] == pytest.approx(float(np.mean(said == labels)))
    f1 = []
    for c in classes:
        hits = int(np.sum((said == c) & (labels == c)))
        both = int(np.sum(said == c)) + int(np.sum(labels == c))
        f1.append(2 * hits / both)
    assert found.figures["macro_f1"] == pytest.approx(float(np.mean(f1)))
    wide = np.exp(scores.astype(np.float64))
    probabilities = wide / wide.sum(1, keepdims=True)
    assert found.figures["log_loss"] == pytest.approx(
        float(-np.mean(np.log(probabilities[np.arange(len(labels)), labels])))
    )
    # Rounded, so that ties are ties.
    odds = np.round(probabilities / (1 - probabilities), 9)
    areas = [
        mannwhitneyu(odds[labels == c, c], odds[labels != c, c]).statistic
        / (np.sum(labels == c) * np.sum(labels != c))
        for c in classes
    ]
    assert found.figures["auroc"] == pytest.approx(float(np.mean(areas)), abs=1e-9)


@quick
@given(any_test())
def test_every_figure_is_the_mean_of_its_examples_parts(case):
    scores, labels = case
    scored = Scored(scores, labels, np.linspace(-1, 1, scores.shape[1]))
    for metric in METRICS.values():
        parts = metric.parts(scored)
        assert parts.shape == labels.shape
        assert metric.figure(scored) == pytest.approx(float(parts.mean()))


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("classes", [2, 3])
def test_parts_resampled_are_nearly_the_figure_of_the_resample(name, classes):
    """What makes one bootstrap serve every metric: to the first order it is the figure's own."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 400)
    scores = rng.normal(size=(400, classes)).astype(np.float32)
    scores[np.arange(400), labels] += 1
    scored = Scored(scores, labels, np.zeros(classes))
    parts = METRICS[name].parts(scored)
    exact, linear = [], []
    for _ in range(300):
        rows = rng.integers(0, 400, 400)
        exact.append(METRICS[name].figure(Scored(scores[rows], labels[rows], np.zeros(classes))))
        linear.append(parts[rows].mean())
    assert np.corrcoef(exact, linear)[0, 1] > 0.99
    assert np.std(linear) == pytest.approx(np.std(exact), rel=0.05)


def test_the_correction_finds_what_a_shift_hid():
    rng = np.random.default_rng(0)
    labels, apart = rng.integers(0, 2, (2, 500))
    scores, unlabelled = (
        np.stack([np.zeros(500), 2 * found - 1 + rng.normal(size=500)], axis=1)
        for found in (labels, apart)
    )
    shift = np.array([0, 5])
    plain = measure(scores, labels, unlabelled).figures
    shifted = measure(scores + shift, labels, unlabelled + shift).figures
    assert shifted["accuracy"] < 0.6 < 0.8 < plain["accuracy"]
    assert shifted["corrected_accuracy"] == plain["corrected_accuracy"] > 0.8
    assert shifted["auroc"] == pytest.approx(plain["auroc"])


def test_a_metric_is_one_function_and_one_line(monkeypatch):
    """A new metric reaches a test's figures and every column without another change."""
    from peftport.metrics import Metric

    new = Metric("Brier score", "lower", lambda scored: np.full(len(scored.labels), 0.25))
    monkeypatch.setitem(METRICS, "brier", new)
    assert measure(rows((1, 0), (0, 1)), np.array([0, 1])).figures["brier"] == 0.25


@pytest.mark.parametrize(("right", "of"), [(0, 5), (5, 5), (43, 50), (500, 1000)])
def test_an_accuracy_s_interval_is_wilson_s(right, of):
    scores = rows(*[(1, 0)] * right, *[(0, 1)] * (of - right))
    scored = Scored(scores, np.zeros(of, dtype=np.int64))
    low, high = METRICS["accuracy"].interval(scored)
    expected = binomtest(right, of).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize(("name", "truth"), [("auroc", 0.760250), ("log_loss", 0.581726)])
def test_intervals_hold_the_truth_in_95_of_100_tests(name, truth):
    """Margins of two normal classes, one standard deviation apart; AUROC is Phi(1 / sqrt 2), and
    the log-loss of the margin itself is integrated over both."""
    generator = np.random.default_rng(0)
    held, tests = 0, 1000
    for _ in range(tests):
        labels = generator.integers(0, 2, 150)
        margin = generator.normal(labels - 0.5)
        scored = Scored(np.stack([0 * margin, margin], axis=1), labels)
        low, high = METRICS[name].interval(scored)
        held += low <= truth <= high
    assert 0.93 <= held / tests <= 0.97


@pytest.mark.parametrize("tests", [5, 10])
def test_of_few_texts_an_interval_of_log_loss_is_student_s(tests):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, tests)
    scored = Scored(generator.normal(size=(tests, 2)), labels)
    parts = METRICS["log_loss"].parts(scored)
    low, high = t.interval(0.95, tests - 1, parts.mean(), sem(parts))
    assert METRICS["log_loss"].interval(scored) == pytest.approx((max(low, 0), high))


def test_of_one_text_nothing_is_known_of_a_log_loss_but_that_it_is_not_below_0():
    scored = Scored(rows((0, 1)), np.array([1]))
    assert METRICS["log_loss"].interval(scored) == (0, math.inf)


def test_a_figure_that_is_not_defined_has_no_interval():
    scored = Scored(rows((1, 0), (0, 1)), np.array([1, 1]))
    assert METRICS["auroc"].interval(scored) is None
    assert METRICS["corrected_accuracy"].interval(scored) is None


@quick
@given(any_test())
def test_the_figure_lies_in_its_interval_and_shares_stay_shares(case):
    scored = Scored(*case)
    for name in ("accuracy", "macro_f1", "auroc", "log_loss"):
        metric = METRICS[name]
        low, high = metric.interval(scored)
        figure = metric.figure(scored)
        assert low - 1e-12 <= figure <= high + 1e-12
        if metric.share:
            assert 0 <= low <= high <= 1


@quick
@given(any_test(), st.integers(0, 5))
def test_a_difference_is_that_of_the_figures(case, shift):
    scores, labels = case
    one, other = Scored(scores, labels), Scored(np.roll(scores, shift, axis=0), labels)
    for name in ("accuracy", "macro_f1", "auroc", "log_loss"):
        metric = METRICS[name]
        value, low, high = metric.difference(one, other)
        assert value == pytest.approx(metric.figure(one) - metric.figure(other))
        assert low <= value <= high
        assert metric.difference(one, one)[0] == 0
        if metric.share:
            assert low >= -1
            assert high <= 1
    assert METRICS["corrected_accuracy"].difference(one, other) is None


def test_a_difference_of_shares_is_newcombe_s_for_paired_data():
    """The example of Newcombe 1998 (Statistics in Medicine 17, table II): 36, 12, 2 and 0 of 50."""
    labels = np.zeros(50, dtype=np.int64)
    right, wrong = (1.0, 0.0), (0.0, 1.0)
    one = Scored(rows(*[right] * 36, *[right] * 12, *[wrong] * 2), labels)
    other = Scored(rows(*[right] * 36, *[wrong] * 12, *[right] * 2), labels)
    value, low, high = METRICS["accuracy"].difference(one, other)
    assert (value, low, high) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-4)


def test_a_difference_that_is_as_large_as_can_be_is_not_certain():
    labels = np.zeros(5, dtype=np.int64)
    one, other = Scored(rows(*[(1, 0)] * 5), labels), Scored(rows(*[(0, 1)] * 5), labels)
    value, low, high = METRICS["accuracy"].difference(one, other)
    assert value == high == 1
    assert 0.2 < low < 0.5

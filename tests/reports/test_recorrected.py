"""Reports under another threshold: the texts of the correction are the tested ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from peftport.errors import BadInput
from peftport.reports.comparisons import analyse
from peftport.reports.notes import interval_note
from peftport.reports.recorrected import corrected_on_test
from peftport.reports.results import Results
from peftport.reports.tables import summary_line
from synthetic_studies import Synthetic

STUDY = Synthetic(scores=True, budgets=(0,))


def moved(results: Results, by: float) -> Results:
    """The same study, whose test texts are unlike the correction's: the second class is given so
    much for nothing."""
    scored = {
        run: replace(found, scores=found.scores + np.float32([0, by]))
        for run, found in results.scored.items()
    }
    rows = results.rows.assign(corrected_accuracy=np.nan)
    return Results(rows, results.predictions, results.gold, results.facts, scored)


def corrected(results: Results) -> np.ndarray:
    """Of every run, in order."""
    return np.array([results.measure([run], "corrected_accuracy") for run in results.done.run_id])


def test_what_unlike_texts_do_to_the_threshold_is_undone() -> None:
    results = STUDY.results()
    plain = corrected(corrected_on_test(results))
    unlike = moved(results, 3.0)
    assert np.abs(corrected(unlike) - corrected(results)).mean() > 0.1
    np.testing.assert_allclose(corrected(corrected_on_test(unlike)), plain, atol=0.006)
    np.testing.assert_allclose(corrected(results), plain, atol=0.08)


def test_every_condition_answers_with_each_class_equally_often() -> None:
    found = corrected_on_test(moved(STUDY.results(), 3.0))
    for run in found.done.run_id:
        assert found.scored[run].corrected.mean() == pytest.approx(0.5, abs=0.01)


def test_nothing_else_is_another_figure() -> None:
    results = STUDY.results()
    found = corrected_on_test(results)
    for name in ("accuracy", "auroc", "log_loss", "agreement"):
        for run in results.done.run_id:
            assert found.measure([run], name) == results.measure([run], name)
    assert set(found.done.run_id) == set(results.done.run_id)
    assert found.is_corrected


def test_a_report_says_on_which_texts_it_is_corrected() -> None:
    results = STUDY.results()
    found = corrected_on_test(results)
    assert "on training texts without" in interval_note(analyse(results))
    assert "on the test texts themselves without" in interval_note(analyse(found))
    assert "threshold" not in summary_line(results)
    assert summary_line(found).endswith("3 seeds; the threshold is set on the test texts")


@pytest.mark.parametrize(
    ("study", "words"),
    [
        (Synthetic(budgets=(0,)), "54 of 54 runs do not have"),
        (Synthetic(scores=True, budgets=(0,), examples=12), "16 test texts or more, and films"),
    ],
)
def test_what_has_no_such_correction_is_refused_with_the_way_out(
    study: Synthetic, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        corrected_on_test(study.results())

"""Curves fall as hosts move apart, are found again in cells drawn from one, and cover cells."""

from __future__ import annotations

import numpy as np
import pytest

from peftport.forecast.calibration import MeasuredCopy
from peftport.forecast.curve import FROM_TEXTS, FROM_WEIGHTS, LEVEL, Calibrated, LogisticCurve, fit

TRUE = LogisticCurve(FROM_WEIGHTS, {"adapter": -3.0, "prefix": -4.0}, (2.5,))


def cells(noise: float, pairs: int = 30, seed: int = 0) -> tuple[MeasuredCopy, ...]:
    """Cells drawn from `TRUE`, each pair of hosts by itself."""
    rng = np.random.default_rng(seed)
    made = []
    for pair in range(pairs):
        distance = float(np.exp(rng.uniform(np.log(0.02), np.log(1.4))))
        for technique in TRUE.starts:
            kept = TRUE(technique, {"distance": distance}) + noise * rng.normal()
            made.append(
                MeasuredCopy(
                    technique=technique,
                    origin=f"{pair}",
                    receiver=f"{pair} further",
                    relation="independent" if distance > 1 else "continuation",
                    task="films",
                    recovery=kept,
                    distance=distance,
                    overlap=0.5,
                    cka=0.5,
                    answers=1 - distance / 2,
                )
            )
    return tuple(made)


def test_a_curve_is_found_again_in_cells_that_follow_it():
    found = fit(cells(noise=0.0), FROM_WEIGHTS)
    assert found.slopes[0] == pytest.approx(TRUE.slopes[0], rel=1e-3)
    assert found.starts == pytest.approx(dict(TRUE.starts), rel=1e-3)


def test_a_forecast_never_rises_as_hosts_move_apart():
    by_distance, by_answers = (fit(cells(noise=0.2), way) for way in (FROM_WEIGHTS, FROM_TEXTS))
    for technique in TRUE.starts:
        kept = [by_distance(technique, {"distance": d}) for d in (0, 0.01, 0.1, 1, 1.414)]
        assert kept == sorted(kept, reverse=True)
        kept = [by_answers(technique, {"answers": a}) for a in (1, 0.9, 0.5, 0, -1)]
        assert kept == sorted(kept, reverse=True)


def test_one_host_keeps_nearly_all_and_unrelated_ones_nearly_nothing():
    found = fit(cells(noise=0.05), FROM_WEIGHTS)
    assert found("adapter", {"distance": 0.0}) > 0.99
    assert found("adapter", {"distance": 1.414}) < 0.05


def test_intervals_contain_their_forecast_and_cover_cells_not_seen():
    calibrated = Calibrated(cells(noise=0.1), FROM_WEIGHTS)
    inside = []
    for cell in cells(noise=0.1, pairs=150, seed=1):
        value = calibrated.curve(cell.technique, {"distance": cell.distance})
        low, high = calibrated.interval(value)
        assert low <= value <= high
        inside.append(low <= cell.recovery <= high)
    assert LEVEL - 0.08 < np.mean(inside) < 0.99


def test_intervals_are_those_of_pairs_of_the_same_genealogy_where_it_is_known():
    calm = [c.model_copy(update={"relation": "independent"}) for c in cells(noise=0.0)]
    wild = [c.model_copy(update={"relation": "continuation"}) for c in cells(noise=0.3)]
    calibrated = Calibrated((*calm, *wild), FROM_WEIGHTS)
    width = {
        relation: np.ptp(calibrated.interval(0.5, relation))
        for relation in ("independent", "continuation")
    }
    assert width["independent"] < width["continuation"] / 2
    assert calibrated.interval(0.5, "same") == calibrated.interval(0.5)

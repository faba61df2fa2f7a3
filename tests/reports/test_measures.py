"""Recovery, areas, steps to match, flips and families: against oracles and by coverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import t
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from peftport.reports.measures import area, axis, holm, mcnemar, recovery, steps_to_reach
from peftport.reports.statistics import Series, difference, resample_examples


def series(*values: float) -> Series:
    return Series(tuple(range(len(values))), np.array(values))


def level(value: float) -> Series:
    """Three seeds around a value, closely, and no two values alike."""
    return series(*(value + 0.001 * np.sin([value * 100, value * 200, value * 300])))


HOST = Series((0,), np.array([0.5]), fixed=True)


def test_recovery_is_the_share_of_the_native_gain() -> None:
    found = recovery(level(0.8), HOST, level(0.9))
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(0.75, abs=0.01)
    assert found.reason == ""
    assert found.points.value == pytest.approx(0.3, abs=0.01)


def test_a_gain_of_five_points_is_enough() -> None:
    """Though 0.58 - 0.53 is a little less than 0.05 in binary."""
    host = Series((0,), np.array([0.53]), fixed=True)
    assert recovery(series(0.56, 0.57, 0.55), host, series(0.57, 0.59, 0.58)).ratio is not None


@pytest.mark.parametrize(("port", "ratio"), [(0.98, 1.2), (0.46, -0.1)])
def test_recovery_can_lie_above_one_and_below_zero(port: float, ratio: float) -> None:
    found = recovery(level(port), HOST, level(0.9))
    assert found.ratio is not None
    assert found.ratio.value == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize(
    ("native", "reason"),
    [
        (level(0.53), "gains +0.030, less than 0.05"),
        (series(0.4, 0.7, 0.95), "not sure to be above 0"),
        (series(0.9), "nothing to make an interval"),
        (None, "no native module"),
    ],
)
def test_without_a_sure_native_gain_there_are_points_and_the_reason(
    native: Series | None, reason: str
) -> None:
    found = recovery(level(0.8), HOST, native)
    assert found.ratio is None
    assert reason in found.reason
    assert found.points.value == pytest.approx(0.3, abs=0.01)


def test_the_interval_of_a_recovery_is_fiellers() -> None:
    port, native = np.array([0.78, 0.83, 0.8, 0.75]), np.array([0.9, 0.88, 0.93, 0.85])
    found = recovery(series(*port), HOST, series(*native)).ratio
    assert found is not None
    x, y = port - 0.5, native - 0.5
    cov = np.cov(x, y) / 4
    q = t.ppf(0.975, 3) ** 2
    # Fieller: (x - r y)^2 = q var(x - r y), a quadratic in r.
    coefficients = [
        y.mean() ** 2 - q * cov[1, 1],
        -2 * (x.mean() * y.mean() - q * cov[0, 1]),
        x.mean() ** 2 - q * cov[0, 0],
    ]
    assert (found.low, found.high) == pytest.approx(sorted(np.roots(coefficients)), rel=1e-6)


def test_intervals_of_recovery_cover_the_truth() -> None:
    generator = np.random.default_rng(11)
    studies, seeds, examples = 800, 3, 300
    ease = generator.normal(size=(studies, 1, examples))

    def made(where: float, own: float) -> tuple[list[Series], float]:
        shift = generator.normal(0, own, (studies, seeds, 1)) if own else 0.0
        right = where + shift + ease + generator.normal(size=(studies, seeds, examples)) > 0
        draws = resample_examples(right.reshape(-1, examples), "task", 400)
        draws = draws.reshape(studies, seeds, 400)
        found = [Series((0, 1, 2), right[i].mean(1), draws[i]) for i in range(studies)]
        return found, float(ndtr(where / np.sqrt(2 + own**2)))

    (ports, port), (hosts, host), (natives, native) = made(1.0, 0.1), made(0.0, 0), made(1.4, 0.1)
    truth = (port - host) / (native - host)
    ratios = [recovery(*each).ratio for each in zip(ports, hosts, natives, strict=True)]
    known = [ratio for ratio in ratios if ratio is not None]
    assert len(known) > 0.95 * studies
    assert 0.93 <= np.mean([ratio.low <= truth <= ratio.high for ratio in known]) <= 0.985


def test_the_area_is_the_trapezoid_over_the_logarithm_of_steps() -> None:
    budgets, heights = [0, 10, 100], [0.5, 0.7, 0.9]
    found = area([(b, series(h, h + 0.02)) for b, h in zip(budgets, heights, strict=True)])
    x = np.log1p(budgets)
    expected = np.trapezoid(heights, x) / (x[-1] - x[0])
    assert list(found.values) == pytest.approx([expected, expected + 0.02])


def test_the_area_of_a_level_is_the_level() -> None:
    assert list(area([(b, series(0.7)) for b in (0, 3, 50)]).values) == pytest.approx([0.7])


def test_steps_are_interpolated_on_the_axis_of_the_curve() -> None:
    curve = [(0, level(0.5)), (10, level(0.7)), (100, level(0.9))]
    found = steps_to_reach(level(0.8), curve)
    assert axis(found.value) == pytest.approx((axis(10) + axis(100)) / 2, abs=0.01)
    assert 10 < found.low <= found.value <= found.high < 100


def test_a_level_that_is_reached_at_once_takes_no_steps() -> None:
    found = steps_to_reach(level(0.4), [(0, level(0.5)), (10, level(0.7))])
    assert (found.value, found.low, found.high) == (0, 0, 0)


def test_steps_without_an_interval_say_so() -> None:
    found = steps_to_reach(series(0.6), [(0, series(0.5)), (10, series(0.7))])
    assert 0 < found.value < 10
    assert np.isnan([found.low, found.high]).all()


def test_a_level_that_is_never_reached_takes_infinitely_many() -> None:
    found = steps_to_reach(level(0.95), [(0, level(0.5)), (10, level(0.7))])
    assert found.value == found.high == np.inf
    assert found.most == 10


def test_unsure_curves_give_wide_steps() -> None:
    curve = [(0, series(0.4, 0.5, 0.6)), (10, series(0.6, 0.7, 0.8)), (100, series(0.7, 0.8, 0.9))]
    found = steps_to_reach(level(0.7), curve)
    assert found.low < 0.9 * found.value
    assert found.high == np.inf


@settings(max_examples=20)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holms_adjustment_is_that_of_statsmodels(p_values: list[float]) -> None:
    assert list(holm(p_values)) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holms_adjustment_by_hand() -> None:
    assert list(holm([0.01, 0.04, 0.03])) == pytest.approx([0.03, 0.06, 0.06])
    assert list(holm([0.6, 0.7])) == pytest.approx([1.0, 1.0])


def test_what_was_not_tested_is_not_in_the_family() -> None:
    found = holm([0.01, np.nan, 0.04])
    assert found[[0, 2]] == pytest.approx([0.02, 0.04])
    assert np.isnan(found[1])
    assert len(holm([])) == 0


@pytest.mark.parametrize(("lost", "won"), [(3, 12), (12, 3), (7, 7), (0, 9), (0, 0)])
def test_mcnemars_test_is_the_exact_one(lost: int, won: int) -> None:
    before = np.array([True] * (20 + lost) + [False] * (won + 10))
    after = np.array([True] * 20 + [False] * lost + [True] * won + [False] * 10)
    expected = reference_mcnemar([[20, lost], [won, 10]], exact=True).pvalue if lost + won else 1
    assert mcnemar(before, after) == (lost, won, pytest.approx(expected))


@pytest.mark.parametrize("collapsed", [0.5, 0.501, 0.3])
def test_a_recovery_rests_on_a_gain_of_the_seeds_that_ports_have(collapsed: float) -> None:
    """Four of five ports failed, and the native module of the fifth seed learnt nothing."""
    native = Series(tuple(range(5)), np.array([0.86, 0.85, 0.87, 0.86, collapsed]))
    draws = np.random.default_rng(0).normal(0, 0.01, (6, 50))
    answered = Series(native.seeds, native.values, native.values[:, None] + draws[:5])
    bare = Series((0,), np.array([collapsed]), draws[5:] + collapsed, fixed=True)
    for beside, modules in ((bare, answered), (replace(bare, draws=None), native)):
        port = Series((4,), np.array([0.8]), None if beside.draws is None else 0.8 + draws[:1])
        found = recovery(port, beside, modules)
        assert found.ratio is None
        assert found.gain == difference(modules, beside)
        assert found.gain.above_zero
        assert found.reason.startswith("for the seeds that ported modules have, ")


def test_a_recovery_of_one_seed_without_answers_has_no_interval_and_is_none() -> None:
    found = recovery(Series((0,), np.array([0.8])), HOST, series(0.86, 0.85, 0.87))
    assert found.ratio is None
    assert "nothing to make an interval" in found.reason


def test_where_no_seeds_are_shared_nothing_is_known_of_steps() -> None:
    port, other = Series((0, 2), np.array([0.8, 0.8])), Series((1, 3), np.array([0.9, 0.9]))
    assert steps_to_reach(port, [(0, other), (10, other)]) is None
    begun = Series((0, 2), np.array([0.5, 0.5]))
    assert steps_to_reach(port, [(0, begun), (10, other)]) is None
    assert steps_to_reach(port, [(0, series(0.9, 0.9, 0.9)), (10, other)]) is not None

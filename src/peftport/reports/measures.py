"""What follows from accuracies: recovery, steps to match, areas under curves, flips, families."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, isfinite, isnan, nan

import numpy as np
from scipy.optimize import brentq
from scipy.special import bdtr

from peftport.metrics import SHARES, Scale
from peftport.reports.statistics import (
    Estimate,
    Series,
    align,
    combine,
    difference,
    estimate,
    reach,
    variance,
)

LEAST_GAIN = SHARES.worth
"""What a native module must gain over the bare host before a recovery means anything, in shares;
other metrics have their own (`Scale.worth`)."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Recovery:
    """(port - host) / (native - host), or why there is none and the difference in its place.

    Attributes:
        ratio: None unless native - host is at least what the metric calls a difference worth the
            name, with its interval above 0: over all native modules' seeds, and over those that
            ported ones have, too, on which it rests.
        points: port - host, or how far the port is below where less is better.
        gain: native - host likewise; None when there is no native module.
        reason: why there is no ratio; empty when there is one.
        scale: of the metric that points and gain are of.
    """

    ratio: Estimate | None
    points: Estimate
    gain: Estimate | None
    reason: str = ""
    scale: Scale = SHARES

    @property
    def over(self) -> str:
        """What points are, before a name: "over" the host, or "ahead of" it."""
        return "over" if self.scale.better == "higher" else "ahead of"


@dataclass(frozen=True)
class Steps:
    """How many steps a curve needs to reach a level; infinite when it does not in what was run.

    `low` and `high` are NaN when there is nothing to make an interval from; `most` is the largest
    budget that was run.
    """

    value: float
    low: float
    high: float
    most: int


def recovery(port: Series, host: Series, native: Series | None) -> Recovery:
    """What a port keeps of a native module's gain over the bare host.

    The interval holds every r for which (port - host) - r (native - host) does not differ from 0
    (Fieller 1954), by the same bootstrap as everything else.
    """
    points, scale = difference(port, host), port.scale
    if native is None:
        reason = "there is no native module to compare with"
        return Recovery(None, points, None, reason, scale)
    gain, least = difference(native, host), scale.worth
    if reason := _why_no_ratio(gain, least):
        return Recovery(None, points, gain, reason, scale)
    kept = align([combine([port, host], [1, -1]), combine([native, host], [1, -1])])
    if not kept[0].seeds:
        reason = "ported and native modules have no seed in common"
        return Recovery(None, points, gain, reason, scale)
    if reason := _why_no_ratio(estimate(kept[1]), least):
        reason = f"for the seeds that ported modules have, {reason}"
        return Recovery(None, points, gain, reason, scale)
    return Recovery(_ratio(kept), points, gain, scale=scale)


def _why_no_ratio(gain: Estimate, least: float) -> str:
    """Why a gain is none to divide by; empty where it is one."""
    if gain.value >= least - _ROUNDING and gain.above_zero:
        return ""
    if not isfinite(gain.value):
        return "native modules and bare hosts have no seed in common"
    if not isfinite(gain.low):
        return "there is nothing to make an interval of a native module's gain from"
    if gain.value < least - _ROUNDING:
        return f"a native module gains {gain.value:+.3f}, less than {least:g}"
    return f"a native module's gain of {gain.value:+.3f} is not sure to be above 0"


def _ratio(kept: Sequence[Series]) -> Estimate:
    spread = variance(kept)
    port, native = (float(part.values.mean()) for part in kept)
    value = port / native

    def outside(r: float) -> float:
        variances = spread.of(np.array([1.0, -r]))
        return abs(port - r * native) - reach(*variances, spread.count)

    ends = [_first_outside(outside, value, way) for way in (-1, 1)]
    return Estimate(value, ends[0], ends[1], nan, nan, spread.count, spread.basis)


def _first_outside(outside: Callable[[float], float], start: float, way: int) -> float:
    """The end of the interval around `start` in the direction `way`."""
    if outside(start) >= 0:
        return start
    step = 1e-3
    while outside(start + way * step) < 0:
        step *= 2
        if step > 1e6:
            return way * inf
    return float(brentq(outside, start, start + way * step, xtol=1e-9))


def axis(budget: float) -> float:
    """Where a budget lies on the axis of learning curves: log(1 + steps)."""
    return float(np.log1p(budget))


def area(curve: Sequence[tuple[int, Series]]) -> Series:
    """Mean height of a learning curve: the area under it over log(1 + steps), by its width.

    Args:
        curve: (budget, figures) at two or more budgets, ascending.
    """
    x = np.array([axis(budget) for budget, _ in curve])
    gaps = np.diff(x)
    weights = np.zeros(len(x))
    weights[:-1] += gaps / 2
    weights[1:] += gaps / 2
    return combine([part for _, part in curve], list(weights / gaps.sum()))


def steps_to_reach(level: Series, curve: Sequence[tuple[int, Series]]) -> Steps | None:
    """The first budget at which a curve, drawn straight over log(1 + steps), reaches `level`; None
    where some of the way there is not known, for want of seeds that both have.

    The interval begins where the curve is no longer surely below the level and ends where it is
    surely not below it.
    """
    places = [(a, b, share) for a, b in pairwise(curve) for share in _SHARES]
    if len(curve) == 1:
        places = [(curve[0], curve[0], 0.0)]
    value = low = high = inf
    before: tuple[float, float] | None = None
    leads = []
    for (here, first), (there, second), share in places:
        at = axis(here) + share * (axis(there) - axis(here))
        ends = [part for part in ((first, 1 - share), (second, share)) if part[1]]
        curve_there, weights = zip(*ends, (level, -1.0), strict=True)
        lead = estimate(combine(curve_there, weights))
        if value == inf and isnan(lead.value):
            return None
        if value == inf and lead.value >= 0:
            value = at if before is None else _crossing(before, (at, lead.value))
        low = min(low, at) if lead.high >= 0 else low
        high = min(high, at) if lead.low >= 0 else high
        before = (at, lead.value)
        leads.append(lead)
    if any(isnan(lead.low) for lead in leads):
        low = high = nan
    value, low, high = (float(np.expm1(x)) for x in (value, min(low, value), high))
    return Steps(value, low, high, curve[-1][0])


_SHARES = tuple(np.linspace(0, 1, 13))


def _crossing(before: tuple[float, float], after: tuple[float, float]) -> float:
    rise = after[1] - before[1]
    return after[0] if rise == 0 else before[0] - before[1] * (after[0] - before[0]) / rise


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's step-down adjustment over a family; NaN stays NaN and is not counted."""
    # By hand: statsmodels collects garbage at every call, which takes longer than all the rest.
    found = np.array(p_values, float)
    known = np.flatnonzero(np.isfinite(found))
    ascending = known[np.argsort(found[known])]
    raised = found[ascending] * np.arange(len(ascending), 0, -1)
    found[ascending] = np.minimum(np.maximum.accumulate(raised), 1.0)
    return found


def mcnemar(before: np.ndarray, after: np.ndarray) -> tuple[int, int, float]:
    """Examples that were right and become wrong, the reverse, and McNemar's exact p-value.

    Args:
        before, after: which examples were right, (examples,) of bool.
    """
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    # Twice the binomial's smaller tail; scipy's test says the same in a hundred times the time.
    return lost, won, min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5)))

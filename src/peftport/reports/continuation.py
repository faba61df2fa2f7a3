"""How copying fails: recovery on a host against how much it was pretrained further.

Made for studies in which one host's modules are received by several of its continuations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from math import isfinite, nan

import numpy as np

from peftport.reports.compared import Point
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.genealogy import amount
from peftport.reports.measures import Recovery, recovery
from peftport.reports.results import Cell, Results
from peftport.reports.statistics import Estimate
from peftport.reports.wording import listed, number, recovery_text, with_span

LEAST_AMOUNTS = 3
"""So many receiving hosts make a curve."""
HALF = 0.5
RATIOS = (-0.5, 1.5)
"""Recoveries beyond these are drawn at the edge."""
SHOWN = ("sampled", "scratch", "ported")
"""Conditions whose recovery is drawn; the bare host's is 0 and the native module's 1."""


_TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Place:
    """A receiving host on the way: `amount` in multiples of `Fading.unit`, and what is recovered
    there by condition; None where nothing was run or a recovery means nothing."""

    amount: float
    point: Point
    recovered: Mapping[str, Recovery | None]

    def ratio(self, condition: str = "ported") -> Estimate | None:
        """The recovery of a condition, where there is one."""
        found = self.recovered.get(condition)
        return None if found is None else found.ratio


@dataclass(frozen=True)
class Fading:
    """A technique's recovery over the continuations of one host, in ascending amounts.

    Attributes:
        unit: what amounts are multiples of, in the unit of the hosts' facts.
        half: amount at which the ported module's recovery first falls to a half, drawn straight
            over log(1 + amount), and the same for the ends of its interval; NaN where it does not
            fall so far, or not surely. None without a recovery at two amounts.
    """

    technique: str
    origin: str
    setting: str
    method: str
    budget: int
    unit: float
    places: tuple[Place, ...]
    half: tuple[float, float, float] | None

    @property
    def sentence(self) -> str:
        """What becomes of the recovery, in words."""
        known = [place for place in self.places if place.ratio() is not None]
        if len(known) < 2:
            return f"{self.technique}: there is no recovery to follow."
        levels = [f"{recovery_text(p.recovered['ported'])} at {multiple(p.amount)}" for p in known]
        return f"{self.technique}: recovery {listed(levels)}; {self._half_text(known[-1])}."

    def _half_text(self, last: Place) -> str:
        """Where half of it is left, of what is known up to the place `last`."""
        assert self.half is not None
        value, low, high = self.half
        if not isfinite(value):
            return f"it stays above a half up to {multiple(last.amount)}"
        if value == 0:
            return "it is below a half from the start"
        ends = [number(end, 1) if isfinite(end) else "" for end in (low, high)]
        between = f" ({ends[0]} to {ends[1] or 'beyond what was run'})" if ends[0] else ""
        return f"half of it is left after {number(value, 1)}{_TIMES}{between}"


def multiple(value: float) -> str:
    """An amount in words: "4" and the sign for times."""
    return f"{value:g}{_TIMES}"


def fadings(results: Results | Analysis) -> tuple[Fading, ...]:
    """One for every technique, originating host, setting and method with enough receiving hosts,
    at the smallest budget."""
    analysis = analyse(results)
    budget = min(analysis.results.budgets, default=0)
    amounts = {cell: amount(analysis.results, cell) for cell in analysis.results.cells}
    cells = sorted((cell for cell, found in amounts.items() if found is not None), key=_group)
    made = []
    for _, members in groupby(cells, key=_group):
        known = sorted(((amounts[cell] or 0.0, cell) for cell in members), key=lambda m: m[0])
        if len({found for found, _ in known}) >= LEAST_AMOUNTS:
            made.append(_fading(analysis, known, budget))
    return tuple(made)


def _group(cell: Cell) -> tuple[str, str, str, str]:
    return cell.origin, cell.setting, cell.method, cell.technique


def _fading(analysis: Analysis, known: Sequence[tuple[float, Cell]], budget: int) -> Fading:
    unit = min(found for found, _ in known if found > 0)
    places = tuple(_place(analysis, found / unit, cell, budget) for found, cell in known)
    cell = known[0][1]
    return Fading(
        cell.technique, cell.origin, cell.setting, cell.method, budget, unit, places, _half(places)
    )


def _place(analysis: Analysis, multiples: float, cell: Cell, budget: int) -> Place:
    beside = analysis.series(cell, budget)
    host, native = beside["host"], beside["native"]
    recovered = {
        name: recovery(series, host, native)
        if host is not None and (series := beside[name]) is not None
        else None
        for name in SHOWN
    }
    return Place(multiples, analysis.point(cell, budget), recovered)


def _half(places: Sequence[Place]) -> tuple[float, float, float] | None:
    known = [(place.amount, found) for place in places if (found := place.ratio()) is not None]
    if len(known) < 2:
        return None
    x = [float(np.log1p(at)) for at, _ in known]
    curves = ([e.value for _, e in known], [e.low for _, e in known], [e.high for _, e in known])
    value, low, high = (_falls_to(x, curve, HALF) for curve in curves)
    return value, low, high


def _falls_to(x: Sequence[float], y: Sequence[float], level: float) -> float:
    """Where a curve first falls to `level`, as an amount; NaN when it does not."""
    if y[0] <= level:
        return 0.0
    for (left, above), (right, below) in pairwise(zip(x, y, strict=True)):
        if above > level >= below:
            share = (above - level) / (above - below) if isfinite(above - below) else 0.0
            return float(np.expm1(left + share * (right - left)))
    return nan


def place_text(place: Place) -> str:
    """A place of a curve for those who do not see it."""
    found = {name: place.ratio(name) for name in SHOWN}
    known = [f"{name} {with_span(e)}" for name, e in found.items() if e is not None]
    return f"at {multiple(place.amount)}: {listed(known) or 'no recovery'}"

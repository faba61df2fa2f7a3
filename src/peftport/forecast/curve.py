"""From signals to how much of a module survives: one falling curve a technique, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

import numpy as np
from scipy.optimize import least_squares
from scipy.special import expit, logit

from peftport.forecast.calibration import MeasuredCopy
from peftport.hosts.genealogy import Relation

LEVEL = 0.8
"""How many of the measured copies are to lie in an interval."""
NEIGHBOURS = 32
"""An interval is made of so many measured copies, those whose forecasts are nearest."""
FROM_WEIGHTS = ("distance",)
FROM_TEXTS = ("answers",)
"""The signals of a forecast without texts, and of one with them."""
_SMALLEST = 1e-3
_LEAST, _MOST = 0.02, 0.98
_STEEPEST = 10.0

Signals = Mapping[str, float]


def farness(signals: Signals, names: Sequence[str]) -> list[float]:
    """How far two hosts are apart by each signal, on a logarithmic scale: log(distance), and
    log((1 - s) / s) for a signal that is 1 for one host."""
    return [
        float(np.log(max(signals[name], _SMALLEST)))
        if name == "distance"
        else -float(logit(np.clip(signals[name], _LEAST, _MOST)))
        for name in names
    ]


@dataclass(frozen=True)
class LogisticCurve:
    """recovery = 1 / (1 + exp(slopes . farness - start of the technique)), slopes 0 or more.

    Fitted by least squares to measured copies; each technique has its own start and all have the
    same slopes, so that the same signals never give more to hosts that are farther apart.
    """

    names: tuple[str, ...]
    starts: Mapping[str, float]
    slopes: tuple[float, ...]

    def __call__(self, technique: str, signals: Signals) -> float:
        """The recovery to expect, between 0 and 1."""
        far = float(np.dot(self.slopes, farness(signals, self.names)))
        return float(expit(self.starts[technique] - far))


def fit(cells: Sequence[MeasuredCopy], names: Sequence[str]) -> LogisticCurve:
    """Fit a curve for every technique of the cells to their recoveries, taken as 0 to 1."""
    techniques = sorted({cell.technique for cell in cells})
    which = np.array([techniques.index(cell.technique) for cell in cells])
    far = np.array([farness(cell.model_dump(), names) for cell in cells])  # (cells, signals)
    measured = np.clip([cell.recovery for cell in cells], 0, 1)
    count = len(techniques)

    def errors(values: np.ndarray) -> np.ndarray:
        starts, slopes = values[:count], values[count:]
        return np.asarray(expit(starts[which] - far @ slopes) - measured)

    low = [-np.inf] * count + [0.0] * len(names)
    high = [np.inf] * count + [_STEEPEST] * len(names)
    start = np.concatenate([np.zeros(count), np.ones(len(names))])
    found = least_squares(errors, start, bounds=(low, high)).x
    starts = dict(zip(techniques, map(float, found[:count]), strict=True))
    return LogisticCurve(tuple(names), starts, tuple(map(float, found[count:])))


@dataclass(frozen=True)
class Calibrated:
    """A curve with what it was fitted to.

    An interval is conformal (Vovk et al. 2005), made locally: each pair of hosts is forecast from
    the others, and the errors of the nearest forecasts say how far off this one may be.
    """

    cells: tuple[MeasuredCopy, ...]
    names: tuple[str, ...]

    @cached_property
    def curve(self) -> LogisticCurve:
        """The curve of all cells."""
        return fit(self.cells, self.names)

    @cached_property
    def left_out(self) -> np.ndarray:
        """What each cell is forecast by the others, those of its two hosts' pair excepted."""
        found = np.empty(len(self.cells))
        for pair in {frozenset((cell.origin, cell.receiver)) for cell in self.cells}:
            inside = [frozenset((c.origin, c.receiver)) == pair for c in self.cells]
            kept = [c for c, out in zip(self.cells, inside, strict=True) if not out]
            curve = fit(kept, self.names)
            for index in np.flatnonzero(inside):
                cell = self.cells[index]
                found[index] = curve(cell.technique, cell.model_dump())
        return found

    def interval(self, value: float, relation: Relation | None = None) -> tuple[float, float]:
        """Where `LEVEL` of the recoveries lie that are forecast as `value`.

        Args:
            relation: of the two hosts, where it is known: cells of this relation alone count.
        """
        counts = [relation in (None, cell.relation) for cell in self.cells]
        if not any(counts):
            counts = [True] * len(self.cells)
        forecast = self.left_out[counts]
        measured = np.array([cell.recovery for cell in self.cells])[counts]
        near = np.argsort(np.abs(forecast - value), kind="stable")[:NEIGHBOURS]
        errors = np.sort(measured[near] - forecast[near])
        rank = ceil((len(errors) + 1) * (1 + LEVEL) / 2)
        high = errors[min(rank, len(errors)) - 1]
        low = errors[max(len(errors) - rank, 0)]
        return value + min(float(low), 0.0), value + max(float(high), 0.0)

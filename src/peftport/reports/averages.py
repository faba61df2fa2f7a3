"""Averages over cells, each counting the same, of those that have all that is asked of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftport.reports.statistics import Series, align, average, restrict

Beside = Mapping[str, Series | None]
"""Condition -> its figures. `sampled` is the cell's first control, others go by their own names."""


@dataclass(frozen=True)
class Averages:
    """What cells are on average.

    Attributes:
        means: condition -> the average over the whole cells that have it: all of them, but for
            further controls that only some cells are to have.
        ported: condition -> the average of ported modules over the same cells.
        cells: how many are whole.
    """

    means: Mapping[str, Series]
    ported: Mapping[str, Series]
    cells: int


def averages(cells: Sequence[Beside]) -> Averages | None:
    """The averages over the cells that are whole; None where there is none.

    Args:
        cells: of each the conditions that are asked of it, None where one is missing; "ported" is
            asked of all.
    """
    whole = _whole(cells)
    if not whole:
        return None
    having = {
        key: [beside for beside in whole if key in beside]
        for key in dict.fromkeys(key for beside in whole for key in beside)
    }
    return Averages(
        {key: average([beside[key] for beside in found]) for key, found in having.items()},
        {key: average([beside["ported"] for beside in found]) for key, found in having.items()},
        len(whole),
    )


def _whole(all_beside: Sequence[Beside]) -> list[dict[str, Series]]:
    """The cells that have every condition for the seeds that most cells have."""
    complete = [
        {key: series for key, series in beside.items() if series is not None}
        for beside in all_beside
        if all(series is not None for series in beside.values())
    ]
    shared = [align(list(beside.values()))[0].seeds for beside in complete]
    if not any(shared):
        return []
    counts = Counter(seeds for seeds in shared if seeds)
    most = max(counts, key=lambda seeds: (counts[seeds], len(seeds), seeds))
    return [
        {key: restrict(series, most) for key, series in beside.items()}
        for beside, seeds in zip(complete, shared, strict=True)
        if set(most) <= set(seeds)
    ]

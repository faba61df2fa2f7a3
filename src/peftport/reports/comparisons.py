"""A study's runs set against each other: every cell at every budget, its curve, and the averages
over cells that the study's questions are answered from.

Continuations and independent hosts are never averaged together. Holm's adjustment goes over
families: the differences to one kind of control, within one relation of hosts, over every cell and
budget; likewise over the averages by technique, and over the differences between techniques or
between pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations, product
from math import isfinite, nan
from typing import Any

import numpy as np

from peftport.reports.averages import Averages, averages
from peftport.reports.compared import Contrast, Curve, Flips, Point, Pool
from peftport.reports.decomposition import Decomposition, explain
from peftport.reports.measures import (
    Recovery,
    area,
    holm,
    mcnemar,
    recovery,
    steps_to_reach,
)
from peftport.reports.results import Cell, Results
from peftport.reports.statistics import (
    NOTHING,
    Estimate,
    Series,
    combine,
    difference,
    level,
    turned_back,
)


class Analysis:
    """What the runs of a study say. Computed at the first use of each part."""

    def __init__(self, results: Results) -> None:
        self.results = results

    @property
    def controls(self) -> tuple[str, ...]:
        """What ported modules are compared with, by the keys of `Point.leads`."""
        return ("sampled", *self.further, "scratch", "host")

    @cached_property
    def further(self) -> tuple[str, ...]:
        """Samplings that are not the first of every cell that has them, by their own names."""
        results = self.results
        found = (name for cell in results.cells for name in results.controls(cell)[1:])
        return tuple(dict.fromkeys(found))

    @cached_property
    def points(self) -> tuple[Point, ...]:
        """Every cell at every budget, p-values adjusted."""
        results = self.results
        found = [self._point(cell, budget) for cell in results.cells for budget in results.budgets]
        return tuple(_adjust_leads(found, self.controls, lambda point: point.cell.relation))

    @cached_property
    def curves(self) -> Mapping[Cell, Curve]:
        """The learning curve of every cell that has two budgets or more."""
        found = ((cell, self._curve(cell)) for cell in self.results.cells)
        return {cell: curve for cell, curve in found if curve is not None}

    @cached_property
    def pools(self) -> tuple[Pool, ...]:
        """Averages over all cells of a relation, over those of a technique and those of a pair."""
        groups: dict[tuple[str, str, str, str], list[Cell]] = {}
        for cell in self.results.cells:
            for by, name in (("all", ""), ("technique", cell.technique), ("pair", cell.pair)):
                groups.setdefault((cell.relation, cell.method, by, name), []).append(cell)
        found = (
            self._pool(*group, budget, cells)
            for group, cells in groups.items()
            for budget in self.results.budgets
        )
        pools = [pool for pool in found if pool is not None]
        return tuple(_adjust_leads(pools, self.controls, lambda pool: (pool.relation, pool.by)))

    def pool(
        self, relation: str, method: str, budget: int, by: str = "all", name: str = ""
    ) -> Pool | None:
        """One average; None when no cell of it is complete."""
        wanted = (relation, method, by, name, budget)
        found = (p for p in self.pools if (p.relation, p.method, p.by, p.name, p.budget) == wanted)
        return next(found, None)

    def point(self, cell: Cell, budget: int) -> Point:
        """One cell at one budget; KeyError when the study does not have it."""
        return self._points[cell, budget]

    @cached_property
    def _points(self) -> dict[tuple[Cell, int], Point]:
        return {(point.cell, point.budget): point for point in self.points}

    @cached_property
    def decompositions(self) -> Mapping[str, tuple[Decomposition, ...]]:
        """Relation -> what explains the figures."""
        return {name: explain(self.results, name) for name in self.results.relations}

    def contrasts(self, relation: str, method: str, by: str, budget: int) -> tuple[Contrast, ...]:
        """Every two techniques or pairs against each other, the larger lead first, adjusted."""
        pools = sorted(
            (
                pool
                for pool in self.pools
                if (pool.relation, pool.method, pool.by, pool.budget)
                == (relation, method, by, budget)
                and pool.lead is not None
            ),
            key=_mean_lead,
            reverse=True,
        )
        found = [Contrast(a, b, _gap(a, b)) for a, b in combinations(pools, 2)]
        adjusted = holm([contrast.gap.p for contrast in found])
        return tuple(
            replace(contrast, gap=replace(contrast.gap, adjusted=float(p)))
            for contrast, p in zip(found, adjusted, strict=True)
        )

    def between(self, first: str, second: str, method: str, budget: int) -> Estimate:
        """How much further ported modules lead in the relation `first` than in `second`, adjusted
        over every two relations and every method."""
        gaps = self._between[budget]
        if (found := gaps.get((first, second, method))) is not None:
            return found
        found = gaps.get((second, first, method))
        return NOTHING if found is None else found.turned

    @cached_property
    def _between(self) -> dict[int, dict[tuple[str, str, str], Estimate]]:
        """Budget -> two relations and a method -> how their leads differ."""
        two = list(combinations(self.results.relations, 2))
        return {b: self._gaps_of(two, b) for b in self.results.budgets}

    def _gaps_of(
        self, relations: Sequence[tuple[str, str]], budget: int
    ) -> dict[tuple[str, str, str], Estimate]:
        found = {}
        for (one, other), method in product(relations, self.results.methods):
            first, second = (self.pool(name, method, budget) for name in (one, other))
            if first is not None and second is not None:
                found[one, other, method] = _gap(first, second)
        adjusted = holm([gap.p for gap in found.values()])
        return {
            key: replace(gap, adjusted=float(p))
            for (key, gap), p in zip(found.items(), adjusted, strict=True)
        }

    def series(self, cell: Cell, budget: int, metric: str = "") -> dict[str, Series | None]:
        """The figures of a cell by condition, as in `Point.means`; of another metric if asked."""
        first, others = (found := self.results.controls(cell))[:1], found[1:]

        def read(condition: str, control: str = "") -> Series | None:
            return self.results.series(cell, condition, budget, control, metric)

        figures = {
            "host": read("host"),
            "sampled": read("sampled", *first),
            "scratch": read("scratch"),
            "ported": read("ported"),
            "native": read("native"),
        }
        return figures | {n: read("sampled", n) if n in others else None for n in self.further}

    def measure(self, cell: Cell, condition: str, budget: int, column: str) -> float | None:
        """The mean over seeds of another measure, by the keys of `Point.means`."""
        control = self.results.controls(cell)[:1] if condition == "sampled" else ()
        if condition in self.further:
            condition, control = "sampled", (condition,)
        runs = self.results.run_ids(cell, condition, budget, *control)
        found = self.results.measure(runs.values(), column)
        return found if isfinite(found) else None

    def _point(self, cell: Cell, budget: int) -> Point:
        beside = self.series(cell, budget)
        ported, host = beside["ported"], beside["host"]
        leads = {name: _lead(ported, beside[name]) for name in self.controls}
        kept = _kept(ported, host, beside["native"])
        plain, ranking = (self.series(cell, budget, metric) for metric in self._beside)
        return Point(
            cell,
            budget,
            {name: _level(series) for name, series in beside.items()},
            leads,
            kept,
            tuple(self._flips(cell, budget)),
            {name: _level(series) for name, series in plain.items()},
            _lead(plain["ported"], plain["host"]) if self.results.is_corrected else None,
            {name: _level(series) for name, series in ranking.items()},
            _kept(ranking["ported"], ranking["host"], ranking["native"]),
            self._agreement(cell, budget),
            _kept(plain["ported"], plain["host"], plain["native"]) if self._plain_kept else None,
        )

    @property
    def _beside(self) -> tuple[str, str]:
        """The metrics that stand beside the one that everything rests on."""
        kind = self.results.kind
        return kind.plain, kind.ranking

    @property
    def _plain_kept(self) -> bool:
        """Whether the plain metric's lift is one of its own, and not the same without a
        correction."""
        return not self.results.kind.of_classes

    def _agreement(self, cell: Cell, budget: int) -> float | None:
        if not self.results.kind.of_classes:
            return None
        return self.measure(cell, "ported", budget, "agreement")

    def _flips(self, cell: Cell, budget: int) -> Iterable[Flips]:
        results = self.results
        after = results.run_ids(cell, "ported", budget)
        at_home = cell._replace(receiver=cell.origin)
        before = {"host": results.run_ids(cell, "host", budget)}
        if cell.origin_task == cell.task:
            before["origin"] = results.run_ids(at_home, "native", budget)
        for versus, runs in before.items():
            found = []
            for seed in sorted(after.keys() & runs.keys()):
                was = results.correct(runs[seed], cell.task)
                now = results.correct(after[seed], cell.task)
                if was is not None and now is not None:
                    found.append(mcnemar(was, now))
            if found:
                lost, won, p = zip(*found, strict=True)
                examples = len(results.gold[cell.task])
                yield Flips(versus, float(np.mean(lost)), float(np.mean(won)), examples, p)

    def _curve(self, cell: Cell) -> Curve | None:
        curves: dict[str, list[tuple[int, Series]]] = {}
        for budget in self.results.budgets:
            for name, series in self.series(cell, budget).items():
                if series is not None:
                    curves.setdefault(name, []).append((budget, series))
        ported = curves.get("ported", [])
        if len(ported) < 2:
            return None
        at = [budget for budget, _ in ported]
        whole = [name for name, curve in curves.items() if [b for b, _ in curve] == at]
        trained = [name for name in whole if name not in ("host", "native")]
        areas = {name: area(curves[name]) for name in trained}
        leads = {n: difference(areas["ported"], areas[n]) for n in trained if n != "ported"}
        native = curves["native"][0][1] if "native" in curves else None
        scratch = list(curves.get("scratch", []))
        steps = self.results.native_steps(cell)
        if native is not None and scratch and steps > scratch[-1][0]:
            scratch.append((steps, native))
        starts = ported[0][0] == 0
        return Curve(
            cell,
            {name: turned_back(series) for name, series in areas.items()},
            leads,
            steps_to_reach(ported[0][1], scratch) if scratch and starts else None,
            steps_to_reach(native, ported) if native is not None else None,
        )

    def _pool(
        self, relation: str, method: str, by: str, name: str, budget: int, cells: Sequence[Cell]
    ) -> Pool | None:
        found = self._averages(cells, budget, self.results.metric)
        if found is None:
            return None
        plain, ranking = (
            beside.means if (beside := self._averages(cells, budget, metric)) else {}
            for metric in self._beside
        )
        means, ported, host = found.means, found.means["ported"], found.means.get("host")
        lead = combine([ported, means["sampled"]], [1, -1]) if "sampled" in means else None
        return Pool(
            relation,
            method,
            by,
            name,
            budget,
            {key: level(series) for key, series in means.items()},
            {k: difference(found.ported[k], means[k]) for k in self.controls if k in means},
            _kept(ported, host, means.get("native")),
            found.cells,
            len(cells),
            lead,
            {key: level(series) for key, series in plain.items()},
            _lead(plain.get("ported"), plain.get("host")) if self.results.is_corrected else None,
            {key: level(series) for key, series in ranking.items()},
            _kept(ranking.get("ported"), ranking.get("host"), ranking.get("native")),
            _kept(plain.get("ported"), plain.get("host"), plain.get("native"))
            if self._plain_kept
            else None,
            _lead(ported, means.get("native")),
        )

    def _averages(self, cells: Sequence[Cell], budget: int, metric: str) -> Averages | None:
        """None where no cell is whole, or there is no ported module. A further control is asked of
        the cells that are to have it: a pair can have its own."""
        found = [self.series(cell, budget, metric) for cell in cells]
        there = {key for beside in found for key, series in beside.items() if series is not None}
        if "ported" not in there:
            return None
        others = [set(self.further) - set(self.results.controls(cell)[1:]) for cell in cells]
        return averages(
            [
                {key: series for key, series in beside.items() if key in there - without}
                for beside, without in zip(found, others, strict=True)
            ]
        )


def analyse(results: Results | Analysis) -> Analysis:
    """The analysis of a study; one that is made already is given back."""
    return results if isinstance(results, Analysis) else Analysis(results)


def _lead(ported: Series | None, other: Series | None) -> Estimate | None:
    return None if ported is None or other is None else difference(ported, other)


def _kept(ported: Series | None, host: Series | None, native: Series | None) -> Recovery | None:
    return None if ported is None or host is None else recovery(ported, host, native)


def _level(series: Series | None) -> Estimate | None:
    return None if series is None else level(series)


def _mean_lead(pool: Pool) -> float:
    return nan if pool.lead is None else float(pool.lead.values.mean())


def _gap(first: Pool, second: Pool) -> Estimate:
    if first.lead is None or second.lead is None:
        return NOTHING
    return difference(first.lead, second.lead)


def _adjust_leads(
    found: Sequence[Any], controls: Sequence[str], family: Callable[[Any], Hashable]
) -> list[Any]:
    """The same points or pools with the p-values of their leads adjusted, control by control."""
    members: dict[Hashable, list[tuple[int, str]]] = {}
    for place, item in enumerate(found):
        for control in controls:
            if item.leads.get(control) is not None:
                members.setdefault((family(item), control), []).append((place, control))
    leads = [dict(item.leads) for item in found]
    for family_members in members.values():
        adjusted = holm([leads[place][control].p for place, control in family_members])
        for (place, control), p in zip(family_members, adjusted, strict=True):
            leads[place][control] = replace(leads[place][control], adjusted=float(p))
    return [replace(item, leads=new) for item, new in zip(found, leads, strict=True)]

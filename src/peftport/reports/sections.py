"""What the page's sections show, prepared for the template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, product
from math import isfinite
from typing import Any

from peftport.metrics import Metric, Scale
from peftport.reports import svg
from peftport.reports.compared import Flips, Point
from peftport.reports.comparisons import Analysis
from peftport.reports.continuation import RATIOS, SHOWN, Fading, fadings, place_text
from peftport.reports.evidence import THRESHOLD
from peftport.reports.results import Cell
from peftport.reports.statistics import SURE, Estimate
from peftport.reports.tables import columns
from peftport.reports.wording import (
    NONE,
    after,
    figure,
    listed,
    name_of,
    number,
    p_text,
    relation_kind,
    relation_name,
    sentence,
    span,
    steps_text,
    with_span,
)

AVERAGE = "average of settings"
FULL_HEAT = 0.4
"""A lead that is shown in the strongest colour."""
LANE = 22
"""Height of a line of text beside a figure, in pixels; the style sheet says the same."""


@dataclass(frozen=True)
class View:
    """One of several tables of which the page shows one at a time."""

    choices: Mapping[str, str]
    label: str
    groups: Sequence[Mapping[str, Any]]


def when(budget: int) -> str:
    """A budget as a choice: "zero-shot", "after 30 steps"."""
    return "zero-shot" if budget == 0 else after(budget)


def named(conditions: Iterable[str]) -> list[tuple[str, str]]:
    """Conditions with their names."""
    return [(condition, name_of(condition)) for condition in conditions]


def glance(analysis: Analysis) -> dict[tuple[str, str], dict[str, Any]]:
    """(relation, method) -> where every technique stands at the smallest budget."""
    budget = min(analysis.results.budgets, default=0)
    wanted = [p for p in analysis.pools if p.by == "technique" and p.budget == budget]
    limits = _limits(analysis, [found for pool in wanted for found in pool.means.values()])
    order = columns(analysis)
    figures: dict[tuple[str, str], dict[str, Any]] = {}
    for pool in wanted:
        means = {name: pool.means[name] for name in order if name in pool.means}
        text = listed([f"{name_of(name)} {with_span(e)}" for name, e in means.items()])
        drawing = svg.ranges(f"{pool.name}: {text}", means, limits)
        empty = {"rows": [], "ruler": svg.ruler(limits), "when": when(budget)}
        rows = figures.setdefault((pool.relation, pool.method), empty)["rows"]
        rows.append({"name": pool.name, "svg": drawing, "means": means})
    return figures


def _limits(analysis: Analysis, figures: Sequence[Estimate]) -> tuple[float, float]:
    """Between what values a picture of figures lies."""
    return svg.bounds(figures, svg.step_of(figures, analysis.results.rests_on.scale))


def full_heat(analysis: Analysis) -> float:
    """The lead that is shown in the strongest colour: for metrics that are no shares the widest one
    of the study."""
    if analysis.results.rests_on.share:
        return FULL_HEAT
    leads = [e.value for p in analysis.points for e in p.leads.values() if e is not None]
    return max((abs(lead) for lead in leads if isfinite(lead)), default=0.0) or 1.0


def heat_map(analysis: Analysis) -> list[View]:
    """Technique against pair, for every budget and setting: the lead over the best control."""
    results = analysis.results
    settings = list(dict.fromkeys(cell.setting for cell in results.cells))
    several = [AVERAGE, *settings] if len(settings) > 1 else settings
    techniques = list(dict.fromkeys(cell.technique for cell in results.cells))
    places = list(dict.fromkeys((c.relation, c.pair, c.method) for c in results.cells))
    views = []
    for budget, setting in product(results.budgets, several):
        groups = [
            {
                "relation": relation_kind(relation),
                "pair": pair,
                "method": method if len(results.methods) > 1 else "",
                "cells": [
                    _heat_cell(
                        [
                            analysis.point(cell, budget)
                            for cell in results.cells
                            if (cell.technique, cell.pair, cell.method) == (technique, pair, method)
                            and setting in (AVERAGE, cell.setting)
                        ],
                        columns(analysis),
                        analysis.results.rests_on.scale,
                        full_heat(analysis),
                    )
                    for technique in techniques
                ],
            }
            for relation, pair, method in places
        ]
        choices = {"budget": str(budget), "setting": setting}
        views.append(View(choices, f"{when(budget)}, {setting}", groups))
    return views


def _heat_cell(
    points: Sequence[Point], order: Sequence[str], scale: Scale, full: float
) -> dict[str, Any]:
    """Means over the points, and by how much ported is ahead of the best of its controls."""
    means: dict[str, float] = {}
    for name in order:
        found = [e.value for p in points if (e := p.means.get(name)) is not None]
        if points and len(found) == len(points):
            means[name] = sum(found) / len(found)
    told = {name: number(value, scale.digits) for name, value in means.items()}
    others = [value for name, value in means.items() if name not in ("ported", "native")]
    if "ported" not in means or not others:
        return {"lead": NONE, "heat": 0, "way": "none", "means": told}
    lead = min(scale.sign * (means["ported"] - other) for other in others)
    return {
        "lead": number(lead, scale.digits, sign=True),
        "heat": round(100 * min(abs(lead) / full, 1)),
        "way": "ahead" if lead > 0 else "behind",
        "means": told,
    }


def curve_groups(analysis: Analysis) -> list[dict[str, Any]]:
    """A learning curve for every cell, grouped by pair and setting."""
    results = analysis.results
    order = [name for name in columns(analysis)]
    found = [e for p in analysis.points for e in p.means.values() if e is not None]
    limits = _limits(analysis, found)
    groups = []
    numbered = 0
    for (relation, title), cells in groupby(results.cells, key=lambda c: _where(analysis, c)):
        panels = []
        for cell in cells:
            points = [analysis.point(cell, budget) for budget in results.budgets]
            curves = {name: _curve(points, name) for name in order}
            curves = {name: curve for name, curve in curves.items() if curve}
            text = _curve_text(curves)
            name = f"curve-{numbered}"
            numbered += 1
            drawing = svg.learning_curves(
                name, f"{cell.technique}, {title}", text, curves, results.budgets, limits
            )
            panels.append({"technique": cell.technique, "svg": drawing, "points": points})
        groups.append({"title": title, "relation": relation, "panels": panels})
    return groups


def continuation(analysis: Analysis) -> list[dict[str, Any]]:
    """Recovery over further pretraining, grouped by originating host and setting."""
    groups = []
    numbered = 0
    several = len(analysis.results.methods) > 1
    found = fadings(analysis)
    for (origin, setting, method, unit), members in groupby(found, key=_fading_group):
        panels = []
        for fading in members:
            name = f"fading-{numbered}"
            numbered += 1
            panels.append({"fading": fading, "svg": _fading_figure(name, fading)})
        how = f", method {method}" if several else ""
        groups.append({"title": f"{origin}, {setting}{how}", "unit": unit, "panels": panels})
    return groups


def _fading_group(fading: Fading) -> tuple[str, str, str, float]:
    return fading.origin, fading.setting, fading.method, fading.unit


def _fading_figure(name: str, fading: Fading) -> str:
    shown = {
        condition: [
            (place.amount, ratio.within(*RATIOS))
            for place in fading.places
            if (ratio := place.ratio(condition)) is not None
        ]
        for condition in SHOWN
    }
    text = "; ".join(place_text(place) for place in fading.places)
    return svg.learning_curves(
        name,
        f"{fading.technique}: recovery by further pretraining of the receiving host",
        f"Recovery, where 0 is the bare host and 1 the native module: {text}.",
        {condition: curve for condition, curve in shown.items() if curve},
        [place.amount for place in fading.places],
        RATIOS,
        "further pretraining, in multiples",
    )


def _where(analysis: Analysis, cell: Cell) -> tuple[str, str]:
    """The relation of a cell's hosts, and its place in words."""
    return cell.relation, _place(analysis, cell)


def _place(analysis: Analysis, cell: Cell) -> str:
    how = f", method {cell.method}" if len(analysis.results.methods) > 1 else ""
    return f"{cell.pair} ({relation_kind(cell.relation)}), {cell.setting}{how}"


def _curve(points: Sequence[Point], name: str) -> list[tuple[int, Estimate]]:
    found = [(p.budget, e) for p in points if (e := p.means.get(name)) is not None]
    return found[:1] if name in ("host", "native") else found


def _curve_text(curves: svg.Curves) -> str:
    parts = []
    for name, curve in curves.items():
        levels = [f"{figure(e)} at {budget:,}" for budget, e in curve]
        level = figure(curve[0][1]) if len(curve) == 1 else listed(levels)
        parts.append(f"{name_of(name)} {level}")
    return f"By training steps: {'; '.join(parts)}."


def differences(analysis: Analysis) -> list[View]:
    """Ported minus each control with its interval, or the reverse where less is better, for every
    budget."""
    limits = _lead_limits(analysis)
    views = []
    for budget in analysis.results.budgets:
        points = [point for point in analysis.points if point.budget == budget]
        groups = [
            {
                "title": title,
                "relation": relation,
                "rows": [_difference(point, limits, analysis.results.over) for point in members],
            }
            for (relation, title), members in groupby(
                points, key=lambda p: _where(analysis, p.cell)
            )
        ]
        views.append(View({"budget": str(budget)}, when(budget), groups))
    return views


def difference_ruler(analysis: Analysis) -> str:
    """The axis of `differences`."""
    return svg.ruler(_lead_limits(analysis), sign=True)


def _lead_limits(analysis: Analysis) -> tuple[float, float]:
    leads = [e for p in analysis.points for e in p.leads.values() if e is not None]
    low, high = _limits(analysis, leads)
    return min(low, 0.0), max(high, 0.0)


def _difference(point: Point, limits: tuple[float, float], over: str) -> dict[str, Any]:
    known = {name: lead for name, lead in point.leads.items() if lead is not None}
    items = [
        {
            "condition": name,
            "name": name_of(name),
            "lead": figure(lead, sign=True),
            "span": span(lead, sign=True),
            "p": p_text(lead.adjusted),
            "sure": lead.adjusted < SURE,
        }
        for name, lead in known.items()
    ]
    label = "; ".join(f"{over} {i['name']} {i['lead']} ({i['span']}), {i['p']}" for i in items)
    return {
        "technique": point.cell.technique,
        "svg": svg.ranges(f"{point.cell.technique}: {label}", known, limits, LANE) if known else "",
        "items": items,
    }


def kept_cells(analysis: Analysis) -> list[dict[str, Any]]:
    """Cells by pair and setting: accuracies and recovery at the smallest budget, areas under the
    learning curves, steps to match, and answers changed."""
    budget = min(analysis.results.budgets, default=0)
    return [
        {"title": title, "rows": [_kept(analysis, cell, budget) for cell in cells]}
        for title, cells in groupby(analysis.results.cells, key=lambda c: _place(analysis, c))
    ]


def _kept(analysis: Analysis, cell: Cell, budget: int) -> dict[str, Any]:
    point, curve = analysis.point(cell, budget), analysis.curves.get(cell)
    levels = {name: point.means.get(name) for name in ("host", "native")}
    return {
        "technique": cell.technique,
        "means": point.means,
        "recovery": point.recovery,
        "plain": point.plain,
        "plain_effect": point.plain_effect,
        "ranking": point.ranking,
        "effect": point.effect,
        "agreement": NONE if point.agreement is None else number(point.agreement),
        "threshold": sentence(THRESHOLD) if point.only_threshold else "",
        # A level's area under the curve is the level.
        "areas": levels | dict(curve.areas) if curve else {},
        "to_match": steps_text(curve.to_match if curve else None),
        "to_native": steps_text(curve.to_native if curve else None),
        "flips": [_flip_text(flips) for flips in point.flips],
    }


def _flip_text(flips: Flips) -> str:
    whose = {"host": "bare host", "origin": "originating host with its module"}[flips.versus]
    sure = sum(p < SURE for p in flips.p)
    return (
        f"against the {whose}: {flips.lost:.0f} lost, {flips.won:.0f} won of {flips.examples:,} "
        f"(McNemar p below {SURE} for {sure} of {len(flips.p)} seeds)"
    )


def measures(analysis: Analysis) -> list[dict[str, Any]]:
    """Other measures than the one that all rests on, means over seeds, for every cell and
    budget."""
    order = columns(analysis)
    others = other_measures(analysis)
    return [
        {
            "cell": point.cell,
            "budget": point.budget,
            "name": metric.directed,
            "values": [
                NONE if found is None else number(found, metric.digits)
                for condition in order
                for found in [analysis.measure(point.cell, condition, point.budget, column)]
            ],
        }
        for point in analysis.points
        for column, metric in others.items()
    ]


def other_measures(analysis: Analysis) -> dict[str, Metric]:
    """The metrics that were measured beside the one that all rests on."""
    results = analysis.results
    return {
        name: metric
        for name, metric in results.metrics.items()
        if name != results.metric and results.done[name].notna().any()
    }


def explained(analysis: Analysis) -> list[dict[str, Any]]:
    """What explains the figures of each relation: terms of 1 % or more, and what is left."""
    groups = []
    for relation, parts in analysis.decompositions.items():
        for part in parts:
            shares = [s for s in part.shares if s.share >= 0.01 or not s.factors]
            groups.append(
                {
                    "title": f"{sentence(part.figure)}: {relation_name(relation)}",
                    "shares": [(s.name, f"{100 * s.share:.1f}", s.share) for s in shares],
                    "small": listed([s.name for s in part.shares if s not in shares]),
                    "left_out": listed(part.left_out),
                    "observations": part.observations,
                }
            )
    return groups

"""The page's figures as PNG files, for documents."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from peftport.files import write_atomic
from peftport.reports import svg
from peftport.reports.compared import Point
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.continuation import RATIOS, SHOWN, Fading, fadings, multiple
from peftport.reports.measures import axis
from peftport.reports.notes import minus
from peftport.reports.results import Cell, Results
from peftport.reports.sections import full_heat
from peftport.reports.statistics import Estimate
from peftport.reports.tables import columns
from peftport.reports.wording import figure, name_of, number, relation_kind, relation_name

# The page's colours and marks on white.
_COLOURS = {
    "host": "#6b7280",
    "sampled": "#b8530a",
    "scratch": "#0a7c62",
    "ported": "#0b5cab",
    "native": "#97326b",
    "permuted": "#7a6a00",
    "spectrum": "#a03428",
}
_OTHER = "#4d5f00"
_MARKS = {"sampled": "s", "scratch": "^", "ported": "o", "permuted": "D", "spectrum": "v"}
_DASHES = {"host": ":", "sampled": "--", "scratch": (0, (6, 2)), "native": "-."}
_LEADS = LinearSegmentedColormap.from_list(
    "leads", [_COLOURS["sampled"], "white", _COLOURS["ported"]]
)
_SHADES = 64
_STYLE: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9}


def write_png(results: Results | Analysis, folder: Path) -> list[Path]:
    """Write heat-RELATION.png, curves-RELATION.png and differences-RELATION.png into `folder`, and
    continuation.png where one host's modules are received by several of its continuations.

    Heat map and differences are those at the smallest budget. What was there is replaced.

    Returns:
        The paths, in the order in which they are written.
    """
    from matplotlib import rc_context

    analysis = analyse(results)
    written = []
    with rc_context(_STYLE):
        for relation in analysis.results.relations:
            cells = [cell for cell in analysis.results.cells if cell.relation == relation]
            for name, drawing in (
                ("heat", _heat(analysis, cells)),
                ("curves", _curves(analysis, cells)),
                ("differences", _differences(analysis, cells)),
            ):
                drawing.suptitle(f"{analysis.results.name}: {relation_name(relation)}")
                written.append(_save(drawing, folder / f"{name}-{relation or 'unstated'}.png"))
        faded = fadings(analysis)
        if faded:
            drawing = _continuation(faded)
            drawing.suptitle(f"{analysis.results.name}: recovery by further pretraining")
            written.append(_save(drawing, folder / "continuation.png"))
    return written


def _save(drawing: Figure, path: Path) -> Path:
    """Few colours are enough, and take a quarter of the room."""
    canvas = FigureCanvasAgg(drawing)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    buffer = io.BytesIO()
    image.quantize(_SHADES).save(buffer, "PNG", optimize=True)
    write_atomic(path, buffer.getvalue())
    return path


def _rows(analysis: Analysis, cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    """Cells by what they share beside the technique, with its name."""
    several = len(analysis.results.methods) > 1

    def name(cell: Cell) -> str:
        return f"{cell.pair}\n{cell.setting}" + (f", {cell.method}" if several else "")

    return [(title, list(members)) for title, members in groupby(cells, key=name)]


def _heat(analysis: Analysis, cells: Sequence[Cell]) -> Figure:
    rows = _rows(analysis, cells)
    techniques = list(dict.fromkeys(cell.technique for cell in cells))
    drawing = Figure(
        figsize=(2.4 + 1.9 * len(techniques), 1.2 + 1.35 * len(rows)), dpi=150, layout="constrained"
    )
    axes = drawing.add_subplot()
    budget = min(analysis.results.budgets)
    points = {
        (y, techniques.index(cell.technique)): analysis.point(cell, budget)
        for y, (_, members) in enumerate(rows)
        for cell in members
    }
    leads = [[_lead(points.get((y, x))) for x in range(len(techniques))] for y in range(len(rows))]
    metric = analysis.results.rests_on
    full = 2 * full_heat(analysis)
    axes.imshow(leads, cmap=_LEADS, vmin=-full, vmax=full, aspect="auto")
    for (y, x), point in points.items():
        lines = [number(leads[y][x], metric.digits, sign=True)]
        lines += [f"{name_of(n)} {figure(point.means.get(n))}" for n in columns(analysis)]
        axes.text(x, y, "\n".join(lines), ha="center", va="center", fontsize=7)
    axes.set_xticks(range(len(techniques)), techniques)
    axes.set_yticks(range(len(rows)), [title for title, _ in rows])
    axes.set_title(f"lead over the best control, {budget} steps", fontsize=9)
    return drawing


def _lead(point: Point | None) -> float:
    """Ported minus the best of its controls; NaN where something is missing."""
    if point is None or point.means.get("ported") is None:
        return float("nan")
    leads = [lead.value for lead in point.leads.values() if lead is not None]
    return min(leads, default=float("nan"))


def _curves(analysis: Analysis, cells: Sequence[Cell]) -> Figure:
    rows = _rows(analysis, cells)
    techniques = list(dict.fromkeys(cell.technique for cell in cells))
    drawing = Figure(
        figsize=(1 + 2.4 * len(techniques), 0.9 + 1.9 * len(rows)), dpi=150, layout="constrained"
    )
    grid = drawing.subplots(len(rows), len(techniques), squeeze=False, sharex=True, sharey=True)
    for line, (title, members) in zip(grid, rows, strict=True):
        for axes in line:
            axes.set_visible(False)
        for cell in members:
            axes = line[techniques.index(cell.technique)]
            axes.set_visible(True)
            _panel(analysis, cell, axes)
            axes.set_title(f"{cell.technique}\n{title}", fontsize=7)
    shown: dict[str, Any] = {}
    for axes in grid.flat:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            shown.setdefault(label, handle)
    if shown:
        drawing.legend(shown.values(), shown, loc="outside lower center", ncols=len(shown))
    return drawing


def _panel(analysis: Analysis, cell: Cell, axes: Any) -> None:
    budgets = analysis.results.budgets
    for name in columns(analysis):
        found = [(b, analysis.point(cell, b).means.get(name)) for b in budgets]
        known = [(b, e) for b, e in found if e is not None]
        if not known:
            continue
        x = [axis(budget) for budget, _ in known]
        colour = _COLOURS.get(name, _OTHER)
        style = {"ls": _DASHES.get(name, "-"), "marker": _MARKS.get(name), "ms": 4}
        axes.plot(x, [e.value for _, e in known], color=colour, label=name_of(name), **style)
        low, high = [e.low for _, e in known], [e.high for _, e in known]
        axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    axes.xaxis.set_major_locator(FixedLocator([axis(budget) for budget in budgets]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([str(budget) for budget in budgets])
    axes.set_xlabel(f"steps ({relation_kind(cell.relation)})", fontsize=7)
    axes.set_ylabel(analysis.results.rests_on.directed, fontsize=7)
    axes.grid(axis="y", alpha=0.25)


def _continuation(faded: Sequence[Fading]) -> Figure:
    rows = [
        (title, list(members))
        for title, members in groupby(faded, key=lambda f: f"{f.origin}, {f.setting}, {f.method}")
    ]
    widest = max(len(members) for _, members in rows)
    drawing = Figure(
        figsize=(1 + 2.4 * widest, 0.9 + 2.1 * len(rows)), dpi=150, layout="constrained"
    )
    grid = drawing.subplots(len(rows), widest, squeeze=False, sharex=True, sharey=True)
    for line, (title, members) in zip(grid, rows, strict=True):
        for axes, fading in zip_longest(line, members):
            if fading is None:
                axes.set_visible(False)
                continue
            _fading(fading, axes)
            axes.set_title(f"{fading.technique}\n{title}", fontsize=7)
    handles, labels = grid[0][0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return drawing


def _fading(fading: Fading, axes: Any) -> None:
    for name in SHOWN:
        known = [
            (axis(place.amount), found.within(*RATIOS))
            for place in fading.places
            if (found := place.ratio(name)) is not None
        ]
        colour = _COLOURS[name]
        style = {"ls": _DASHES.get(name, "-"), "marker": _MARKS[name], "ms": 4}
        x = [at for at, _ in known]
        axes.plot(x, [e.value for _, e in known], color=colour, label=name_of(name), **style)
        low, high = [e.low for _, e in known], [e.high for _, e in known]
        axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
    for level in (0, 1):
        axes.axhline(level, color=_COLOURS["host"], lw=0.7, ls=":")
    amounts = [place.amount for place in fading.places]
    axes.set_ylim(*RATIOS)
    axes.xaxis.set_major_locator(FixedLocator([axis(at) for at in amounts]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([multiple(at) for at in amounts])
    axes.set_xlabel("further pretraining", fontsize=7)
    axes.set_ylabel("recovery", fontsize=7)
    axes.grid(axis="y", alpha=0.25)


def _differences(analysis: Analysis, cells: Sequence[Cell]) -> Figure:
    budget = min(analysis.results.budgets)
    points = [analysis.point(cell, budget) for cell in cells]
    lines = list(_lines(analysis, points))
    drawing = Figure(figsize=(7.5, 1.3 + 0.17 * len(lines)), dpi=150, layout="constrained")
    axes = drawing.add_subplot()
    shown: dict[str, Any] = {}
    for y, (_, control, lead) in enumerate(lines):
        colour = _COLOURS.get(control, _OTHER)
        if not isnan(lead.low):
            axes.plot([lead.low, lead.high], [y, y], color=colour, lw=1.6)
        mark = axes.plot(lead.value, y, marker=_MARKS.get(control, "o"), ms=4, color=colour, ls="")
        shown.setdefault(name_of(control), mark[0])
    axes.axvline(0, color="black", lw=0.8)
    titles: dict[str, list[int]] = {}
    for y, (title, _, _) in enumerate(lines):
        titles.setdefault(title, []).append(y)
    places = [sum(ys) / len(ys) for ys in titles.values()]
    axes.set_yticks(places, list(titles), fontsize=7)
    axes.set_ylim(max(len(lines), 1) - 0.5, -0.5)
    metric = analysis.results.rests_on
    axes.set_xlabel(f"{metric.title}, {minus(metric)} control, {budget} steps")
    leads = [lead for _, _, lead in lines]
    step = svg.step_of(leads, metric.scale)
    low, high = svg.bounds(leads, step)
    axes.set_xlim(min(low, 0), max(high, step))
    axes.grid(axis="x", alpha=0.25)
    if shown:
        drawing.legend(shown.values(), shown, loc="outside lower center", ncols=len(shown))
    return drawing


def _lines(analysis: Analysis, points: Sequence[Point]) -> Iterator[tuple[str, str, Estimate]]:
    for point in points:
        cell = point.cell
        how = f", {cell.method}" if len(analysis.results.methods) > 1 else ""
        for control, lead in point.leads.items():
            if lead is not None:
                yield f"{cell.technique}, {cell.pair}, {cell.setting}{how}", control, lead

"""The page's figures as PNG files, for documents: the page's own drawings, put on white sheets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftport.reports import sections, svg
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.continuation import SHOWN, fadings
from peftport.reports.notes import minus
from peftport.reports.results import Results
from peftport.reports.sheet import Sheet, mixed
from peftport.reports.tables import columns
from peftport.reports.wording import name_of, relation_kind, relation_name

_GAP = 20
_LINE = 15
_HEAD = 46
_LEGEND = 34
_CELL = 150
_STRONGEST = 0.45
"""Share of its colour in the strongest cell of the heat map; the style sheet says the same."""


def write_png(results: Results | Analysis, folder: Path) -> list[Path]:
    """Write heat-RELATION.png, curves-RELATION.png and differences-RELATION.png into `folder`, and
    continuation.png where one host's modules are received by several of its continuations.

    Heat map and differences are those at the smallest budget. What was there is replaced.

    Returns:
        The paths, in the order in which they are written.
    """
    analysis = analyse(results)
    written = []
    for relation in analysis.results.relations:
        name = relation or "unstated"
        for what, sheet in (
            ("heat", _heat(analysis, relation)),
            ("curves", _curves(analysis, relation)),
            ("differences", _differences(analysis, relation)),
        ):
            written.append(sheet.save(folder / f"{what}-{name}.png"))
    if fadings(analysis):
        written.append(_continuation(analysis).save(folder / "continuation.png"))
    return written


def _title(analysis: Analysis, relation: str) -> str:
    return f"{analysis.results.name}: {relation_name(relation)}"


def _heat(analysis: Analysis, relation: str) -> Sheet:
    """By how much ported is ahead of the best control, a line for a pair in a setting."""
    techniques = list(dict.fromkeys(cell.technique for cell in analysis.results.cells))
    budget = str(min(analysis.results.budgets, default=0))
    rows = [
        (group, view.choices["setting"])
        for view in sections.heat_map(analysis)
        if view.choices["budget"] == budget and view.choices["setting"] != sections.AVERAGE
        for group in view.groups
        if group["relation"] == relation_kind(relation)
    ]
    height = _LINE * (2 + len(columns(analysis)))
    left = 190
    sheet = Sheet(left + _CELL * len(techniques) + _GAP, _HEAD + _LINE + height * len(rows) + _GAP)
    when = sections.when(int(budget))
    sheet.headed(_title(analysis, relation), f"lead over the best control, {when}")
    for place, technique in enumerate(techniques):
        sheet.words(left + _CELL * place + 8, _HEAD + 8, technique, weight="bold")
    for line, (group, setting) in enumerate(rows):
        top = _HEAD + _LINE + height * line
        for at, text in enumerate((group["pair"], setting, group["method"])):
            sheet.words(_GAP, top + _LINE * (at + 1), text)
        for place, cell in enumerate(group["cells"]):
            _heat_cell(sheet, cell, left + _CELL * place, top, height)
    return sheet


def _heat_cell(sheet: Sheet, cell: Mapping[str, Any], x: float, y: float, height: float) -> None:
    colour = {"ahead": "ported", "behind": "sampled"}.get(cell["way"], "surface")
    sheet.box(x, y, _CELL, height, mixed(colour, _STRONGEST * cell["heat"] / 100))
    sheet.words(x + 8, y + _LINE, cell["lead"], weight="bold")
    for at, (name, value) in enumerate(cell["means"].items()):
        sheet.words(x + 8, y + _LINE * (at + 2), name_of(name))
        sheet.words(x + _CELL - 8, y + _LINE * (at + 2), value, anchor="end")


def _curves(analysis: Analysis, relation: str) -> Sheet:
    groups = [
        (group["title"], [(panel["technique"], panel["svg"]) for panel in group["panels"]])
        for group in sections.curve_groups(analysis)
        if group["relation"] == relation
    ]
    what = f"{analysis.results.rests_on.directed}, by training steps on the receiving host"
    return _panels(_title(analysis, relation), what, groups, columns(analysis))


def _continuation(analysis: Analysis) -> Sheet:
    groups = [
        (group["title"], [(panel["fading"].technique, panel["svg"]) for panel in group["panels"]])
        for group in sections.continuation(analysis)
    ]
    what = "0 is the bare host, 1 the native module"
    title = f"{analysis.results.name}: recovery by further pretraining"
    return _panels(title, what, groups, SHOWN)


def _panels(
    title: str,
    what: str,
    groups: Sequence[tuple[str, Sequence[tuple[str, str]]]],
    conditions: Iterable[str],
) -> Sheet:
    """A line of drawings for every group, each under its name; the conditions' marks at the end."""
    widest = max((len(panels) for _, panels in groups), default=1)
    width, height = svg.WIDTH + _GAP, svg.HEIGHT + 3 * _LINE
    sheet = Sheet(_GAP + width * max(widest, 2), _HEAD + (height + _GAP) * len(groups) + _LEGEND)
    sheet.headed(title, what)
    for line, (group, panels) in enumerate(groups):
        top = _HEAD + (height + _GAP) * line
        sheet.words(_GAP, top + _LINE, group, weight="bold")
        for place, (name, drawing) in enumerate(panels):
            sheet.words(_GAP + width * place, top + 2 * _LINE + 4, name)
            sheet.place(drawing, _GAP + width * place, top + 3 * _LINE, svg.WIDTH)
    _legend(sheet, conditions)
    return sheet


def _differences(analysis: Analysis, relation: str) -> Sheet:
    budget = min(analysis.results.budgets, default=0)
    groups = [
        group
        for view in sections.differences(analysis)
        if view.choices["budget"] == str(budget)
        for group in view.groups
        if group["relation"] == relation
    ]
    lines = sum(1 + max(len(row["items"]), 1) for group in groups for row in group["rows"])
    left, width, right = 110, 330, 290
    height = _HEAD + 2 * _LINE + sections.LANE * (lines + len(groups))
    sheet = Sheet(left + width + right, height)
    metric = analysis.results.rests_on
    what = f"{metric.title}, {minus(metric)} control, {sections.when(budget)}"
    sheet.headed(_title(analysis, relation), what)
    sheet.place(sections.difference_ruler(analysis), left, _HEAD, width)
    y = float(_HEAD + 2 * _LINE)
    for group in groups:
        sheet.words(_GAP, y + 4, group["title"], weight="bold")
        y += sections.LANE
        for row in group["rows"]:
            y = _lead_lines(sheet, row, y, (_GAP, left, left + width + _GAP), width)
    return sheet


def _lead_lines(
    sheet: Sheet, row: Mapping[str, Any], y: float, places: tuple[float, float, float], width: float
) -> float:
    """A technique's leads, drawn and in words; gives back where the next one's begin."""
    label, drawing, words = places
    sheet.words(label, y + _LINE, row["technique"])
    if row["svg"]:
        sheet.place(row["svg"], drawing, y, width)
    for at, item in enumerate(row["items"]):
        told = f"{item['name']} {item['lead']} ({item['span']}), {item['p']}"
        sheet.words(words, y + _LINE + sections.LANE * at, told, colour=item["condition"])
    return y + sections.LANE * (1 + max(len(row["items"]), 1))


def _legend(sheet: Sheet, conditions: Iterable[str]) -> None:
    x, y = float(_GAP), sheet.height - _LEGEND / 2
    for condition in conditions:
        sheet.place(svg.sample(condition), x, y - 6, 34)
        x = sheet.words(x + 40, y + 4, name_of(condition)) + _GAP

"""The results as tables: for the terminal, in Markdown and in LaTeX.

Every table that shows a ported figure shows the bare host, scratch and sampled beside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from peftport.plain import inline, printable
from peftport.reports.answers import Answer, answer_questions
from peftport.reports.compared import Point, Pool
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.continuation import fadings
from peftport.reports.measures import Recovery
from peftport.reports.notes import interval_note, plain_name, ranking_name, shows_plain
from peftport.reports.recorrected import on_test
from peftport.reports.results import CONDITIONS, Results
from peftport.reports.statistics import SURE, Estimate
from peftport.reports.wording import (
    NONE,
    after,
    count,
    figure,
    name_of,
    number,
    recovery_text,
    relation_kind,
    relation_name,
    sentence,
    with_span,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text


_WIDEST = 8
"""Columns that a terminal has room for as they are."""


@dataclass(frozen=True)
class Grid:
    """A table of text: every row is as long as `head`."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def columns(analysis: Analysis) -> tuple[str, ...]:
    """Conditions as tables show them: further controls stand beside the first."""
    place = CONDITIONS.index("sampled") + 1
    return (*CONDITIONS[:place], *analysis.further, *CONDITIONS[place:])


def accuracy_grids(analysis: Analysis, short: bool = False) -> Iterator[Grid]:
    """One table for every pair and setting: technique and budget against conditions.

    Args:
        short: for terminals and Markdown, which are narrow.
    """
    names = columns(analysis)
    head = ("technique", "steps", *(name_of(name) for name in names), "recovery")
    if not short:
        head += _beside_head(analysis)

    def place(point: Point) -> tuple[str, str, str, str]:
        cell = point.cell
        return cell.relation, cell.pair, cell.setting, cell.method

    for (relation, pair, setting, method), points in groupby(analysis.points, key=place):
        how = f", method {method}" if len(analysis.results.methods) > 1 else ""
        yield Grid(
            f"{pair} ({relation_kind(relation)}), {setting}{how}",
            head,
            tuple(
                _short_row(point, names) if short else _row(analysis, point, names)
                for point in points
            ),
        )


def beside_grids(analysis: Analysis) -> Iterator[Grid]:
    """What stands beside the figures that everything rests on at the smallest budget, in short:
    the plain metric (accuracy as answered, without the correction) and the third (AUROC, which no
    threshold touches). One table for every pair and setting."""
    names, results = columns(analysis), analysis.results
    head = ("technique", "figure", *(name_of(name) for name in names), "lift kept")
    budget = min(analysis.results.budgets, default=0)
    points = [point for point in analysis.points if point.budget == budget]
    for place, members in groupby(
        points, key=lambda p: (p.cell.pair, p.cell.setting, p.cell.method)
    ):
        rows = []
        for point in members:
            for figures, name, kept in (
                (point.plain, plain_name(results), point.plain_effect),
                (point.ranking, ranking_name(results), point.effect),
            ):
                share = with_half(_ratio(kept))
                means = (figure(figures.get(condition)) for condition in names)
                rows.append((point.cell.technique, name, *means, share))
        how = f", method {place[2]}" if len(analysis.results.methods) > 1 else ""
        when = "zero-shot" if budget == 0 else after(budget)
        yield Grid(f"{place[0]}, {place[1]}{how}, {when}", head, tuple(rows))


def _beside_head(analysis: Analysis) -> tuple[str, ...]:
    """Columns of what stands beside the figures that everything rests on."""
    results = analysis.results
    plain, ranking = plain_name(results), ranking_name(results)
    third = (f"{ranking}, bare host", f"{ranking}, ported", f"{ranking} lift kept")
    if results.is_corrected:
        return ("bare host as answered", "ported as answered", *third)
    if shows_plain(results):
        return (f"{plain}, bare host", f"{plain}, ported", f"{plain} lift kept", *third)
    return third


def _beside(analysis: Analysis, found: Point) -> tuple[str, ...]:
    """The cells of `_beside_head`."""
    cells: list[str] = []
    both = [(found.plain, found.plain_effect)] if shows_plain(analysis.results) else []
    for figures, kept in (*both, (found.ranking, found.effect)):
        cells += [figure(figures.get(name)) for name in ("host", "ported")]
        if figures is found.ranking or not analysis.results.is_corrected:
            cells.append(with_span(_ratio(kept)))
    return tuple(cells)


def average_grids(analysis: Analysis) -> Iterator[Grid]:
    """Averages over pairs and settings for every relation of hosts, in narrow tables: the figures
    that everything rests on, leads of ported modules, and the metrics that stand beside."""
    pools = [pool for pool in analysis.pools if pool.by == "technique"]
    for (relation, method), members in groupby(pools, key=lambda p: (p.relation, p.method)):
        how = f", method {method}" if len(analysis.results.methods) > 1 else ""
        title = f"{sentence(relation_name(relation))}{how}, all pairs and settings"
        yield from _average_grids(analysis, title, tuple(members))


def _average_grids(analysis: Analysis, title: str, pools: Sequence[Pool]) -> Iterator[Grid]:
    names, results = columns(analysis), analysis.results
    conditions = [name_of(name) for name in names]

    def grid(about: str, head: Sequence[str], row: Callable[[Pool], tuple[str, ...]]) -> Grid:
        rows = tuple((pool.name, str(pool.budget), *row(pool)) for pool in pools)
        return Grid(f"{title}: {about}", ("technique", "steps", *head), rows)

    yield grid(
        results.rests_on.directed,
        (*conditions, "recovery"),
        lambda pool: (*_conditions(pool.means, names), recovery_text(pool.recovery)),
    )
    yield grid(
        f"leads of ported modules (* adjusted p < {SURE})",
        [f"{results.over} {name_of(name)}" for name in analysis.controls],
        lambda pool: tuple(_lead(pool.leads.get(name)) for name in analysis.controls),
    )
    if results.is_corrected:
        yield grid("as answered", conditions, lambda p: (*_conditions(p.plain, names),))
    elif shows_plain(results):
        yield grid(
            results.metrics[results.kind.plain].directed,
            (*conditions, "lift kept"),
            lambda p: (*_conditions(p.plain, names), with_span(_ratio(p.plain_effect))),
        )
    yield grid(
        results.metrics[results.kind.ranking].directed,
        (*conditions, "lift kept"),
        lambda pool: (*_conditions(pool.ranking, names), with_span(_ratio(pool.effect))),
    )


def _conditions(found: Mapping[str, Estimate], names: Sequence[str]) -> Iterator[str]:
    """A figure for each condition, with its interval for the ported modules alone."""
    for name in names:
        yield with_span(found.get(name)) if name == "ported" else figure(found.get(name))


def _ratio(kept: Recovery | None) -> Estimate | None:
    """The share of the native modules' lift that ported ones keep, where there is one."""
    return None if kept is None else kept.ratio


def _lead(found: Estimate | None) -> str:
    """A lead with its interval, and a star where its p-value, adjusted, makes it sure."""
    sure = "*" if found is not None and found.adjusted < SURE else ""
    return with_span(found, sign=True) + sure


def _row(analysis: Analysis, point: Point, names: Sequence[str]) -> tuple[str, ...]:
    means = (with_span(point.means.get(name)) for name in names)
    first = (point.cell.technique, str(point.budget))
    return (*first, *means, recovery_text(point.recovery), *_beside(analysis, point))


def _short_row(point: Point, names: Sequence[str]) -> tuple[str, ...]:
    """A row for terminals, which are narrow: half widths in place of intervals."""
    means = (with_half(point.means.get(name)) for name in names)
    return (point.cell.technique, str(point.budget), *means, with_half(_ratio(point.recovery)))


def with_half(found: Estimate | None) -> str:
    """A figure with half its interval's width: "0.84 ±.03"."""
    if found is None:
        return NONE
    half = (found.high - found.low) / 2
    width = number(half, found.digits).removeprefix("0")
    return number(found.value, found.digits) + (f" ±{width}" if half == half else "")


def summary_line(results: Results) -> str:
    """How much of the study there is, "216 runs done, 2 failed; 3 seeds", and whether its threshold
    is another than usual."""
    parts = [f"{count(len(results.done), 'run')} done"]
    if len(results.failed):
        parts.append(f"{len(results.failed):,} failed")
    missing = missing_rows(results)
    if missing:
        parts.append(f"{missing:,} not run")
    own = "; the threshold is set on the test texts" if on_test(results) else ""
    return f"{', '.join(parts)}; {count(len(results.seeds), 'seed')}{own}"


def missing_rows(results: Results) -> int:
    """Rows that were planned and are neither done nor failed; 0 when no plan is known."""
    planned = (results.facts.get("plan") or {}).get("rows", 0)
    return max(int(planned) - len(results.rows), 0)


def terminal_table(results: Results | Analysis) -> Group:
    """The study for a terminal, made for `rich.console.Console.print`: answers, then tables."""
    from rich.console import Group
    from rich.text import Text

    analysis = analyse(results)
    head = _shown(f"{analysis.results.name}: {summary_line(analysis.results)}")
    head.style = "bold"
    parts: list[Table | Text] = [head]
    grids = [*accuracy_grids(analysis, short=True)]
    if shows_plain(analysis.results):
        grids += beside_grids(analysis)
    for grid in grids:
        parts += [Text(""), _terminal_grid(grid)]
    parts += [Text(""), Text(interval_note(analysis), style="dim"), Text("")]
    for answer in answer_questions(analysis):
        parts.append(Text(answer.question, style="bold"))
        parts += [_shown(f"  {f.about}: {f.short}") for f in answer.findings]
    return Group(*parts)


def _terminal_grid(grid: Grid) -> Table:
    """A table in which a name stands once before all its rows."""
    from rich.table import Table

    table = Table(
        title=_shown(grid.title),
        title_justify="left",
        title_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
    )
    for name in grid.head:
        table.add_column(
            _shown(_narrow(name)),
            no_wrap=True,
            justify="left" if name in ("technique", "figure") else "right",
            style="bold" if name == "ported" else "",
        )
    # With a control more there is room for every digit, and for none of the spaces.
    tight = len(grid.head) > _WIDEST
    before = None
    for name, *cells in grid.rows:
        shown = [cell.replace(" ±", "±") if tight else cell for cell in cells]
        table.add_row(*map(_shown, ("" if name == before else name, *shown)))
        before = name
    return table


def _shown(text: str) -> Text:
    from rich.text import Text

    return Text(printable(text))  # a str would be read as markup


def _narrow(name: str) -> str:
    """A column's name for terminals: on two lines, and a further control by its own name."""
    found = re.fullmatch(r"sampled \((.*)\)", name)
    return found[1].replace(" of ", "\nof ") if found else name.replace(" ", "\n")


def markdown(results: Results | Analysis) -> str:
    """Answers and tables in Markdown."""
    analysis = analyse(results)
    parts = [f"# {inline(analysis.results.name)}", summary_line(analysis.results) + "."]
    parts += [_markdown_answer(answer) for answer in answer_questions(analysis)]
    faded = fadings(analysis)
    if faded:
        lines = [f"- {inline(f'{fading.setting}: {fading.sentence}')}" for fading in faded]
        parts += ["## Further pretraining of the receiving host", "\n".join(lines)]
    parts.append(interval_note(analysis))
    grids = [*average_grids(analysis), *accuracy_grids(analysis, short=True)]
    if shows_plain(analysis.results):
        grids += beside_grids(analysis)
    parts += [f"## {inline(grid.title)}\n\n{_markdown_grid(grid)}" for grid in grids]
    return "\n\n".join(parts) + "\n"


def _markdown_answer(answer: Answer) -> str:
    findings = (
        "\n".join(
            [
                f"**{inline(f'{sentence(f.about)}: {f.short}.')}**\n",
                *(f"- {inline(s)}" for s in f.sentences),
            ]
        )
        for f in answer.findings
    )
    return f"## {answer.question}\n\n" + "\n\n".join(findings)


def _markdown_grid(grid: Grid) -> str:
    lines = [grid.head, tuple("---" for _ in grid.head), *grid.rows]
    return "\n".join(f"| {' | '.join(map(inline, row))} |" for row in lines)


def latex(results: Results | Analysis) -> str:
    """The tables in LaTeX; the document needs the packages booktabs and longtable."""
    analysis = analyse(results)
    return "\n".join(_latex_grid(grid) for grid in accuracy_grids(analysis))


def _latex_grid(grid: Grid) -> str:
    head, *rows = (
        " & ".join(_latex_text(x) for x in row) + r" \\" for row in (grid.head, *grid.rows)
    )
    return "\n".join(
        [
            rf"\begin{{longtable}}{{l{'r' * (len(grid.head) - 2)}l}}",
            rf"\caption{{{_latex_text(grid.title)}}} \\",
            r"\toprule",
            head,
            r"\midrule",
            r"\endhead",
            *rows,
            r"\bottomrule",
            r"\end{longtable}",
            "",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "→": r"$\rightarrow$",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{INFINITY}": r"$\infty$",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in printable(" ".join(text.split())))

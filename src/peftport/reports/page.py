"""The report as one HTML page that needs nothing beside itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from peftport import __version__
from peftport.files import write_atomic
from peftport.kind import Kind
from peftport.progress import duration
from peftport.reports import sections, svg
from peftport.reports.answers import answer_questions
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.continuation import SHOWN
from peftport.reports.notes import minus, shows_plain
from peftport.reports.results import Results
from peftport.reports.rows import number_columns, word_columns
from peftport.reports.statistics import SURE
from peftport.reports.tables import (
    columns,
    interval_note,
    latex,
    markdown,
    missing_rows,
    summary_line,
)
from peftport.reports.wording import (
    count,
    figure,
    listed,
    name_of,
    number,
    sentence,
    span,
    with_span,
)


def run_columns(kind: Kind) -> tuple[str, ...]:
    """What the table of all runs shows of a study of this kind."""
    agreement = ("agreement",) if kind.of_classes else ()
    return (
        "status", "condition", "technique", "method", "control", "origin", "receiver", "relation",
        "origin_task", "task", "budget", "seed", *kind.metrics, *agreement, "n_test",
        "train_seconds", "run_id", "error",
    )  # fmt: skip


FILTERS = ("status", "condition", "technique", "origin", "receiver", "task", "budget", "seed")
_SHORT_ID = 12


def write_report(results: Results | Analysis, folder: Path) -> Path:
    """Write `folder`/index.html, results.md and results.tex; give back the path of the page.

    Every file is written whole or not at all, the page last; what was there is replaced.
    """
    analysis = analyse(results)
    write_atomic(folder / "results.md", markdown(analysis).encode())
    write_atomic(folder / "results.tex", latex(analysis).encode())
    page = folder / "index.html"
    write_atomic(page, render(analysis).encode())
    return page


def render(results: Results | Analysis) -> str:
    """The page as HTML."""
    analysis = analyse(results)
    return _environment().get_template("page.html.jinja").render(_context(analysis))


@cache
def _environment() -> Environment:
    """The templates, with what they call; each is compiled once a process."""
    environment = Environment(
        loader=PackageLoader("peftport.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure, "interval": with_span, "number": number, "condition": name_of,
        "many": count, "duration": duration, "sample": svg.sample, "sentence": sentence,
        "span": span,
    }  # fmt: skip
    return environment


def _context(analysis: Analysis) -> dict[str, Any]:
    results = analysis.results
    return {
        "name": results.name,
        "version": __version__,
        "summary": summary_line(results),
        "note": interval_note(analysis),
        "conditions": columns(analysis),
        "controls": analysis.controls,
        "first_control": " or ".join(
            dict.fromkeys(n for c in results.cells for n in results.controls(c)[:1])
        ),
        "sure": SURE,
        "smallest": sections.when(min(results.budgets, default=0)),
        "answers": answer_questions(analysis),
        "glance": sections.glance(analysis),
        "techniques": list(dict.fromkeys(cell.technique for cell in results.cells)),
        "heat": sections.heat_map(analysis),
        "curves": sections.curve_groups(analysis),
        "continuation": sections.continuation(analysis),
        "continuation_conditions": SHOWN,
        "differences": sections.differences(analysis),
        "difference_ruler": sections.difference_ruler(analysis),
        "kept": sections.kept_cells(analysis),
        "measures": sections.measures(analysis),
        "explained": sections.explained(analysis),
        "run_columns": run_columns(results.kind),
        "runs": _script_data(results),
        "runs_count": len(results.rows),
        "has_predictions": results.has_predictions,
        **_metrics(analysis),
        "is_corrected": results.is_corrected,
        "missing": missing_rows(results),
        "holes": list(_holes(analysis)),
        "failures": _failures(results),
        "hosts": _records(results.facts.get("hosts")),
        "tasks": _records(results.facts.get("tasks")),
        "versions": dict(results.facts.get("versions") or {}),
        "plan": dict(results.facts.get("plan") or {}),
        "durations": dict(results.facts.get("durations") or {}),
        "spec": _spec(results.facts.get("spec")),
    }


def _metrics(analysis: Analysis) -> dict[str, Any]:
    """What the page says of the study's metrics."""
    results = analysis.results
    kind, metric = results.kind, results.rests_on
    plain, ranking = results.metrics[kind.plain], results.metrics[kind.ranking]
    return {
        "metric": metric.title,
        "directed": metric.directed,
        "minus": minus(metric),
        "above": "above" if metric.better == "higher" else "below",
        "worth": f"{metric.worth:g}",
        "full_heat": number(sections.full_heat(analysis), max(2, metric.digits)),
        "of_classes": kind.of_classes,
        "shows_plain": shows_plain(results),
        "plain": plain.directed,
        "ranking": ranking.directed,
        "ranks_by_area": kind.ranking == "auroc",
        "judged": any(p.flips for p in analysis.points) or kind.of_classes,
        "others": listed([each.title for each in sections.other_measures(analysis).values()]),
    }


def _records(found: Any) -> tuple[list[str], list[list[str]]]:
    """Mappings as a table: the keys of all, and a row for each."""
    records: list[Mapping[str, Any]] = list(found or ())
    keys = list(dict.fromkeys(key for record in records for key in record))
    return keys, [[_plain(record.get(key, "")) for key in keys] for record in records]


def _plain(value: Any) -> str:
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)


def _spec(spec: Any) -> str:
    if not spec:
        return ""
    return spec if isinstance(spec, str) else json.dumps(spec, indent=2, ensure_ascii=False)


def _failures(results: Results) -> list[dict[str, Any]]:
    """Failed runs by their error, the commonest first, with one run of each to look up."""
    failed = results.failed
    groups = [
        {"error": error or "no figures and no reason", "runs": len(rows), "example": rows.iloc[0]}
        for error, rows in failed.groupby("error", sort=True)
    ]
    return sorted(groups, key=lambda group: -int(group["runs"]))


def _holes(analysis: Analysis) -> Iterator[str]:
    """Cells that lack a condition or seeds, in words."""
    everything = len(analysis.results.seeds)
    for point in analysis.points:
        lacking = []
        for name, found in point.means.items():
            seeds = found.seeds if found is not None else 0
            if seeds < everything and not (name == "host" and seeds):
                lacking.append(f"{name_of(name)} {seeds} of {count(everything, 'seed')}")
        if lacking:
            cell = point.cell
            when = sections.when(point.budget)
            yield f"{cell.technique}, {cell.pair}, {cell.setting}, {when}: {'; '.join(lacking)}"


def _script_data(results: Results) -> str:
    """The runs for the page's script: columns, words once, and rows of places and numbers."""
    rows = results.rows.assign(run_id=results.rows["run_id"].str[:_SHORT_ID])
    words: dict[str, int] = {}
    data: dict[str, list[Any]] = {}
    columns, texts = run_columns(results.kind), word_columns(results.kind)
    numbers = number_columns(results.kind)
    for name in columns:
        if name in texts:
            data[name] = [words.setdefault(value, len(words)) for value in rows[name]]
        elif name in numbers:
            data[name] = [None if pd.isna(v) else round(float(v), 4) for v in rows[name]]
        else:
            data[name] = [int(value) for value in rows[name]]
    found = {
        "columns": columns,
        "texts": [name for name in columns if name in texts],
        "filters": FILTERS,
        "words": list(words),
        "data": data,
    }
    text = json.dumps(found, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c")

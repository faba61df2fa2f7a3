"""`peftport assess`: what survives of one module on one host, beside its controls."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.cli.arguments import (
    Device,
    LabelWords,
    LimitTest,
    ModuleFolder,
    TaskName,
    ToHost,
    load_on,
)
from peftport.cli.modules import FromHost, NoPickle, made_for, with_task
from peftport.cli.output import AsJson, parse_numbers, say, show

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.modules import Record


def assess(
    module: ModuleFolder,
    to: ToHost,
    task: TaskName,
    budgets: Annotated[
        str, typer.Option(help="Training steps on the receiving host, joined by commas.")
    ] = "0,10,100",
    seeds: Annotated[int, typer.Option(min=1, help="How many.")] = 3,
    native_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of a native module; the module's own if not given."),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(
            help="One for all conditions, or several, of which each condition takes the best on "
            "the validation split. The module's own if not given.",
        ),
    ] = None,
    relation: Annotated[
        str | None,
        typer.Option(help="same, continuation or independent, where peftport cannot know."),
    ] = None,
    limit_test: LimitTest = None,
    label_words: LabelWords = None,
    device: Device = None,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Show what survives of MODULE on a host: bare host, copy, samplings, scratch, native."""
    import pandas as pd

    from peftport.modules import load_module
    from peftport.reports.results import Results
    from peftport.studies.assess import Assessment
    from peftport.training import Settings

    donor = load_module(module, from_host=from_host, pickles=not no_pickle)
    steps = parse_numbers(budgets, "--budgets", int)
    trained = donor.record.training
    host = load_on(to, device)
    donor, data = with_task(donor, task, label_words, limit_test)
    rates = (
        parse_numbers(learning_rates, "--learning-rates", float)
        if learning_rates
        else [trained.get("learning_rate", 3e-3)]
    )
    assessment = Assessment(
        donor,
        host,
        data,
        relation or relation_of(donor.record, host),
        steps,
        range(seeds),
        native_steps or max(trained.get("steps", 0), *steps, 1),
        rates,
        Settings(batch_size=trained.get("batch_size", 16)),
    )
    say(f"{donor.technique}, {seeds} seeds, budgets {budgets}, tested on {data.name} ...")
    found, chosen = assessment.run()
    results = Results(pd.DataFrame(found.rows), found.predictions, found.gold, {"study": "assess"})
    record = _record(results, donor.record, assessment, chosen)
    show(record, _text(record), as_json)


def relation_of(record: Record, host: Host) -> str:
    """How the module's host is related to another, as far as their records tell."""
    from peftport.files import read_json
    from peftport.hosts import lab

    if made_for(record, host):
        return "same"
    names = record.host.name, host.name
    if all(name.startswith("lab:") for name in names):
        return lab.relation(*(name.removeprefix("lab:") for name in names))
    kept: Path = host.folder / "peftport_host.json"
    made = read_json(kept) if kept.is_file() else {}
    if (made.get("from") or {}).get("fingerprint") == record.host.fingerprint:
        return "continuation"
    return "unstated"


def _record(results: Any, record: Record, assessment: Any, rates: dict[str, float]) -> Any:
    """Everything that was found, JSON-ready."""
    from peftport.reports.comparisons import analyse
    from peftport.reports.verdict import verdict

    analysis = analyse(results)
    (cell,) = results.cells
    points = [analysis.point(cell, budget) for budget in results.budgets]
    return {
        "technique": record.technique,
        "origin": record.host.name,
        "receiver": assessment.host.name,
        "relation": assessment.relation,
        "task": assessment.task.name,
        "n_test": len(next(iter(results.gold.values()))),
        "seeds": len(assessment.seeds),
        "native_steps": assessment.native_steps,
        "learning_rates": rates,
        "budgets": [
            {
                "budget": point.budget,
                "accuracy": {n: _estimate(e) for n, e in _named(results, point.means).items()},
                "auroc": {
                    name: analysis.measure(cell, condition, point.budget, "auroc")
                    for name, condition in zip(
                        _named(results, point.means), point.means, strict=True
                    )
                },
                "ported_minus": {n: _estimate(e) for n, e in _named(results, point.leads).items()},
                "recovery": _estimate(point.recovery.ratio) if point.recovery else None,
                "recovery_note": point.recovery.reason if point.recovery else "",
            }
            for point in points
        ],
        "head_alone_accuracy": assessment.head_alone(),
        "failures": results.failed["error"].tolist(),
        "verdict": verdict(analysis),
    }


def _named(results: Any, by_condition: Any) -> dict[str, Any]:
    """Conditions by the names of this command: samplings by their own, the port as `copy`."""
    first = results.controls[0] if results.controls else "sampled"
    names = {"sampled": first, "ported": "copy"}
    return {names.get(condition, condition): found for condition, found in by_condition.items()}


def _estimate(found: Any) -> dict[str, float | None] | None:
    from math import isnan

    if found is None or isnan(found.value):
        return None
    low, high = (None if isnan(end) else end for end in (found.low, found.high))
    return {"mean": found.value, "low": low, "high": high}


_ROWS = ("host", "gaussian", "permuted", "spectrum", "scratch", "copy", "native")


def _text(record: dict[str, Any]) -> str:
    budgets = record["budgets"]
    head = [f"{each['budget']} steps".rjust(22) for each in budgets]
    lines = [
        f"{record['technique']} from {record['origin']} to {record['receiver']} "
        f"({record['relation']}), {record['task']}: accuracy on {record['n_test']} texts, "
        f"{record['seeds']} seeds, 95 % interval",
        "",
        f"{'':<10}" + "".join(head),
    ]
    for name in _ROWS:
        cells = [_cell(each["accuracy"].get(name)) for each in budgets]
        if any(cell.strip() for cell in cells):
            lines.append(f"{name:<10}" + "".join(cells))
    lines.append(f"{'recovery':<10}" + "".join(_cell(each["recovery"]) for each in budgets))
    notes = sorted({each["recovery_note"] for each in budgets} - {""})
    lines += [f"  no recovery: {note}" for note in notes]
    lines.append(f"  native: {record['native_steps']} steps; bare host: no training")
    if record["head_alone_accuracy"] is not None:
        alone = record["head_alone_accuracy"]
        lines.append(f"  the module's head alone, without the rest: {alone:.3f}")
    return "\n".join([*lines, "", record["verdict"]])


def _cell(found: dict[str, float | None] | None) -> str:
    if found is None:
        return f"{'-':>22}"
    if found["low"] is None:
        return f"{found['mean']:>22.3f}"
    interval = f"({found['low']:.2f} to {found['high']:.2f})"
    return f"{found['mean']:.3f} {interval}".rjust(22)

"""What an assessment found: as one object, and as the tables that are printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftport.reports.comparisons import Analysis
    from peftport.reports.results import Cell, Results
    from peftport.studies.assess import Assessment, Outcome

Cells = Mapping[str, "Cell"]
Figure = Mapping[str, "float | None"] | None


def record_of(
    results: Results,
    assessment: Assessment,
    outcome: Outcome,
    modules: int,
    fail_under: float | None = None,
) -> dict[str, Any]:
    """Everything that was found, JSON-ready; figures are means with their 95 % intervals.

    Args:
        fail_under: the recovery at the smallest budget that some method has to reach.
    """
    from peftport.reports.comparisons import analyse
    from peftport.reports.decision import decide
    from peftport.reports.verdict import verdict

    analysis = analyse(results)
    order = {each.written: place for place, each in enumerate(assessment.ways)}
    cells = {cell.method: cell for cell in sorted(results.cells, key=lambda c: order[c.method])}
    some = next(iter(cells.values()))
    decision = decide(analysis)
    budgets = [_budget(analysis, cells, budget) for budget in results.budgets]
    return {
        "technique": some.technique,
        "origin": some.origin,
        "receiver": some.receiver,
        "relation": some.relation,
        "task": some.task,
        "n_test": len(next(iter(results.gold.values()))),
        "modules": modules,
        "seeds": len(assessment.seeds),
        "native_steps": assessment.native_steps,
        "metric": results.metric,
        "corrected_on": assessment.trial.corrected_on,
        "learning_rates": outcome.rates,
        "texts": {"count": len(assessment.texts), "source": assessment.source},
        "methods": {name: _method(analysis, cell, outcome) for name, cell in cells.items()},
        "controls": list(results.controls),
        "refused": outcome.refused,
        "budgets": budgets,
        "head_alone_accuracy": assessment.head_alone(),
        "failures": results.failed["error"].tolist(),
        "verdicts": {name: verdict(analysis, name) for name in cells},
        "decision": asdict(decision) | {"text": decision.text},
        "gate": _gate(budgets[0], fail_under),
    }


def _gate(first: Mapping[str, Any], fail_under: float | None) -> dict[str, Any] | None:
    """Whether some method recovers enough; None where nothing was asked."""
    if fail_under is None:
        return None
    found = {name: port["recovery"] for name, port in first["ports"].items()}
    known = {name: kept["mean"] for name, kept in found.items() if kept}
    best = max(known, key=known.__getitem__, default=None)
    return {
        "fail_under": fail_under,
        "method": best,
        "recovery": known[best] if best else None,
        "passed": best is not None and known[best] >= fail_under,
    }


def _method(analysis: Analysis, cell: Cell, outcome: Outcome) -> dict[str, Any]:
    """What a method's ports took, in the mean, and where a module from scratch is after as many
    steps as the method itself trains."""
    from peftport.reports.statistics import estimate

    cost, scratch = outcome.costs[cell.method], None
    series = analysis.results.series(cell, "scratch", cost.steps) if cost.steps else None
    if series is not None:
        accuracy = _estimate(estimate(series).within(0, 1))
        auroc = analysis.measure(cell, "scratch", cost.steps, "auroc")
        scratch = {"accuracy": accuracy, "auroc": auroc}
    return {
        "seconds": fmean(cost.seconds) if cost.seconds else None,
        "peak_memory_bytes": fmean(cost.memory) if cost.memory else None,
        "steps": cost.steps,
        "scratch_after_as_many_steps": scratch,
    }


def _budget(analysis: Analysis, cells: Cells, budget: int) -> dict[str, Any]:
    """One budget: figures by name, and of each port its leads and what it keeps."""
    read = {"accuracy": "means", "as_answered": "plain", "auroc": "ranking"}
    figures: dict[str, dict[str, Figure]] = {name: {} for name in read}
    ports: dict[str, dict[str, Any]] = {}
    for name, cell in cells.items():
        point = analysis.point(cell, budget)
        for key, attribute in read.items():
            for condition, found in getattr(point, attribute).items():
                figures[key][_label(analysis.results, condition, name)] = _estimate(found)
        kept, effect = point.recovery, point.effect
        ports[name] = {
            "minus": {
                _label(analysis.results, c, name): _estimate(e) for c, e in point.leads.items()
            },
            "recovery": _estimate(kept.ratio) if kept else None,
            "recovery_note": kept.reason if kept else "",
            "auroc_lift": _estimate(effect.points) if effect else None,
            "auroc_lift_kept": _estimate(effect.ratio) if effect else None,
            "agreement": point.agreement,
            "only_threshold": point.only_threshold,
        }
    return {"budget": budget, **figures, "ports": ports}


def _label(results: Results, condition: str, method: str) -> str:
    """Samplings and ports go by their own names."""
    sampling = results.controls[0] if results.controls else "sampled"
    return {"sampled": sampling, "ported": method}.get(condition, condition)


def _estimate(found: Any) -> dict[str, float | None] | None:
    if found is None or isnan(found.value):
        return None
    low, high = (None if isnan(end) else end for end in (found.low, found.high))
    return {"mean": found.value, "low": low, "high": high}


def assessment_text(record: Mapping[str, Any]) -> str:
    """The tables: accuracy, recovery, AUROC, and what the ports took."""
    methods = list(record["methods"])
    runs = f"{record['seeds']} seeds"
    if record["modules"] > 1:
        runs = f"{record['modules']} modules, a seed each"
    rows = ["host", *record["controls"], "scratch", *methods, "native"]
    corrected = record["metric"] == "corrected_accuracy"
    lines = [
        f"{record['technique']} from {record['origin']} to {record['receiver']} "
        f"({record['relation']}), {record['task']}: {record['n_test']} test texts, {runs}, 95 % "
        "intervals",
        "",
        *_table(record, "corrected" if corrected else "accuracy", rows, _read("accuracy")),
        f"native: {record['native_steps']} steps; host: no module",
        _on_what(record["corrected_on"]) if corrected else _NOT_CORRECTED,
        "",
        *_table(record, "recovery", methods, _read_port("recovery")),
        *_notes(record),
        "",
        *(_table(record, "as answered", rows, _read("as_answered")) if corrected else ()),
        "",
        *_table(record, "AUROC", rows, _read("auroc")),
        *_table(record, "of its lift", methods, _read_port("auroc_lift_kept")),
        "",
        *_agreement(record),
        *_costs(record),
    ]
    if record["head_alone_accuracy"] is not None:
        alone = record["head_alone_accuracy"]
        lines.append(f"the module's head alone, without the rest: accuracy {alone:.3f}")
    lines += [f"{name} cannot: {why}" for name, why in record["refused"].items()]
    lines += ["", *record["verdicts"].values(), "", f"Action: {record['decision']['text']}"]
    return "\n".join([*lines, *_gate_text(record["gate"])])


_NOT_CORRECTED = "accuracy as answered: the task has too few training texts for the correction"


def _on_what(texts: int) -> str:
    return (
        f"corrected: classes answered equally often on {texts} training texts without their "
        "labels, the bare host's like all others'"
    )


def _read(key: str) -> Callable[[Mapping[str, Any], str], Figure]:
    return lambda each, name: each[key].get(name)


def _read_port(key: str) -> Callable[[Mapping[str, Any], str], Figure]:
    return lambda each, name: each["ports"][name][key]


def _agreement(record: Mapping[str, Any]) -> list[str]:
    """How far ports answer as their donors do."""
    first = record["budgets"][0]
    known = {name: p["agreement"] for name, p in first["ports"].items()}
    said = [f"{name} {kappa:.2f}" for name, kappa in known.items() if kappa is not None]
    if not said:
        return []
    return [f"agreement with the donor on unlabelled texts (kappa): {', '.join(said)}"]


def _gate_text(gate: Mapping[str, Any] | None) -> list[str]:
    if gate is None:
        return []
    found = "no recovery" if gate["recovery"] is None else f"recovery {gate['recovery']:.2f}"
    by = f" by {gate['method']}" if gate["method"] else ""
    verb = "passed" if gate["passed"] else "NOT passed"
    return [f"Gate {verb}: {found}{by}, asked for {gate['fail_under']:g}."]


def _table(
    record: Mapping[str, Any],
    title: str,
    rows: Sequence[str],
    read: Callable[[Mapping[str, Any], str], Figure],
) -> list[str]:
    """A line for every row that has a figure, a column for every budget."""
    wide = _width(record)
    head = "".join(f"{each['budget']} steps".rjust(22) for each in record["budgets"])
    lines = [f"{title:<{wide}}{head}"]
    for name in rows:
        found = [read(each, name) for each in record["budgets"]]
        if any(figure is not None for figure in found):
            lines.append(f"{name:<{wide}}" + "".join(map(_cell, found)))
    return lines if len(lines) > 1 else []


def _notes(record: Mapping[str, Any]) -> list[str]:
    """Why there is no recovery where there is none."""
    notes = {port["recovery_note"] for each in record["budgets"] for port in each["ports"].values()}
    return [f"no recovery: {note}" for note in sorted(notes - {""})]


def _costs(record: Mapping[str, Any]) -> list[str]:
    """What one port took, with the training that a method does itself."""
    wide = _width(record)
    lines = [f"{'a port takes':<{wide}}{'seconds':>12}{'peak memory':>14}"]
    for name, cost in record["methods"].items():
        if cost["seconds"] is None:
            continue
        line = f"{name:<{wide}}{cost['seconds']:>12.1f}{_bytes(cost['peak_memory_bytes']):>14}"
        scratch = cost["scratch_after_as_many_steps"]
        if scratch:
            line += f"   {cost['steps']} steps; scratch after as many: "
            line += _cell(scratch["accuracy"]).strip()
        lines.append(line)
    texts = record["texts"]
    if texts["count"]:
        lines.append(f"looked at, without labels: {texts['count']} texts of {texts['source']}")
    return lines


def _width(record: Mapping[str, Any]) -> int:
    return max(map(len, ("a port takes", *record["methods"], *record["controls"]))) + 1


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _cell(found: Figure) -> str:
    if found is None:
        return f"{'-':>22}"
    if found["low"] is None:
        return f"{found['mean']:>22.3f}"
    return f"{found['mean']:.3f} ({found['low']:.2f} to {found['high']:.2f})".rjust(22)

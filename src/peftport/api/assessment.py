"""What an assessment found: as one object, and as the tables that are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING, Any

from peftport.kind import Kind, kind_named

if TYPE_CHECKING:
    from peftport.reports.comparisons import Analysis
    from peftport.reports.measures import Recovery
    from peftport.reports.results import Cell, Results
    from peftport.studies.assess import Assessment, Findings

Cells = Mapping[str, "Cell"]
Figure = Mapping[str, "float | None"] | None
_OWN = "own"
"""A metric of the user's, by a function that was named; only some kinds have it."""


def assessment_record(
    results: Results,
    assessment: Assessment,
    outcome: Findings,
    modules: int,
    fail_under: float | None = None,
) -> dict[str, Any]:
    """Everything that was found, JSON-ready; figures are means with their 95 % intervals.

    Args:
        fail_under: the recovery at the smallest budget that some method has to reach.
    """
    from peftport.reports.comparisons import analyse
    from peftport.reports.decision import decide
    from peftport.reports.wording import count

    analysis = analyse(results)
    order = {each.written: place for place, each in enumerate(assessment.ways)}
    cells = {cell.method: cell for cell in sorted(results.cells, key=lambda c: order[c.method])}
    some = next(iter(cells.values()))
    native = f"a native module of {count(assessment.native_steps, 'step')}"
    decision = decide(analysis, assessment.task.left_out("test"), native)
    told = asdict(decision) | {"text": decision.text}
    verdicts = told.pop("verdicts")
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
        "kind": results.kind.name,
        "metric": results.metric,
        "corrected_on": assessment.trial.corrected_on,
        "learning_rates": outcome.rates,
        "texts": {"count": len(assessment.texts), "source": assessment.source},
        "methods": {name: _method(analysis, cell, outcome) for name, cell in cells.items()},
        "controls": list(results.controls(some)),
        "refused": outcome.refused,
        "budgets": budgets,
        "head_alone_accuracy": assessment.head_alone(),
        "failures": results.failed["error"].tolist(),
        "verdicts": {name: verdicts[name] for name in cells},
        "decision": told,
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


def _method(analysis: Analysis, cell: Cell, outcome: Findings) -> dict[str, Any]:
    """What a method's ports took, in the mean, and where a module from scratch is after as many
    steps as the method itself trains."""
    from peftport.reports.statistics import level
    from peftport.reports.summaries import keys

    cost, scratch = outcome.costs[cell.method], None
    series = analysis.results.series(cell, "scratch", cost.steps) if cost.steps else None
    if series is not None:
        primary, _, ranking = keys(analysis.results.kind)
        third = analysis.measure(cell, "scratch", cost.steps, ranking)
        scratch = {primary: _estimate(level(series)), ranking: third}
    return {
        "seconds": fmean(cost.seconds) if cost.seconds else None,
        "peak_memory_bytes": fmean(cost.memory) if cost.memory else None,
        "steps": cost.steps,
        "scratch_after_as_many_steps": scratch,
    }


def _budget(analysis: Analysis, cells: Cells, budget: int) -> dict[str, Any]:
    """One budget: figures by name, and of each port its leads and what it keeps."""
    from peftport.reports.summaries import keys

    kind = analysis.results.kind
    read = dict(zip(keys(kind), ("means", "plain", "ranking"), strict=True))
    figures: dict[str, dict[str, Figure]] = {name: {} for name in read}
    ports: dict[str, dict[str, Any]] = {}
    for name, cell in cells.items():
        point = analysis.point(cell, budget)
        for key, attribute in read.items():
            for condition, found in getattr(point, attribute).items():
                figures[key][_label(analysis, cell, condition)] = _estimate(found)
        kept = point.recovery
        ports[name] = {
            "minus": {_label(analysis, cell, c): _estimate(e) for c, e in point.leads.items()},
            "recovery": _estimate(kept.ratio) if kept else None,
            "recovery_note": kept.reason if kept else "",
            **_lift(kind.ranking, point.effect),
        }
        if kind.of_classes:
            ports[name]["agreement"] = point.agreement
            ports[name]["only_threshold"] = point.only_threshold
        else:
            ports[name] |= _lift(kind.plain, point.plain_effect)
    if _OWN in kind.metrics and (own := _own(analysis, cells, budget)):
        figures[_OWN] = own
    return {"budget": budget, **figures, "ports": ports}


def _own(analysis: Analysis, cells: Cells, budget: int) -> dict[str, Figure]:
    """The user's own metric by condition; empty where no function was named."""
    from peftport.reports.statistics import level

    return {
        _label(analysis, cell, condition): _estimate(level(series))
        for name, cell in cells.items()
        for condition, series in analysis.series(cell, budget, _OWN).items()
        if series is not None
    }


def _lift(metric: str, kept: Recovery | None) -> dict[str, Figure]:
    """What a port gains over the bare host by another metric, and the share of the native lift."""
    return {
        f"{metric}_lift": _estimate(kept.points) if kept else None,
        f"{metric}_lift_kept": _estimate(kept.ratio) if kept else None,
    }


def _label(analysis: Analysis, cell: Cell, condition: str) -> str:
    """Samplings and ports go by their own names."""
    sampling = next(iter(analysis.results.controls(cell)), "sampled")
    return {"sampled": sampling, "ported": cell.method}.get(condition, condition)


def _estimate(found: Any) -> dict[str, float | None] | None:
    if found is None or isnan(found.value):
        return None
    low, high = (None if isnan(end) else end for end in (found.low, found.high))
    return {"mean": found.value, "low": low, "high": high}


def assessment_text(record: Mapping[str, Any]) -> str:
    """The tables: figures, recovery, what stands beside them, and what the ports took."""
    from peftport.reports.summaries import keys
    from peftport.reports.wording import count

    kind = kind_named(record["kind"])
    primary, plain, ranking = keys(kind)
    methods = list(record["methods"])
    runs = count(record["seeds"], "seed")
    if record["modules"] > 1:
        runs = f"{record['modules']} modules, a seed each"
    rows = ["host", *record["controls"], "scratch", *methods, "native"]
    corrected = record["metric"] == "corrected_accuracy"
    lines = [
        f"{_where(record)}, {record['task']}: {record['n_test']} test texts, {runs}, 95 % "
        "intervals",
        "",
        *_table(record, _title(kind, record["metric"]), rows, primary),
        f"native: {count(record['native_steps'], 'step')}; host: no module",
        *_on_what(kind, record),
        "",
        *_table(record, "recovery", methods, "recovery", of_ports=True),
        *_notes(record),
        "",
        *(_table(record, "as answered", rows, plain) if corrected else ()),
        *(_beside(record, kind.plain, rows, methods) if not kind.of_classes else ()),
        "",
        *_beside(record, ranking, rows, methods),
        *(
            _table(record, kind.metrics[_OWN].title, rows, _OWN)
            if _OWN in record["budgets"][0]
            else ()
        ),
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


def _where(record: Mapping[str, Any]) -> str:
    if record["relation"] == "same":
        return f"{record['technique']} on its own host {record['receiver']}"
    return (
        f"{record['technique']} from {record['origin']} to {record['receiver']} "
        f"({record['relation']})"
    )


_NOT_CORRECTED = "accuracy as answered: the task has too few training texts for the correction"


def _title(kind: Kind, metric: str) -> str:
    """What the first table is of."""
    if kind.of_classes:
        return "corrected" if metric == kind.primary else "accuracy"
    return kind.metrics[metric].title


def _beside(
    record: Mapping[str, Any], metric: str, rows: Sequence[str], methods: Sequence[str]
) -> list[str]:
    """Another metric, and the share of the native module's lift that ports keep."""
    title = kind_named(record["kind"]).metrics[metric].title
    return [
        *_table(record, title, rows, metric),
        *_table(record, "of its lift", methods, f"{metric}_lift_kept", of_ports=True),
    ]


def _on_what(kind: Kind, record: Mapping[str, Any]) -> list[str]:
    """What the figures are."""
    if not kind.of_classes:
        metric = kind.metrics[record["metric"]]
        return [f"{metric.title}: {metric.better} is better"]
    if record["metric"] != kind.primary:
        return [_NOT_CORRECTED]
    return [
        f"corrected: classes answered equally often on {record['corrected_on']} training texts "
        "without their labels, the bare host's like all others'"
    ]


def _agreement(record: Mapping[str, Any]) -> list[str]:
    """How far ports answer as their donors do."""
    first = record["budgets"][0]
    known = {name: p.get("agreement") for name, p in first["ports"].items()}
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
    key: str,
    of_ports: bool = False,
) -> list[str]:
    """A line for every row that has a figure, a column for every budget.

    Args:
        key: of the figures; of those of the ports' own if so.
    """
    wide, digits = _width(record), _digits(record, key)
    head = "".join(f"{each['budget']} steps".rjust(22) for each in record["budgets"])
    lines = [f"{title:<{wide}}{head}"]
    for name in rows:
        found = [
            each["ports"][name][key] if of_ports else each[key].get(name)
            for each in record["budgets"]
        ]
        if any(figure is not None for figure in found):
            lines.append(f"{name:<{wide}}" + "".join(_cell(figure, digits) for figure in found))
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
            key = next(iter(scratch))
            line += _cell(scratch[key], _digits(record, key)).strip()
        lines.append(line)
    texts = record["texts"]
    if texts["count"]:
        lines.append(f"looked at, without labels: {texts['count']} texts of {texts['source']}")
    return lines


def _width(record: Mapping[str, Any]) -> int:
    return max(map(len, ("a port takes", *record["methods"], *record["controls"]))) + 1


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _digits(record: Mapping[str, Any], key: str) -> int:
    """Decimals of an interval's ends; the figure itself has one more."""
    metrics = kind_named(record["kind"]).metrics
    return metrics[key].digits if key in metrics else 2


def _cell(found: Figure, digits: int) -> str:
    if found is None:
        return f"{'-':>22}"
    mean = f"{found['mean']:.{digits + 1}f}"
    if found["low"] is None:
        return f"{mean:>22}"
    return f"{mean} ({found['low']:.{digits}f} to {found['high']:.{digits}f})".rjust(22)

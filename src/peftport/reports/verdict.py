"""One line in words on whether to port a module to a host."""

from __future__ import annotations

from peftport.reports.compared import Point
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.decision import HALF_KEPT, THRESHOLD
from peftport.reports.results import Results
from peftport.reports.statistics import Estimate
from peftport.reports.wording import (
    after,
    count,
    figure,
    listed,
    name_of,
    sentence,
    span,
    with_span,
)

WELL_KEPT = 0.8
"""A recovery from which on a module is ported as it is, when its interval reaches no lower
than `HALF_KEPT`, which is also how far the interval of a recovery that may be 0 may reach before
nothing can be said."""
LITTLE_KEPT = 0.2
"""A recovery whose interval ends below this is not worth a port."""


def verdict(results: Results | Analysis, method: str | None = None) -> str:
    """Say in one line what an assessment found at its smallest budget, and what to do.

    Args:
        results: of one module, one host and one task; of several cells, the first is judged.
        method: the port method; the first one by default.
    """
    analysis = analyse(results)
    cells = [cell for cell in analysis.results.cells if method in (None, cell.method)]
    if not cells:
        return "Not known: no ported module was run."
    points = [analysis.point(cells[0], budget) for budget in analysis.results.budgets]
    done = [point for point in points if point.means["ported"] is not None]
    if not done:
        failed = analysis.results.failed
        errors = failed.loc[failed["condition"] == "ported", "error"]
        why = f" ({errors.iloc[0]})" if len(errors) else ""
        return f"Not known: no ported run is done{why}."
    what = "Copying" if cells[0].method == "copy" else f"Porting by {cells[0].method}"
    return _judge(what, done[0], done[-1], analysis.results)


def _judge(what: str, first: Point, last: Point, results: Results) -> str:
    when = "" if first.budget == 0 else f" {after(first.budget)}"
    kept = first.recovery
    if kept is None:
        return f"Not known: {what.lower()} cannot be judged without the bare host beside it."
    if kept.ratio is None and first.only_threshold:
        return f"{what} keeps nothing of the module{when}: {THRESHOLD}."
    if kept.ratio is None:
        return (
            f"No verdict: {kept.reason}. {what} gives {figure(kept.points, sign=True)} "
            f"{results.over} the bare host{when}{_evidence(kept.points, sign=True)}."
        )
    evidence = _evidence(kept.ratio)
    instead = _better_start(last) or "train anew"
    if first.only_threshold:
        return (
            f"{what} keeps nothing of the module{when}: recovery {figure(kept.ratio)}{evidence}. "
            f"{sentence(THRESHOLD)}: {instead}, or use the bare host with the correction."
        )
    share = f"recovery {figure(kept.ratio)}"
    if kept.ratio.below_zero:
        return f"{what} does harm here{when}: {share}{evidence}; {instead}."
    if not kept.ratio.above_zero and kept.ratio.high > HALF_KEPT:
        return (
            f"Not known: these runs cannot tell whether {what.lower()} keeps anything{when}: "
            f"{share}{evidence}. More seeds or more test examples would."
        )
    if not kept.ratio.above_zero or kept.ratio.high < LITTLE_KEPT:
        much = "little" if kept.ratio.above_zero else "nothing"
        return f"{what} brings {much} here{when}: {share}{evidence}; {instead}."
    found = f"{what} keeps {figure(kept.ratio)} of what a native module gains{when}{evidence}"
    beaten = _not_surely_better(first)
    if beaten:
        # What then to do is the decision's to say: perhaps only too little was tested.
        further = _better_start(last)
        unsure = f"{found}, but is not surely better than {listed(beaten)}"
        return f"{unsure}: {further}." if further else f"{unsure}."
    found += _not_compared(first)
    if kept.ratio.value >= WELL_KEPT and kept.ratio.low >= HALF_KEPT:
        return f"{found}: port it."
    return f"{found}: port it and train it on."


def _evidence(found: Estimate, sign: bool = False) -> str:
    """The interval and the number of seeds, in brackets."""
    parts = [part for part in (span(found, sign=sign), count(found.seeds, "seed")) if part]
    return f" ({', '.join(parts)})"


def _not_surely_better(point: Point) -> list[str]:
    return [
        name_of(name)
        for name, lead in point.leads.items()
        if name != "host" and lead is not None and not lead.above_zero
    ]


def _not_compared(point: Point) -> str:
    """What is missing beside the ported module."""
    missing = [name_of(name) for name in ("sampled", "scratch") if point.leads.get(name) is None]
    return f", with no module {listed(missing)} to compare it with" if missing else ""


def _better_start(point: Point) -> str:
    """What the ported module is good for after all, at the largest budget."""
    lead = point.leads.get("scratch")
    if point.budget == 0 or lead is None or not lead.above_zero:
        return ""
    return (
        f"train on from it, for {after(point.budget)} it is {with_span(lead)} ahead "
        "of a module from scratch"
    )

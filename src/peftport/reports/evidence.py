"""What was measured of each method's ports, and where that leaves them: what verdicts and the
decision are both read off.

A port is *open*, worth having, when it is surely better than the bare host with the same
correction, than every sampling and than a fresh module, and when it is also surely better than the
bare host by the kind's third metric: of classes when it ranks texts better (AUROC, which no
threshold touches), of completions when what it writes is nearer to the references (chrF). "Surely"
is a two-sided test at `SURE`, shared among the methods that were tried (Bonferroni). Figures are
those at the smallest budget alone, of classes corrected ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from peftport.kind import USUAL, Kind, kind_named
from peftport.reports.compared import vanishes
from peftport.reports.comparisons import Analysis
from peftport.reports.measures import LEAST_GAIN, Recovery, recovery
from peftport.reports.results import Cell
from peftport.reports.statistics import SURE, Estimate, Series, difference
from peftport.reports.wording import name_of

HALF_KEPT = 0.5
IN_FULL = "training in full"
THRESHOLD = "what it gains is a threshold, which the bare host can have without a module"

Outcome = Literal["open", "needless", "threshold", "little", "unsure", "unknown"]
"""Where a method's ports stand: open; training in full surely gains too little for any module to be
worth it; they surely gain a threshold alone, or keep surely less than half; that is not sure; there
are no runs of them, or no bare host beside them."""


@dataclass(frozen=True)
class Evidence:
    """What was measured of one method's ports, beside their controls.

    Attributes:
        leads: control -> by how much ported is ahead; "host" is the bare host.
        ranking: the same over the bare host by the kind's third metric.
        recovery: its `gain` is what native modules gain.
        ported: the figures, to set methods against each other.
        kind: of the task.
        native: what gains as much as a module can, in words.
        corrected: whether the figures are, of classes: not where there are too few texts for it.
        budget: the steps on the receiving host after which all this is.
        start: by how much ported is ahead of a module from scratch after `steps` on the receiving
            host, the largest budget; None where nothing was trained there.
        failure: why no port is done, where one failed.
        at_home: whether the module is made for this very host and is tested as it is.
    """

    method: str
    leads: Mapping[str, Estimate]
    ranking: Estimate | None
    recovery: Recovery | None
    only_threshold: bool
    ported: Series | None
    kind: Kind = field(default_factory=lambda: kind_named(USUAL))
    native: str = IN_FULL
    corrected: bool = True
    budget: int = 0
    start: Estimate | None = None
    steps: int = 0
    failure: str = ""
    at_home: bool = False

    @property
    def gain(self) -> Estimate | None:
        """What native modules gain over the bare host."""
        return None if self.recovery is None else self.recovery.gain

    @property
    def worth(self) -> float:
        """The least difference that is worth the name."""
        return LEAST_GAIN if self.ported is None else self.ported.scale.worth

    @property
    def over(self) -> str:
        """How a lead reads before what it is a lead over."""
        return "over" if self.recovery is None else self.recovery.over

    @property
    def bare(self) -> str:
        """The bare host in words."""
        return "corrected bare host" if self.corrected else "bare host"

    def outcome(self, methods: int) -> Outcome:
        """Where these ports stand, of so many methods that were tried."""
        gain = self.gain
        if self._opens(methods):
            return "open"
        if self.recovery is None:
            return "unknown"
        if gain is not None and gain.high < self.worth:
            return "needless"
        if self.only_threshold:
            return "threshold"
        if gain is not None and gain.above_zero and self._keeps_little:
            return "little"
        return "unsure"

    @property
    def _keeps_little(self) -> bool:
        """Whether less than half is kept surely, though the native gain is not known exactly."""
        lead, gain = self.leads["host"], self.gain
        ratio = None if self.recovery is None else self.recovery.ratio
        if gain is None or lead.high >= HALF_KEPT * gain.value:
            return False
        return lead.below_zero or (ratio is not None and ratio.high < HALF_KEPT)

    def _opens(self, methods: int) -> bool:
        needed = [*self.leads.values(), *([self.ranking] if self.ranking else [])]
        beside = "host" in self.leads and len(self.leads) > 1 and self.ranking is not None
        return beside and all(surely_above(found, methods) for found in needed)

    def fails_at(self, methods: int) -> list[str]:
        """The controls, in words, that it is not surely better than."""
        found = [name_of(n) for n, lead in self.leads.items() if not surely_above(lead, methods)]
        if self.ranking is None or not surely_above(self.ranking, methods):
            title = self.kind.metrics[self.kind.ranking].title
            what = "ranking of the texts" if self.kind.of_classes else "answers"
            unknown = ", which is not known here" if self.ranking is None else ""
            found.append(f"the bare host's {what} ({title}{unknown})")
        return found

    def better_start(self, methods: int) -> bool:
        """Whether it is surely the better start for training on than a fresh module."""
        return self.start is not None and surely_above(self.start, methods)


def gather(analysis: Analysis, native: str = IN_FULL) -> list[Evidence]:
    """The evidence on every method of an assessment: one technique, pair and setting.

    Args:
        native: what native modules are, in words.
    """
    return [_gathered(analysis, cell, native) for cell in analysis.results.cells]


def _gathered(analysis: Analysis, cell: Cell, native: str) -> Evidence:
    results = analysis.results
    first, last = min(results.budgets), max(results.budgets)
    beside, plain, ranking = (
        {k: v for k, v in analysis.series(cell, first, metric).items() if v is not None}
        for metric in (results.metric, results.kind.plain, results.kind.ranking)
    )
    failed = results.failed
    errors = failed.loc[(failed["condition"] == "ported") & (failed["method"] == cell.method)]
    later = analysis.series(cell, last) if last else {}
    trained, scratch = later.get("ported"), later.get("scratch")
    return replace(
        weigh(cell.method, beside, plain, ranking, results.kind, native),
        corrected=results.kind.of_classes and results.is_corrected,
        budget=first,
        start=None if trained is None or scratch is None else difference(trained, scratch),
        steps=last,
        failure=str(errors["error"].iloc[0]) if len(errors) else "",
        at_home=cell.relation == "same" and cell.method == "copy",
    )


def weigh(
    method: str,
    corrected: Mapping[str, Series],
    plain: Mapping[str, Series],
    ranking: Mapping[str, Series],
    kind: Kind | None = None,
    native: str = IN_FULL,
) -> Evidence:
    """The evidence on one method, from figures by condition: "host", "ported", "native", "scratch"
    and samplings by any other name.

    Args:
        kind: of the task; classification if not given. native: what native modules are, in words.
    """
    kind = kind or kind_named(USUAL)
    ported, host = corrected.get("ported"), corrected.get("host")
    if ported is None:
        return Evidence(method, {}, None, None, False, None, kind, native, kind.of_classes)
    others = {n: s for n, s in corrected.items() if n not in ("ported", "native")}
    leads = {name: difference(ported, series) for name, series in others.items()}
    kept = recovery(ported, host, corrected.get("native")) if host is not None else None
    as_answered, lift = (
        difference(found["ported"], found["host"]) if {"ported", "host"} <= set(found) else None
        for found in (plain, ranking)
    )
    threshold = kind.of_classes and vanishes(as_answered, leads.get("host"))
    classes = kind.of_classes
    return Evidence(method, leads, lift, kept, threshold, ported, kind, native, classes)


def surely_above(found: Estimate, tests: int) -> bool:
    """Whether a figure is surely above 0, as one of so many tests."""
    return found.value > 0 and found.low > 0 and _p(found) < SURE / tests


def _p(found: Estimate) -> float:
    """The p-value; where nothing varied over seeds and examples, a difference is certain."""
    return 0.0 if found.error == 0 and found.low > 0 else found.p


def surely_better(one: Evidence, other: Evidence, tests: int) -> bool:
    """Whether one method's ports are surely better than another's."""
    if one is other or one.ported is None or other.ported is None:
        return False
    return surely_above(difference(one.ported, other.ported), tests)

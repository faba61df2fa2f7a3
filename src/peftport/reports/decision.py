"""What to do with a module whose base model was replaced: a rule over what was measured.

The rule reads figures at the smallest budget alone, of classes corrected ones. A port *opens* when
it is surely better than the bare host with the same correction, than every sampling and than a
fresh module, and when it is also surely better than the bare host by the kind's third metric: of
classes when it ranks texts better (AUROC, which no threshold touches), of completions when what it
writes is nearer to the references (chrF). "Surely" is a two-sided test at `LEVEL`, shared among the
methods that were tried (Bonferroni).

1. Some port opens: take the cheapest of those that no other one is surely better than.
2. No port opens, and training in full surely gains less over the bare host than is worth the name
   (`Scale.worth`): use the bare host with the correction.
3. Training in full surely gains something, and every port surely keeps less than half of it, or
   gains a threshold alone: train anew.
4. Else nothing can be said yet: test on more of the rows that are there, if a limit left some of
   them out; else label more texts to test on, or take more seeds where no texts would help.

`tests/reports/test_decision.py` simulates it: how often it opens where nothing is kept, and how
often it finds what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isfinite
from typing import Literal

from peftport.kind import USUAL, Kind, kind_named
from peftport.reports.compared import vanishes
from peftport.reports.comparisons import Analysis
from peftport.reports.measures import LEAST_GAIN, Recovery, recovery
from peftport.reports.statistics import Estimate, Series, difference
from peftport.reports.wording import figure, listed, name_of, recovery_text, with_span

Action = Literal[
    "bare host", "copy", "port", "distil", "train anew", "label more", "test more", "more seeds"
]
LEVEL = 0.05
HALF_KEPT = 0.5
THRESHOLD = "what it gains is a threshold, which the bare host can have without a module"
IN_FULL = "training in full"
_POWER = 2.8
"""Standard errors that an effect must be away from 0 to be found in four of five trials."""
_MOST = 100_000


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
    """

    method: str
    leads: Mapping[str, Estimate]
    ranking: Estimate | None
    recovery: Recovery | None
    only_threshold: bool
    ported: Series | None
    kind: Kind = field(default_factory=lambda: kind_named(USUAL))
    native: str = IN_FULL

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
        return "corrected bare host" if self.kind.of_classes else "bare host"

    def opens(self, methods: int) -> bool:
        """Whether this is a port worth having, of so many methods that were tried."""
        needed = [*self.leads.values(), *([self.ranking] if self.ranking else [])]
        beside = "host" in self.leads and len(self.leads) > 1 and self.ranking is not None
        return beside and all(_surely_above(found, methods) for found in needed)

    def fails_at(self, methods: int) -> list[str]:
        """The controls, in words, that it is not surely better than."""
        found = [name_of(n) for n, lead in self.leads.items() if not _surely_above(lead, methods)]
        if self.ranking is not None and not _surely_above(self.ranking, methods):
            title = self.kind.metrics[self.kind.ranking].title
            what = "ranking of the texts" if self.kind.of_classes else "answers"
            found.append(f"the bare host's {what} ({title})")
        return found


@dataclass(frozen=True)
class Decision:
    """What to do and why.

    Attributes:
        method: the port method, for "copy", "port" and "distil".
        more: how many more texts to test on, for "label more" and "test more"; None where that is
            not known.
        left: rows of the test split that a limit left out, for "test more".
        kind: of the task.
    """

    action: Action
    reason: str
    method: str = ""
    more: int | None = None
    kind: str = USUAL
    left: int = 0

    @property
    def text(self) -> str:
        """The decision as one sentence or two."""
        classes = kind_named(self.kind).of_classes
        what = {
            "bare host": "use the bare host" + (" with the correction" if classes else ""),
            "copy": "copy the module",
            "port": f"port it by {self.method}",
            "distil": f"distil it ({self.method})",
            "train anew": "train a module anew",
            "label more": self._label(self.more),
            "test more": self._test(),
            "more seeds": "take more seeds, or more modules of this kind, first",
        }[self.action]
        return f"{what}: {self.reason}."

    def _label(self, more: int | None) -> str:
        classes = kind_named(self.kind).of_classes
        do, texts = ("label", "texts to test on") if classes else ("test on", "texts")
        return (
            f"{do} more texts first" if more is None else f"{do} about {more:,} more {texts} first"
        )

    def _test(self) -> str:
        """Labelled rows are there, and were left out."""
        rows = f"the {self.left:,} rows of the test split that the limit left out"
        if self.more is None:
            return f"test on more of {rows} first"
        if self.more <= self.left:
            return f"test on about {self.more:,} more of {rows} first"
        return f"test on {rows} first (about {self.more:,} more texts are wanted)"


def decide(analysis: Analysis, left: int = 0, native: str = IN_FULL) -> Decision:
    """The decision on an assessment: one technique, pair and setting, ports by one method or
    more.

    Args:
        left: labelled rows of the test split that nobody tested on.
        native: what native modules are, in words.
    """
    results = analysis.results
    if not results.cells:
        return Decision("label more", "no ported module was run")
    budget = min(results.budgets)
    evidence = []
    for cell in results.cells:
        beside, plain, ranking = (
            {k: v for k, v in analysis.series(cell, budget, metric).items() if v is not None}
            for metric in (results.metric, results.kind.plain, results.kind.ranking)
        )
        evidence.append(weigh(cell.method, beside, plain, ranking, results.kind, native))
    tested = next(iter(results.gold.values()), ())
    found = replace(rule(evidence, len(tested)), kind=results.kind.name)
    if found.action == "label more" and left:
        return replace(found, action="test more", left=left)
    return found


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
        return Evidence(method, {}, None, None, False, None, kind)
    others = {n: s for n, s in corrected.items() if n not in ("ported", "native")}
    leads = {name: difference(ported, series) for name, series in others.items()}
    kept = recovery(ported, host, corrected.get("native")) if host is not None else None
    as_answered, lift = (
        difference(found["ported"], found["host"]) if {"ported", "host"} <= set(found) else None
        for found in (plain, ranking)
    )
    threshold = kind.of_classes and vanishes(as_answered, leads.get("host"))
    return Evidence(method, leads, lift, kept, threshold, ported, kind, native)


def rule(evidence: Sequence[Evidence], tested: int) -> Decision:
    """Decide on evidence; the rule itself.

    Args:
        evidence: of every method that was tried.
        tested: labelled texts that the evidence rests on.
    """
    many = len(evidence)
    opened = sorted((e for e in evidence if e.opens(many)), key=lambda e: _cost(e.method))
    for each in opened:
        if not any(_surely_better(other, each, many) for other in opened):
            return _port(each)
    known = [e for e in evidence if e.recovery is not None]
    if not known:
        return Decision("label more", "no port stands beside a bare host")
    gain = known[0].recovery.gain  # type: ignore[union-attr]
    best = max(known, key=lambda e: e.leads["host"].value)
    if gain is None:
        return _more(best, None, many, tested)
    if gain.high < best.worth:
        return Decision(
            "bare host",
            f"{best.native} gains {with_span(gain, sign=True)} over it, too little for any "
            "module to be worth it",
        )
    if gain.above_zero and all(_keeps_little(e, gain) for e in known):
        return Decision("train anew", _why_anew(best, gain))
    return _more(best, gain, many, tested)


def _port(each: Evidence) -> Decision:
    name = each.method.partition(":")[0]
    action: Action = "copy" if name == "copy" else "distil" if name == "distill" else "port"
    lead = with_span(each.leads["host"], sign=True)
    kept = "" if each.recovery is None else f"it keeps {recovery_text(each.recovery)} of what "
    host = f"{each.over} the bare host{' with the correction' if each.kind.of_classes else ''}"
    reason = f"{kept}{each.native} gains, and is {lead} {host}"
    if each.recovery is not None and each.recovery.ratio is None:
        reason = f"it is {lead} {host}"
    ratio = None if each.recovery is None else each.recovery.ratio
    if ratio is not None and ratio.value < HALF_KEPT:
        reason += "; train it on where there are labels, for more than half is lost"
    return Decision(action, reason, each.method)


def _keeps_little(each: Evidence, gain: Estimate) -> bool:
    """Surely less than half of what a native module gains, or a threshold alone."""
    return each.only_threshold or each.leads["host"].high < HALF_KEPT * gain.value


def _why_anew(best: Evidence, gain: Estimate) -> str:
    gains = f"{best.native} gains {with_span(gain, sign=True)} over the {best.bare}"
    lead = f"{figure(best.leads['host'], sign=True)} {best.over} it"
    lead += " corrected" if best.kind.of_classes else ""
    if best.only_threshold:
        return f"{gains}; of the port ({best.method}, {lead}), {THRESHOLD}"
    return f"{gains}, and the best port ({best.method}) surely less than half: {lead}"


def _more(best: Evidence, gain: Estimate | None, methods: int, tested: int) -> Decision:
    """Ask for as many texts as it takes to find the effect that is seen, or one worth having."""
    lead = best.leads["host"]
    why = f"the best port ({best.method}) is {with_span(lead, sign=True)} {best.over} the "
    why += f"{best.bare}, and not surely better than {listed(best.fails_at(methods)) or 'chance'}"
    if gain is not None and not gain.above_zero:
        why += f"; nor is it sure that {best.native} gains anything"
    if isfinite(lead.error) and _room(lead, best.worth) <= 0:
        return Decision("more seeds", why)
    return Decision("label more", why, more=texts_needed(lead, tested, best.worth))


def texts_needed(lead: Estimate, tested: int, worth: float = LEAST_GAIN) -> int | None:
    """How many more test texts would show a lead as large as this, or one worth the name, four
    times of five; None where no number of texts would, because seeds differ by too much."""
    if not isfinite(lead.error) or not tested or (room := _room(lead, worth)) <= 0:
        return None
    wanted = tested * (1 - lead.share) * lead.error**2 / room
    more = max(0, ceil((wanted - tested) / 10) * 10)
    return more if 0 < more <= _MOST else None


def _room(lead: Estimate, worth: float) -> float:
    """What the variance of a lead may be to find it, less what seeds alone have of it."""
    return (max(lead.value, worth) / _POWER) ** 2 - lead.share * lead.error**2


def _cost(method: str) -> int:
    """Copies are free, maps take seconds, and what trains takes longest."""
    return {"copy": 0, "distill": 2}.get(method.partition(":")[0], 1)


def _surely_above(found: Estimate, tests: int) -> bool:
    return found.value > 0 and found.low > 0 and _p(found) < LEVEL / tests


def _p(found: Estimate) -> float:
    """The p-value; where nothing varied over seeds and examples, a difference is certain."""
    return 0.0 if found.error == 0 and found.low > 0 else found.p


def _surely_better(one: Evidence, other: Evidence, tests: int) -> bool:
    if one is other or one.ported is None or other.ported is None:
        return False
    return _surely_above(difference(one.ported, other.ported), tests)

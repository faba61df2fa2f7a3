"""What to do with a module whose base model was replaced: a rule over where each method's ports
stand (`reports/evidence.py`).

1. Some port is open: take the cheapest of those that no other one is surely better than.
2. No port is open, and training in full surely gains less over the bare host than is worth the name
   (`Scale.worth`): use the bare host, of classes with the correction.
3. Training in full surely gains something, and every port surely keeps less than half of it, or
   gains a threshold alone: train anew; from a port on, where that is surely the better start.
4. Else nothing can be said yet: test on more of the rows that are there, if a limit left some of
   them out; else label more texts to test on, or take more seeds where no texts would help.

The verdict on each method is in words where it stands. `tests/reports/test_decision.py` simulates
the rule: how often it opens where nothing is kept, and how often it finds what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil, isfinite
from typing import Literal

from peftport.kind import USUAL, kind_named
from peftport.reports.comparisons import Analysis
from peftport.reports.evidence import (
    HALF_KEPT,
    IN_FULL,
    THRESHOLD,
    Evidence,
    gather,
    surely_better,
)
from peftport.reports.measures import LEAST_GAIN
from peftport.reports.statistics import Estimate
from peftport.reports.verdict import start, verdict
from peftport.reports.wording import figure, listed, recovery_text, with_span

Action = Literal[
    "bare host", "copy", "port", "distil", "train anew", "label more", "test more", "more seeds"
]
_POWER = 2.8
"""Standard errors that an effect must be away from 0 to be found in four of five trials."""
_MOST = 100_000


@dataclass(frozen=True)
class Decision:
    """What to do and why.

    Attributes:
        method: the port method, for "copy", "port" and "distil"; for "train anew" the one whose
            port is to be trained on, where that is the better start.
        more: how many more texts to test on, for "label more" and "test more"; None where that is
            not known.
        left: rows of the test split that a limit left out, for "test more".
        kind: of the task.
        corrected: whether it rests on corrected figures.
        at_home: whether the module is made for this very host, so that nothing is to be ported.
        verdicts: port method -> where its ports stand, in one line.
    """

    action: Action
    reason: str
    method: str = ""
    more: int | None = None
    kind: str = USUAL
    left: int = 0
    corrected: bool = True
    at_home: bool = False
    verdicts: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The decision as one sentence or two."""
        anew = f", and begin with {_called(self)}" if self.method else ""
        what = {
            "bare host": "use the bare host" + (" with the correction" if self.corrected else ""),
            "copy": "use the module as it is" if self.at_home else "copy the module",
            "port": f"port it by {self.method}",
            "distil": f"distil it ({self.method})",
            "train anew": f"train a module anew{anew}",
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
    evidence = gather(analysis, native)
    tested = next(iter(results.gold.values()), ())
    found = replace(
        rule(evidence, len(tested)),
        kind=results.kind.name,
        corrected=evidence[0].corrected,
        verdicts={each.method: verdict(each, len(evidence)) for each in evidence},
    )
    if found.action == "label more" and left:
        return replace(found, action="test more", left=left)
    return found


def rule(evidence: Sequence[Evidence], tested: int) -> Decision:
    """Decide on evidence; the rule itself.

    Args:
        evidence: of every method that was tried.
        tested: labelled texts that the evidence rests on.
    """
    many = len(evidence)
    stand = [(each, each.outcome(many)) for each in evidence]
    opened = [each for each, where in stand if where == "open"]
    if opened:
        good = [e for e in opened if not any(surely_better(other, e, many) for other in opened)]
        return _port(min(good or opened, key=lambda e: _cost(e.method)))
    known = [each for each, where in stand if where != "unknown"]
    if not known:
        return Decision("label more", "no port stands beside a bare host")
    best = max(known, key=lambda e: e.leads["host"].value)
    gain, found = best.gain, {where for _, where in stand} - {"unknown"}
    if gain is not None and found == {"needless"}:
        return Decision(
            "bare host",
            f"{best.native} gains {with_span(gain, sign=True)} over it, too little for any "
            "module to be worth it",
        )
    if gain is not None and gain.above_zero and found <= {"threshold", "little"}:
        return _anew(known, best, gain, many)
    return _more(best, gain, many, tested)


def _port(each: Evidence) -> Decision:
    name = each.method.partition(":")[0]
    action: Action = "copy" if name == "copy" else "distil" if name == "distill" else "port"
    lead = with_span(each.leads["host"], sign=True)
    kept = "" if each.recovery is None else f"it keeps {recovery_text(each.recovery)} of what "
    host = f"{each.over} the bare host{' with the correction' if each.corrected else ''}"
    reason = f"{kept}{each.native} gains, and is {lead} {host}"
    if each.recovery is not None and each.recovery.ratio is None:
        reason = f"it is {lead} {host}"
    ratio = None if each.recovery is None else each.recovery.ratio
    if ratio is not None and ratio.value < HALF_KEPT:
        reason += "; train it on where there are labels, for more than half is lost"
    return Decision(action, reason, each.method, at_home=each.at_home)


def _anew(known: Sequence[Evidence], best: Evidence, gain: Estimate, methods: int) -> Decision:
    why = f"{best.native} gains {with_span(gain, sign=True)} over the {best.bare}"
    lead = f"{figure(best.leads['host'], sign=True)} {best.over} it"
    lead += " corrected" if best.corrected else ""
    if best.only_threshold:
        why += f"; of {_best(best)}, {lead}, {THRESHOLD}"
    else:
        why += f", and {_best(best)} surely less than half: {lead}"
    starts = [each for each in known if each.better_start(methods)]
    if not starts:
        return Decision("train anew", why)
    first = max(starts, key=lambda e: e.start.value)  # type: ignore[union-attr]
    why += f"; trained on, {_called(first)} is {start(first)}"
    return Decision("train anew", why, first.method, at_home=first.at_home)


def _called(found: Decision | Evidence) -> str:
    """A method's port in a sentence."""
    return "the module itself" if found.at_home else f"the port by {found.method}"


def _best(found: Evidence) -> str:
    return _called(found) if found.at_home else f"the best port ({found.method})"


def _more(best: Evidence, gain: Estimate | None, methods: int, tested: int) -> Decision:
    """Ask for as many texts as it takes to find the effect that is seen, or one worth having."""
    lead = best.leads["host"]
    why = f"{_best(best)} is {with_span(lead, sign=True)} {best.over} the "
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

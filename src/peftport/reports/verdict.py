"""One line in words on one method's ports: what was found, and never what to do, which is for the
decision to say. Both read the same outcome of the same evidence, so that they cannot disagree."""

from __future__ import annotations

from peftport.reports.evidence import THRESHOLD, Evidence
from peftport.reports.statistics import Estimate
from peftport.reports.wording import after, count, figure, listed, name_of, span, with_span


def verdict(found: Evidence, methods: int) -> str:
    """Say in one line where a method's ports stand.

    Args:
        methods: how many were tried.
    """
    outcome = found.outcome(methods)
    if outcome == "unknown":
        return _unknown(found)
    if outcome == "open":
        return (
            f"{_what(found)} {_kept(found)}, and is surely ahead of every control{_lacking(found)}."
        )
    if outcome == "needless":
        gain = with_span(found.gain, sign=True)
        return (
            f"There is nothing to keep: {found.native} gains {gain} over the {found.bare}. "
            f"{_what(found)} {_leads(found)}."
        )
    return _closed(found, methods)


def _closed(found: Evidence, methods: int) -> str:
    """What gains a threshold or keeps little, and what is not known to."""
    what, lead, gain = _what(found), found.leads["host"], found.gain
    outcome = found.outcome(methods)
    if outcome == "threshold":
        text = f"{what}: {THRESHOLD}; it {_leads(found)}"
    elif outcome == "little":
        says = "does harm" if lead.below_zero else "surely keeps less than half"
        text = f"{what} {says}: it {_leads(found)}, where {found.native} "
        text += f"gains {with_span(gain, sign=True)}"
    else:
        beaten = listed(found.fails_at(methods))
        text = f"Not known: {_lower(what)} {_kept(found)}"
        text += f", and is not surely better than {beaten}" if beaten else ""
        text += _lacking(found)
        if gain is not None and not gain.above_zero:
            text += f"; nor is it sure that {found.native} gains anything"
    if found.better_start(methods):
        text += f"; trained on, it is {start(found)}"
    return f"{text}."


def start(found: Evidence) -> str:
    """What training on from the port is worth."""
    lead = with_span(found.start, sign=True)
    return f"{lead} ahead of a module from scratch {after(found.steps)}"


def _unknown(found: Evidence) -> str:
    if found.ported is None:
        why = f" ({found.failure})" if found.failure else ""
        return f"Not known: no ported run is done{why}."
    return f"Not known: {_lower(_what(found))} cannot be judged without the bare host beside it."


def _what(found: Evidence) -> str:
    if found.at_home:
        return "The module itself"
    return "Copying" if found.method == "copy" else f"Porting by {found.method}"


def _lower(text: str) -> str:
    """The text within a sentence; names in it stay as they are."""
    return text[:1].lower() + text[1:]


def _kept(found: Evidence) -> str:
    """What is kept of the native gain, or the lead in its place."""
    ratio = None if found.recovery is None else found.recovery.ratio
    if ratio is None:
        return _leads(found)
    return f"keeps {figure(ratio)} of what {found.native} gains{_when(found)}{_evidence(ratio)}"


def _leads(found: Evidence) -> str:
    lead = found.leads["host"]
    evidence = _evidence(lead, sign=True)
    return f"is {figure(lead, sign=True)} {found.over} the {found.bare}{_when(found)}{evidence}"


def _when(found: Evidence) -> str:
    return "" if found.budget == 0 else f" {after(found.budget)}"


def _evidence(found: Estimate, sign: bool = False) -> str:
    """The interval and the number of seeds, in brackets."""
    parts = [part for part in (span(found, sign=sign), count(found.seeds, "seed")) if part]
    return f" ({', '.join(parts)})"


def _lacking(found: Evidence) -> str:
    """What is missing beside the ported module."""
    sampled = found.leads.keys() - {"host", "scratch"}
    missing = [name_of("sampled")] if not sampled else []
    missing += [name_of("scratch")] if "scratch" not in found.leads else []
    return f", with no module {listed(missing)} to compare it with" if missing else ""

"""Figures in words: one way of writing a number, an interval and a p-value, everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, isnan

from peftport.reports.measures import Recovery, Steps
from peftport.reports.statistics import Estimate

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"
"""What a table shows where there is no figure."""

NAMES = {
    "host": "bare host",
    "sampled": "sampled",
    "scratch": "from scratch",
    "ported": "ported",
    "native": "native",
}
ONES = {
    "host": "the bare host",
    "sampled": "sampled ones",
    "scratch": "ones from scratch",
    "ported": "ported ones",
    "native": "native ones",
}
RELATIONS = {
    "same": "the same host",
    "continuation": "continuations",
    "independent": "independent hosts",
    "unstated": "hosts of unstated relation",
}
KINDS = {"same": "same host", "unstated": "relation unstated"}
BASES = {
    "seeds and examples": "",
    "seeds": "over seeds only",
    "examples": "one seed, over test examples only",
    "": "no interval",
}


def name_of(condition: str) -> str:
    """A condition in words; a further control goes by its own name."""
    return NAMES.get(condition, f"sampled ({condition})")


def ones(condition: str) -> str:
    """A condition as a noun, for sentences."""
    return ONES.get(condition, f"sampled ones ({condition})")


def relation_name(relation: str) -> str:
    """What the receiving host is to the originating one, in words."""
    return RELATIONS.get(relation, relation or RELATIONS["unstated"])


def relation_kind(relation: str) -> str:
    """What one receiving host is to its originating one, in a word or two."""
    return KINDS.get(relation, relation or "relation unstated")


def number(value: float, digits: int = 2, sign: bool = False) -> str:
    """A figure with a true minus sign; no sign before a zero."""
    if isnan(value):
        return NONE
    if not isfinite(value):
        return f"{MINUS if value < 0 else ''}\N{INFINITY}"
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def figure(found: Estimate | None, sign: bool = False) -> str:
    """The figure alone, or a dash."""
    return NONE if found is None else number(found.value, found.digits, sign)


def span(found: Estimate | None, sign: bool = False) -> str:
    """The interval alone: "0.81 to 0.87"; empty without one."""
    if found is None or isnan(found.low):
        return ""
    return f"{number(found.low, found.digits, sign)} to {number(found.high, found.digits, sign)}"


def with_span(found: Estimate | None, sign: bool = False) -> str:
    """The figure with its interval: "0.84 (0.81 to 0.87)"."""
    between = span(found, sign)
    return figure(found, sign) + (f" ({between})" if between else "")


def p_text(p: float) -> str:
    """A p-value: "p = 0.013", "p < 0.001", or a dash."""
    if isnan(p):
        return NONE
    text = "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def recovery_text(found: Recovery | None) -> str:
    """A recovery with its interval, or the points that stand in its place."""
    if found is None:
        return NONE
    if found.ratio is not None:
        return with_span(found.ratio)
    unit = " points" if found.scale.share else ""
    return f"none; {with_span(found.points, sign=True)}{unit} {found.over} the host"


def steps_text(found: Steps | None) -> str:
    """Steps with their interval: "38 (31 to 52)"; "not within 300" when never reached."""
    if found is None:
        return NONE
    if not isfinite(found.value):
        return f"not within {found.most}"
    if isnan(found.low) or found.value == found.low == found.high:
        return f"{found.value:.0f}"
    high = f"{found.high:.0f}" if isfinite(found.high) else f"beyond {found.most}"
    return f"{found.value:.0f} ({found.low:.0f} to {high})"


def sentence(text: str) -> str:
    """The text with a capital at its beginning and all else as it is."""
    return text[:1].upper() + text[1:]


def after(budget: int) -> str:
    """When: "before any training" or "after 30 steps"."""
    if budget == 0:
        return "before any training on the receiving host"
    return f"after {count(budget, 'step')}"


def count(many: int, what: str) -> str:
    """A number of things: "1 step", "1,440 runs"."""
    return f"{many:,} {what}{'' if many == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence: "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"

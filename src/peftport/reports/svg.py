"""Figures as inline SVG: they take their colours from the page's style, and so its theme."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, isnan, log10

from peftport.metrics import Scale
from peftport.reports.measures import axis
from peftport.reports.statistics import Estimate

WIDTH, HEIGHT = 320, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 36, 12, 10, 34

Curves = Mapping[str, Sequence[tuple[float, Estimate]]]
"""Condition -> its figures at ascending budgets; a single figure is drawn as a level."""


def bounds(figures: Sequence[Estimate], step: float = 0.1) -> tuple[float, float]:
    """The multiples of `step` around all figures and intervals."""
    ends = _ends(figures)
    if not ends:
        return 0.0, 1.0
    low, high = floor(min(ends) / step + 1e-9) * step, ceil(max(ends) / step - 1e-9) * step
    return (low, high) if high > low else (low, low + step)


def step_of(figures: Sequence[Estimate], scale: Scale) -> float:
    """The step whose multiples limit a picture: a tenth for shares, and for other metrics a round
    number of which about five reach over all figures and intervals."""
    ends = _ends(figures)
    if scale.share or not ends:
        return 0.1
    wanted = (max(ends) - min(ends) or abs(ends[0]) or 1.0) / 5
    power = 10.0 ** floor(log10(wanted))
    return next(times * power for times in (1, 2, 5, 10) if times * power >= wanted * (1 - 1e-9))


def _ends(figures: Sequence[Estimate]) -> list[float]:
    return [x for found in figures for x in (found.low, found.value, found.high) if isfinite(x)]


def tick_text(value: float, all_of_them: Sequence[float]) -> str:
    """A tick with as many decimals as tell all of them apart, one at least."""
    decimals = next((d for d in range(1, 6) if all(_is_round(x, d) for x in all_of_them)), 6)
    return f"{value:.{decimals}f}".replace("-", chr(0x2212))


def _is_round(value: float, decimals: int) -> bool:
    return abs(round(value, decimals) - value) < 1e-9


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values from `low` to `high`, `most` or fewer."""
    fine = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02) if high - low < 0.1 - 1e-9 else ()
    for step in (*fine, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10):
        first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
        if last - first < most:  # told before any is made: figures may be as far apart as they like
            return [round(i * step, 6) for i in range(first, last + 1)]
    return [low, high]


def learning_curves(
    name: str,
    title: str,
    description: str,
    curves: Curves,
    budgets: Sequence[float],
    limits: tuple[float, float],
    across: str = "training steps",
) -> str:
    """Figures over training steps, a line and a band for every condition.

    Args:
        name: unique on the page.
        title, description: what is read to those who do not see it.
        limits: of the figures' axis.
        across: what the other axis tells.
    """  # fmt: skip
    low, high = limits
    last = axis(budgets[-1]) or 1.0

    def x(budget: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * axis(budget) / last

    def y(value: float) -> float:
        share = (min(max(value, low), high) - low) / _width(low, high)
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share

    parts = [
        f'<svg class="curves" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="{name}-t {name}-d">',
        f'<title id="{name}-t">{escape(title)}</title>',
        f'<desc id="{name}-d">{escape(description)}</desc>',
    ]
    levels = ticks(low, high)
    for value in levels:
        parts.append(_line("grid", _LEFT, y(value), WIDTH - _RIGHT, y(value)))
        parts.append(_text(_LEFT - 6, y(value) + 3.5, tick_text(value, levels), "end"))
    parts += _budget_labels(budgets, x)
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, across, "middle"))
    shown = {
        condition: found if len(found) > 1 else [(b, found[0][1]) for b in (0, budgets[-1])]
        for condition, found in curves.items()
        if found
    }
    for condition, found in shown.items():
        banded = [(b, e) for b, e in found if not isnan(e.low)]
        if len(banded) > 1:
            edge = [(x(b), y(e.high)) for b, e in banded]
            edge += [(x(b), y(e.low)) for b, e in reversed(banded)]
            parts.append(f'<polygon class="band {escape(condition)}" points="{_points(edge)}"/>')
    for condition, found in shown.items():
        places = [(x(b), y(e.value)) for b, e in found]
        parts.append(f'<polyline class="line {escape(condition)}" points="{_points(places)}"/>')
        if len(curves[condition]) > 1 or len(budgets) == 1:
            parts += [_marker(condition, px, py) for px, py in places]
    return "".join([*parts, "</svg>"])


def _budget_labels(budgets: Sequence[float], x: Callable[[float], float]) -> list[str]:
    """Labels below the axis, without those that would run into the one before."""
    parts, free = [], -1.0
    for budget in budgets:
        text, place = f"{budget:,.4g}" if budget % 1 else f"{budget:,.0f}", x(budget)
        half = 3.2 * len(text)
        parts.append(_line("tick", place, HEIGHT - _BOTTOM, place, HEIGHT - _BOTTOM + 4))
        if place - half > free:
            parts.append(_text(place, HEIGHT - _BOTTOM + 15, text, "middle"))
            free = place + half + 2
    return parts


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def _marker(condition: str, x: float, y: float) -> str:
    """A mark whose shape tells the condition without its colour."""
    kind = f'class="mark {escape(condition)}"'
    if condition == "sampled":
        return f'<rect {kind} x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'
    if condition == "scratch":
        shape = [(x, y - 4), (x + 4, y + 3), (x - 4, y + 3)]
        return f'<polygon {kind} points="{_points(shape)}"/>'
    if condition == "permuted":
        shape = [(x, y - 4.5), (x + 4.5, y), (x, y + 4.5), (x - 4.5, y)]
        return f'<polygon {kind} points="{_points(shape)}"/>'
    if condition == "spectrum":
        shape = [(x, y + 4), (x + 4, y - 3), (x - 4, y - 3)]
        return f'<polygon {kind} points="{_points(shape)}"/>'
    return f'<circle {kind} cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'


def sample(condition: str) -> str:
    """A piece of a condition's line, for a legend."""
    return (
        '<svg class="sample" viewBox="0 0 34 12" aria-hidden="true">'
        f'<line class="line {escape(condition)}" x1="1" y1="6" x2="33" y2="6"/>'
        f"{'' if condition in ('host', 'native') else _marker(condition, 17, 6)}</svg>"
    )


def ranges(
    label: str, figures: Mapping[str, Estimate], limits: tuple[float, float], lane: int = 13
) -> str:
    """Figures with intervals side by side, a lane each, as wide as there is room.

    Args:
        label: what is read to those who do not see it.
        lane: height of a lane in pixels.
    """
    low, high = limits

    def x(value: float) -> str:
        return f"{100 * (min(max(value, low), high) - low) / _width(low, high):.2f}%"

    height = lane * len(figures)
    parts = [f'<svg class="ranges" height="{height}" role="img" aria-label="{escape(label)}">']
    for value in ticks(low, high):
        kind = "zero" if value == 0 and low < 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(value)}" x2="{x(value)}" y1="0" y2="{height}"/>')
    for place, (condition, found) in enumerate(figures.items()):
        y = lane * (place + 0.5)
        if not isnan(found.low):
            parts.append(
                f'<line class="span {escape(condition)}" x1="{x(found.low)}" x2="{x(found.high)}" '
                f'y1="{y}" y2="{y}"/>'
            )
        parts.append(
            f'<circle class="mark {escape(condition)}" cx="{x(found.value)}" cy="{y}" r="4"/>'
        )
    return "".join([*parts, "</svg>"])


def ruler(limits: tuple[float, float], sign: bool = False) -> str:
    """The axis that belongs below or above `ranges`."""
    low, high = limits
    parts = ['<svg class="ranges ruler" height="18" aria-hidden="true">']
    found = ticks(low, high)
    for value in found:
        at = 100 * (value - low) / _width(low, high)
        anchor = "start" if at < 1 else "end" if at > 99 else "middle"
        text = ("+" if sign and value > 0 else "") + tick_text(value, found)
        parts.append(f'<text x="{at:.2f}%" y="13" text-anchor="{anchor}">{text}</text>')
    return "".join([*parts, "</svg>"])


def _width(low: float, high: float) -> float:
    """Of an axis; 1 for figures so large that no number is between them."""
    return high - low or 1.0

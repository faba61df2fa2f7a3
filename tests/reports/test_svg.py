"""Figures: well-formed, inside their frames, with words for those who do not see them."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from peftport.reports import svg
from peftport.reports.statistics import NOTHING, Estimate

NAMES = ("host", "sampled", "scratch", "ported", "native", "permuted", "<new>")


def figure(value: float, half: float = 0.03) -> Estimate:
    return Estimate(value, value - half, value + half, half / 2, 0.5, 3, "seeds")


CURVES = {
    name: [(budget, figure(0.4 + 0.05 * place)) for budget in (0, 10, 1000)]
    for place, name in enumerate(NAMES)
} | {"host": [(0, figure(0.4))], "native": [(0, figure(0.9))]}


def drawn(limits: tuple[float, float] = (0.3, 1.0)) -> ElementTree.Element:
    budgets = (0, 10, 1000)
    return ElementTree.fromstring(
        svg.learning_curves("c1", "LoRA & <films>", "it rises", CURVES, budgets, limits)
    )


def test_curves_have_a_title_a_description_and_a_mark_for_every_condition() -> None:
    root = drawn()
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "c1-t c1-d"
    assert [root.findtext(tag) for tag in ("title", "desc")] == ["LoRA & <films>", "it rises"]
    lines = [e.get("class") for e in root.iter("polyline")]
    assert sorted(lines) == sorted(f"line {name}" for name in NAMES)
    assert len([e for e in root.iter("polygon") if "band" in (e.get("class") or "")]) == 7


@pytest.mark.parametrize("limits", [(0.3, 1.0), (0.5, 0.6)])
def test_nothing_is_drawn_outside_the_frame(limits: tuple[float, float]) -> None:
    for element in drawn(limits).iter():
        for point in (element.get("points") or "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= svg.WIDTH and 0 <= y <= svg.HEIGHT


def test_a_higher_accuracy_is_drawn_higher_and_a_larger_budget_further_right() -> None:
    lines = {e.get("class"): e.get("points") or "" for e in drawn().iter("polyline")}
    ported, sampled = (
        [tuple(map(float, point.split(","))) for point in lines[f"line {name}"].split()]
        for name in ("ported", "sampled")
    )
    assert ported[0][1] < sampled[0][1]
    assert ported[0][0] < ported[1][0] < ported[2][0]


def test_ranges_span_their_intervals() -> None:
    found = {"sampled": figure(0.2, 0.1), "scratch": Estimate(0.3, *[float("nan")] * 4, 1, "")}
    root = ElementTree.fromstring(svg.ranges('a "lead"', found, (-0.1, 0.4)))
    assert root.get("aria-label") == 'a "lead"'
    spans = [e for e in root.iter("line") if "span" in (e.get("class") or "")]
    assert [(e.get("x1"), e.get("x2")) for e in spans] == [("40.00%", "80.00%")]
    assert [e.get("cx") for e in root.iter("circle")] == ["60.00%", "80.00%"]
    assert [e.get("x1") for e in root.iter("line") if e.get("class") == "zero"] == ["20.00%"]


def test_bounds_are_round_and_never_empty() -> None:
    assert svg.bounds([figure(0.52), figure(0.88)]) == pytest.approx((0.4, 1.0))
    assert svg.bounds([]) == svg.bounds([NOTHING]) == (0.0, 1.0)
    low, high = svg.bounds([figure(0.5, 0)])
    assert low < high


def test_ticks_are_few_and_round() -> None:
    assert svg.ticks(0.4, 0.9) == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    assert svg.ticks(-0.1, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert len(svg.ticks(-40, 73)) == 2
    assert svg.ticks(0.4, 1e18) == [0.4, 1e18]


def test_axis_labels_and_legends_are_well_formed() -> None:
    for limits in ((0.0, 1.0), (-0.2, 0.4)):
        ElementTree.fromstring(svg.ruler(limits, sign=True))
    for name in NAMES:
        assert ElementTree.fromstring(svg.sample(name)).get("aria-hidden") == "true"

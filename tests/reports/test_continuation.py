"""Recovery over further pretraining: the curve, where it falls to a half, and what is shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from page_outline import Outline, words
from peftport.reports import summary
from peftport.reports.continuation import Fading, fadings
from peftport.reports.figures import write_png
from peftport.reports.page import render
from peftport.reports.tables import markdown
from synthetic_studies import HOST, NATIVE, Synthetic

TIMES = "\N{MULTIPLICATION SIGN}"
STEPS = {"base": 0, "x1": 200, "x2": 400, "x4": 800, "x8": 1600}
KEPT = {"base": 1.0, "x1": 0.9, "x2": 0.7, "x4": 0.3, "x8": 0.0}


def study(**others) -> Synthetic:
    """A study whose ported modules keep `KEPT` of the gain, at every budget."""

    def accuracy(row) -> float:
        if row["condition"] == "ported":
            return HOST + KEPT[row["receiver"]] * (NATIVE - HOST)
        return NATIVE if row["condition"] == "native" else HOST

    hosts = [{"name": "base"}] + [
        {"name": name, "parent": "base", "continued": steps}
        for name, steps in STEPS.items()
        if steps
    ]
    made = dict(
        pairs=tuple(
            ("base", name, "continuation" if steps else "same") for name, steps in STEPS.items()
        ),
        seeds=tuple(range(5)),
        examples=1500,
        seed_spread=0.01,
        accuracy=accuracy,
        facts={"hosts": hosts},
    )
    return Synthetic(**(made | others))


@pytest.fixture(scope="module")
def found() -> tuple[Fading, ...]:
    return fadings(study().results())


def test_a_curve_for_every_technique_in_ascending_multiples(found) -> None:
    assert [fading.technique for fading in found] == ["adapter", "lora"]
    for fading in found:
        assert fading.unit == 200
        assert [place.amount for place in fading.places] == [0, 1, 2, 4, 8]
        assert [place.point.cell.receiver for place in fading.places] == list(STEPS)
        assert fading.budget == 0


def test_it_follows_what_is_kept_with_the_controls_beside_it(found) -> None:
    for fading in found:
        for place in fading.places:
            kept = place.ratio()
            assert kept is not None
            assert kept.value == pytest.approx(KEPT[place.point.cell.receiver], abs=0.12)
            for control in ("sampled", "scratch"):
                assert place.ratio(control).value == pytest.approx(0, abs=0.12)


def test_half_is_where_the_curve_crosses_it(found) -> None:
    # 0.7 at 2x and 0.3 at 4x: a half is midway between them on the axis log(1 + amount)
    expected = np.sqrt((1 + 2) * (1 + 4)) - 1
    for fading in found:
        value, low, high = fading.half
        assert low < value < high
        assert low < expected < high
        assert value == pytest.approx(expected, abs=0.6)
        assert "half of it is left after" in fading.sentence


def test_a_recovery_that_stays_is_told_so() -> None:
    def accuracy(row) -> float:
        return NATIVE if row["condition"] in ("ported", "native") else HOST

    for fading in fadings(study(accuracy=accuracy).results()):
        assert np.isnan(fading.half).any()
        assert f"it stays above a half up to 8{TIMES}" in fading.sentence


def test_it_stays_above_a_half_only_as_far_as_is_known() -> None:
    def accuracy(row) -> float:
        gains = row["condition"] in ("ported", "native") and row["receiver"] != "x8"
        return NATIVE if gains else HOST

    for fading in fadings(study(accuracy=accuracy).results()):
        assert fading.sentence.endswith(f"it stays above a half up to 4{TIMES}.")


def test_where_a_native_module_gains_nothing_there_is_no_recovery_to_follow() -> None:
    for fading in fadings(study(accuracy=lambda row: HOST).results()):
        assert fading.half is None
        assert "no recovery to follow" in fading.sentence
        assert all(place.ratio() is None for place in fading.places)


def test_two_receiving_hosts_make_no_curve() -> None:
    assert fadings(study(pairs=(("base", "base", "same"), ("base", "x1", "continuation")))
                   .results()) == ()  # fmt: skip
    assert fadings(Synthetic().results()) == ()


def test_unknown_amounts_make_no_curve() -> None:
    assert fadings(study(facts={}).results()) == ()


def test_the_page_shows_it_and_the_tables_tell_it() -> None:
    results = study().results()
    page = render(results)
    outline = Outline(page)
    assert outline.open == []
    drawings = [f for tag, f in outline.tags if tag == "svg" and f.get("class") == "curves"]
    named = [f for f in drawings if str(f["aria-labelledby"]).startswith("fading-")]
    assert len(named) == 2
    text = words(page)
    assert f"1{TIMES} is 200 of what the hosts' record counts" in text
    for fading in fadings(results):
        assert fading.sentence in text
        assert fading.sentence in markdown(results)
    assert "Further pretraining" not in words(render(Synthetic().results()))


def test_failed_runs_leave_gaps() -> None:
    results = study(failed=lambda row: row["receiver"] == "x2" and row["condition"] == "native")
    (first, *_) = fadings(results.results())
    assert [place.ratio() is None for place in first.places] == [False, False, True, False, False]
    assert Outline(render(results.results())).open == []


def test_the_summary_has_it() -> None:
    (first, second) = summary(study().results())["continuations"]
    assert (first["technique"], second["technique"]) == ("adapter", "lora")
    assert [place["amount"] for place in first["places"]] == [0, 1, 2, 4, 8]
    assert len(first["half"]) == 3


def test_it_is_drawn(tmp_path: Path) -> None:
    written = write_png(study().results(), tmp_path)
    assert written[-1].name == "continuation.png"
    image = imread(written[-1])
    assert (np.ptp(image[..., :3], axis=2) > 0.1).mean() > 0.005

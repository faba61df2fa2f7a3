"""What reports make of metrics of which less is better, and of kinds without a correction: known
answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from peftport.errors import BadInput
from peftport.kind import kind_named
from peftport.kinds.completion.judging import Judged
from peftport.kinds.likelihood import Likelihood
from peftport.reports import figures, sections, svg
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.decision import decide
from peftport.reports.page import render
from peftport.reports.recorrected import corrected_on_test
from peftport.reports.results import Results
from peftport.reports.statistics import Estimate
from peftport.reports.summaries import summary
from peftport.reports.tables import interval_note, markdown

EXAMPLES = 60
BUDGETS = (0, 10, 100)
LEVELS = {"host": 2.0, "sampled": 1.9, "scratch": 1.9, "ported": 1.2, "native": 1.0}
"""Bits per byte, or nats per token, before training on the receiving host."""
CHRF = {"host": 10.0, "sampled": 11.0, "scratch": 11.0, "ported": 50.0, "native": 60.0}


def losses(level: float, rng: np.random.Generator, unit: float) -> dict[str, np.ndarray]:
    """Texts of about so many nats a token."""
    tokens = rng.integers(8, 12, EXAMPLES)
    nats = tokens * (level * unit + rng.normal(0, 0.02, EXAMPLES))
    return {"nats": nats, "tokens": tokens, "sizes": tokens}


def likelihood(condition: str, level: float, rng: np.random.Generator) -> Likelihood:
    return Likelihood(**losses(level, rng, float(np.log(2))))


def judged(condition: str, level: float, rng: np.random.Generator) -> Judged:
    chrf = CHRF[condition] + rng.normal(0, 2, EXAMPLES)
    right = (rng.random(EXAMPLES) < CHRF[condition] / 100).astype(float)
    known = {"exact": right, "chrf": chrf, "rouge_l": chrf / 100, "own": None}
    return Judged(**losses(level, rng, 1.0), written=(), references=(), known=known)


MADE = {"language": likelihood, "completion": judged}


def study(kind: str, levels: Mapping[str, float] = LEVELS) -> Analysis:
    """One cell with three seeds. From-scratch and sampled modules fall to 1.0 at 100 steps."""
    metrics = kind_named(kind).metrics
    cell = {"origin": "a", "relation": "continuation", "origin_task": "t"}
    rows, scored = [], {}
    for condition in levels:
        budgets = {"host": (0,), "native": (300,)}.get(condition, BUDGETS)
        for seed in range(3):
            for budget in budgets:
                rng = np.random.default_rng([seed, budget, len(rows)])
                level = levels[condition]
                if 0 < budget < 300:
                    level = min(level, 1.0 + 0.9 * (1 - np.log1p(budget) / np.log1p(100)))
                found = MADE[kind](condition, level, rng)
                run = f"{len(rows):032x}"
                scored[run] = found
                row = {"run_id": run, "study": kind, "status": "done", "error": ""}
                row |= dict.fromkeys(("method", "control", "origin", "relation", "origin_task"), "")
                row |= cell if condition in ("ported", "sampled") else {}
                row |= {"method": "copy"} if condition == "ported" else {}
                row |= {"control": "gaussian"} if condition == "sampled" else {}
                row |= {"technique": "" if condition == "host" else "lora", "receiver": "b"}
                row |= {"condition": condition, "task": "t", "budget": budget, "seed": seed}
                row |= {name: metric.figure(found) for name, metric in metrics.items()}
                rows.append(row | {"n_test": EXAMPLES, "train_seconds": 0.1})
    gold = {"t": np.ones(EXAMPLES)}
    return analyse(Results(pd.DataFrame(rows), {}, gold, {"kind": kind}, scored))


@pytest.fixture(scope="module", params=list(MADE))
def good(request) -> Analysis:
    """A copy that loses little: 1.2 where the bare host has 2.0 and a native module 1.0."""
    return study(request.param)


@pytest.fixture(scope="module")
def bad() -> Analysis:
    """A copy that does harm: 2.3 where the bare host has 2.0."""
    return study("language", LEVELS | {"ported": 2.3})


def first(analysis: Analysis):
    return analysis.points[0]


def test_levels_are_shown_as_they_are_and_a_lower_one_is_ahead(good):
    point = first(good)
    assert point.means["ported"].value == pytest.approx(1.2, abs=0.02)
    assert point.means["host"].value == pytest.approx(2.0, abs=0.02)
    low, high = point.means["ported"].low, point.means["ported"].high
    assert low < point.means["ported"].value < high
    for name, lead in {"host": 0.8, "sampled": 0.7, "scratch": 0.7}.items():
        assert point.leads[name].value == pytest.approx(lead, abs=0.03)
        assert point.leads[name].above_zero


def test_recovery_is_the_share_of_the_native_lift_whatever_the_direction(good, bad):
    assert first(good).recovery.ratio.value == pytest.approx(0.8, abs=0.03)
    assert first(bad).recovery.ratio.value == pytest.approx(-0.3, abs=0.03)
    assert first(good).recovery.gain.value == pytest.approx(1.0, abs=0.03)


def test_a_completion_has_the_lift_of_its_quality_beside_that_of_its_loss():
    point = first(study("completion"))
    assert point.effect.ratio.value == pytest.approx(0.8, abs=0.05)
    assert point.plain_effect.ratio.value == pytest.approx(0.8, abs=0.3)
    assert point.ranking["native"].value == pytest.approx(60, abs=2)


def test_a_port_with_a_lower_loss_is_taken_and_one_with_a_higher_is_not(good, bad):
    assert decide(good).action == "copy"
    assert decide(bad).action == "train anew"
    (kept,), (harmed,) = (decide(each).verdicts.values() for each in (good, bad))
    assert "surely ahead of every control" in kept
    assert "does harm" in harmed
    for text in (decide(good).text, decide(bad).text, kept, harmed):
        assert "correct" not in text and "threshold" not in text


def test_an_effect_too_small_for_its_metric_is_no_gain():
    near = {"host": 1.005, "sampled": 1.005, "scratch": 1.005, "ported": 1.0, "native": 1.0}
    recovery = first(study("language", near)).recovery
    assert recovery.ratio is None
    assert "less than 0.01" in recovery.reason


def test_steps_are_read_where_a_falling_curve_reaches_the_level(good):
    (curve,) = good.curves.values()
    # 1.9 falls by 0.9 over log(1 + steps) to 100 steps and is at 1.2 after 7 of 9 parts of it.
    assert curve.to_match.value == pytest.approx(101 ** (7 / 9) - 1, rel=0.15)
    assert curve.areas["ported"].value < curve.areas["scratch"].value
    assert curve.leads["scratch"].value > 0


def test_the_heat_map_is_ahead_where_the_loss_is_lower(good, bad):
    for analysis, way in ((good, "ahead"), (bad, "behind")):
        view = sections.heat_map(analysis)[0]
        assert view.groups[0]["cells"][0]["way"] == way
        assert float(sections.full_heat(analysis)) > 0.2


def test_answers_that_flip_are_those_that_are_right_or_wrong(good):
    flips = first(good).flips
    if good.results.kind.name == "language":
        assert flips == ()
    else:
        (against_host,) = flips
        assert against_host.won > against_host.lost


def test_page_tables_and_summary_name_the_metric_and_its_direction(good):
    kind = good.results.kind
    title = kind.metrics[kind.primary].title
    page, text, note = render(good), markdown(good), interval_note(good)
    for told in (page, text, note):
        assert f"{title} (lower is better)" in told.replace(title.capitalize(), title)
        assert not {"accuracy", "AUROC", "correction", "kappa"} & set(told.split())
    assert "ahead of ones from scratch" in text
    assert "lora: ahead of " in page and "lora: over " not in page
    assert "below host" in note
    found = summary(good)
    assert found["kind"] == kind.name
    assert found["cells"][0][kind.primary]["ported"]["value"] == pytest.approx(1.2, abs=0.02)
    assert f"{kind.ranking}_lift_kept" in found["cells"][0]


def test_pictures_have_limits_and_steps_of_the_metric(good, tmp_path):
    scale = good.results.rests_on.scale
    narrow = [Estimate(1.002, 1.0, 1.004, 0.001, 0.5, 3, "")]
    step = svg.step_of(narrow, scale)
    low, high = svg.bounds(narrow, step)
    assert 0 < step < 0.01
    assert low <= 1.0 < 1.004 <= high < 1.02
    assert len(set(svg.tick_text(x, svg.ticks(low, high)) for x in svg.ticks(low, high))) > 2
    paths = figures.write_png(good, tmp_path)
    assert len(paths) == 3


def test_figures_have_the_decimals_of_their_metric():
    point = first(study("completion"))
    assert point.means["ported"].digits == 3
    assert point.ranking["ported"].digits == 1
    assert point.leads["host"].digits == 3
    assert point.recovery.ratio.digits == 2


def test_no_threshold_is_set_where_there_is_none(good):
    kind = good.results.kind.name
    with pytest.raises(BadInput, match=f"of the kind {kind}; leave it out"):
        corrected_on_test(good.results)

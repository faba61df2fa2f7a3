"""The rule that decides: what it says, how often it is wrong; what it finds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from peftport.reports import analyse
from peftport.reports.decision import decide, rule, texts_needed
from peftport.reports.evidence import THRESHOLD, weigh
from peftport.reports.statistics import Estimate, Series
from simulated_decisions import NULLS, OPEN, Assessments, Truth, opened
from synthetic_studies import Synthetic

pytestmark = pytest.mark.long

PAIR = (("a", "b", "independent"),)


@pytest.mark.parametrize("tested", [50, 100, 300, 1000])
@pytest.mark.parametrize("null", NULLS)
def test_where_no_port_keeps_anything_at_most_5_in_100_are_advised(null, tested):
    assert opened(NULLS[null], tested, 2000) <= 0.05


@pytest.mark.parametrize("null", NULLS)
def test_what_the_simulation_passes_over_is_not_advised(null):
    drawn = Assessments(NULLS[null], 100, 60, np.random.default_rng(1))
    passed_over = np.setdiff1d(np.arange(60), drawn.may_open())
    assert len(passed_over) >= 30
    assert not {drawn.decision(case).action for case in passed_over} & {*OPEN}


@pytest.mark.parametrize(
    ("kept", "tested", "least"), [(1.0, 100, 0.8), (1.0, 300, 0.95), (0.5, 1000, 0.6)]
)
def test_what_is_kept_is_found(kept, tested, least):
    assert opened(Truth(ported=0.3 + kept), tested, 100) >= least


def study(**levels: float) -> Synthetic:
    """An assessment with these true accuracies; bare hosts, samplings and fresh modules name one
    class for nearly everything."""
    return Synthetic(
        techniques=("lora",),
        pairs=PAIR,
        budgets=(0,),
        examples=600,
        scores=True,
        seed_spread=0.02,
        accuracy=lambda row: levels.get(row["condition"], levels["host"]),
        shift=lambda row: 4.0 if row["condition"] in ("host", "sampled", "scratch") else 0.0,
    )


def test_a_threshold_is_called_one_and_not_ported():
    results = study(host=0.75, ported=0.74, native=0.9).results()
    point = analyse(results).points[0]
    assert point.plain_lead.value > 0.15 and point.plain_lead.above_zero
    assert point.only_threshold
    found = decide(analyse(results))
    assert found.action == "train anew"
    assert THRESHOLD in found.reason
    assert THRESHOLD in found.verdicts["copy"]


def test_a_port_that_keeps_what_it_should_is_advised_with_what_it_keeps():
    found = decide(analyse(study(host=0.75, ported=0.89, native=0.9).results()))
    assert (found.action, found.method) == ("copy", "copy")
    assert "over the bare host with the correction" in found.reason


def test_where_training_gains_nothing_the_bare_host_is_advised():
    found = decide(analyse(study(host=0.88, ported=0.88, native=0.89).results()))
    assert found.action == "bare host"
    assert found.text.startswith("use the bare host with the correction")


def test_where_too_little_was_tested_more_labels_are_asked_for_and_how_many():
    small = study(host=0.7, ported=0.8, native=0.85)
    small.examples = 40
    found = decide(analyse(small.results()))
    assert found.action == "label more"
    assert found.more is None or found.more > 0
    assert "label" in found.text


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (20, "test on the 20 rows of the test split that the limit left out first (about "),
        (5000, " more of the 5,000 rows of the test split that the limit left out first"),
    ],
)
def test_rows_that_a_limit_left_out_are_tested_on_before_any_are_labelled(left, told):
    small = study(host=0.7, ported=0.8, native=0.85)
    small.examples = 40
    before, found = (decide(analyse(small.results()), rows) for rows in (0, left))
    assert (before.action, found.action) == ("label more", "test more")
    assert found.more == before.more > 20
    assert told in found.text
    assert "label" not in found.text


def test_where_seeds_differ_by_too_much_no_texts_are_asked_for():
    apart = evidence("copy", 0.72)
    wide = Estimate(0.02, -0.2, 0.24, 0.1, 1.0, 3, "seeds and examples")
    found = rule([replace(apart, leads={"host": wide, "gaussian": wide})], 800)
    assert found.action == "more seeds"
    assert found.text.startswith("take more seeds")


def series(mean: float, seeds: int = 3, examples: int = 800) -> Series:
    """Figures of one mean, with next to no noise."""
    rng = np.random.default_rng(int(1000 * mean))
    values = mean + 0.001 * rng.normal(size=seeds)
    return Series(tuple(range(seeds)), values, values[:, None] + 0.004 * rng.normal(size=(1, 400)))


def evidence(method: str, ported: float, lift: float = 0.1):
    beside = {n: series(v) for n, v in {"host": 0.7, "gaussian": 0.701, "native": 0.9}.items()}
    ranking = {"host": series(0.8), "ported": series(0.8 + lift)}
    corrected = beside | {"ported": series(ported)}
    return weigh(method, corrected, corrected, ranking)


def test_the_cheapest_of_equals_is_taken_and_a_surely_better_one_before_it():
    assert rule([evidence("procrustes", 0.85), evidence("copy", 0.85)], 800).action == "copy"
    found = rule([evidence("copy", 0.75), evidence("procrustes", 0.85)], 800)
    assert (found.action, found.method) == ("port", "procrustes")
    found = rule([evidence("distill:steps=7", 0.85), evidence("procrustes", 0.78)], 800)
    assert (found.action, found.method) == ("distil", "distill:steps=7")


def test_a_port_that_ranks_no_better_than_the_bare_host_does_not_open():
    assert rule([evidence("copy", 0.85, lift=-0.01)], 800).action != "copy"


def test_more_texts_follow_from_the_error_that_is_not_the_seeds():
    lead = Estimate(0.05, -0.03, 0.13, 0.04, 0.0, 3, "seeds and examples")
    assert texts_needed(lead, 100) == math.ceil((100 * 0.04**2 / (0.05 / 2.8) ** 2 - 100) / 10) * 10
    of_seeds = Estimate(0.05, -0.03, 0.13, 0.04, 1.0, 3, "seeds and examples")
    assert texts_needed(of_seeds, 100) is None

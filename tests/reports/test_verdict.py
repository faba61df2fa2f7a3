"""The verdict on one module: every branch, on studies of known truth."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from peftport.reports.verdict import verdict
from synthetic_studies import Synthetic


def assessed(levels: Mapping[str, float], **others: Any) -> str:
    """The verdict where every condition has its accuracy at every budget."""
    truth = {"host": 0.5, "sampled": 0.5, "scratch": 0.5, "ported": 0.5, "native": 0.9} | levels

    def accuracy(row: Mapping[str, Any]) -> float:
        later = row["budget"] > 0 and f"{row['condition']} later" in truth
        return truth[row["condition"] + (" later" if later else "")]

    study = {"techniques": ("lora",), "pairs": (("old", "new", "continuation"),), "examples": 600}
    return verdict(Synthetic(**(study | {"accuracy": accuracy} | others)).results())


def test_a_port_that_keeps_most_is_to_be_ported() -> None:
    found = assessed({"ported": 0.88})
    pattern = (
        r"Copying keeps 0\.9\d of what a native module gains \(0\.\d\d to [01]\.\d\d, 3 seeds\)"
    )
    assert re.fullmatch(pattern + ": port it.", found)


def test_a_port_that_keeps_some_is_to_be_trained_on() -> None:
    assert assessed({"ported": 0.7}).endswith("3 seeds): port it and train it on.")


def test_a_port_that_keeps_nothing_is_not_worth_it() -> None:
    found = assessed({})
    assert found.startswith("Copying brings nothing here: recovery ")
    assert found.endswith("train anew.")


def test_a_port_that_surely_keeps_a_little_is_not_worth_it_either() -> None:
    found = assessed({"ported": 0.54}, examples=4000, seed_spread=0.0)
    assert re.match(r"Copying brings little here: recovery 0\.1\d \(0\.\d\d to 0\.1\d", found)


def test_a_port_that_keeps_nothing_may_still_be_the_better_start() -> None:
    found = assessed({"ported later": 0.85, "scratch later": 0.7, "sampled later": 0.7})
    assert "brings nothing here" in found
    assert re.search(r"train on from it, for after 100 steps it is 0\.1\d \(", found)


def test_a_port_that_does_harm_is_called_so() -> None:
    assert assessed({"ported": 0.3}).startswith("Copying does harm here: recovery \N{MINUS SIGN}0.")


def test_a_port_no_better_than_its_controls_is_called_so() -> None:
    found = assessed({"ported": 0.7, "sampled": 0.7})
    assert "but is not surely better than sampled: train on from it" in found
    level = {"ported": 0.7, "sampled": 0.7, "scratch later": 0.7}
    assert assessed(level).endswith("but is not surely better than sampled.")


def test_runs_too_few_to_tell_are_said_to_be() -> None:
    found = assessed({"native": 0.6, "ported": 0.53}, examples=300, seed_spread=0.02)
    assert found.startswith("Not known: these runs cannot tell whether copying keeps anything")


def test_without_a_native_gain_there_is_no_verdict() -> None:
    found = assessed({"native": 0.5, "ported": 0.5})
    assert found.startswith("No verdict: a native module")
    assert "over the bare host" in found


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({"failed": lambda row: row["condition"] == "ported"}, "the loss is not a number"),
        ({"conditions": ("host", "scratch")}, "no ported module was run"),
        ({"conditions": ("ported", "scratch", "native")}, "without the bare host"),
    ],
)
def test_what_is_not_known_is_said(others: dict[str, Any], words: str) -> None:
    found = assessed({"ported": 0.88}, **others)
    assert found.startswith("Not known: ")
    assert words in found


def test_missing_controls_are_named() -> None:
    found = assessed({"ported": 0.88}, conditions=("ported", "scratch", "native", "host"))
    assert "with no module sampled to compare it with: port it." in found


def test_another_method_goes_by_its_name() -> None:
    assert assessed({"ported": 0.88}, methods=("procrustes",)).startswith("Porting by procrustes ")


def test_an_assessment_that_begins_later_says_when() -> None:
    assert "gains after 10 steps (" in assessed({"ported": 0.88}, budgets=(10, 100))

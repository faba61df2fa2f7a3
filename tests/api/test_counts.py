"""What the command line refuses of a number the functions refuse as well, by the option's name."""

from __future__ import annotations

import pytest

import peftport as pp
from peftport.errors import BadInput

LAB, TASK = "lab:small", "lab:films"


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda out: pp.train(LAB, TASK, "lora", steps=0, out=out), "--steps 0: expected 1"),
        (lambda out: pp.train(LAB, TASK, "lora", steps=-1, out=out), "--steps -1"),
        (lambda out: pp.train(LAB, TASK, "lora", batch_size=0, out=out), "--batch-size 0"),
        (lambda out: pp.train(LAB, TASK, "lora", limit_train=0, out=out), "--limit-train 0"),
        (lambda out: pp.port("nowhere", to=LAB, steps=-1, out=out), "--steps -1: expected 0"),
        (lambda out: pp.port("nowhere", to=LAB, batch_size=0, out=out), "--batch-size 0"),
        (lambda out: pp.test(None, LAB, TASK, limit_test=0), "--limit-test 0"),
        (lambda out: pp.assess("nowhere", LAB, TASK, seeds=0), "--seeds 0"),
        (lambda out: pp.assess("nowhere", LAB, TASK, native_steps=0), "--native-steps 0"),
        (lambda out: pp.assess("nowhere", LAB, TASK, budgets=[-1]), "--budgets -1"),
        (lambda out: pp.assess("nowhere", LAB, TASK, budgets=[]), "--budgets: expected one"),
    ],
)
def test_a_count_that_is_too_small_is_refused_before_anything_is_looked_for(call, named, tmp_path):
    with pytest.raises(BadInput, match=named):
        call(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rate", [0.0, -1e-3, float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (
            lambda rate, out: pp.train(LAB, TASK, "lora", learning_rate=rate, out=out),
            "learning-rate",
        ),
        (
            lambda rate, out: pp.port("nowhere", to=LAB, learning_rate=rate, out=out),
            "learning-rate",
        ),
        (
            lambda rate, out: pp.assess("nowhere", LAB, TASK, learning_rates=[rate]),
            "learning-rates",
        ),
        (lambda rate, out: pp.Study("quick").tune([0.1, rate], out=out), "rates"),
    ],
)
def test_a_learning_rate_that_trains_nothing_is_refused_before_anything_is_looked_for(
    call, named, rate, tmp_path
):
    with pytest.raises(BadInput, match=f"--{named} {rate:g}: expected a number above 0"):
        call(rate, tmp_path / "out")
    assert not list(tmp_path.iterdir())

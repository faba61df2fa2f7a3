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
        (lambda out: pp.train(LAB, TASK, "lora", seed=-1, out=out), "--seed -1: expected"),
        (lambda out: pp.train(LAB, TASK, "lora", seed=2**63, out=out), f"--seed {2**63}"),
        (lambda out: pp.port("nowhere", to=LAB, seed=-1, out=out), "--seed -1: expected"),
        (
            lambda out: pp.port("nowhere", to=LAB, learning_rate=0.1, out=out),
            "--learning-rate 0.1 needs --steps",
        ),
        (lambda out: pp.port("nowhere", to=LAB, steps=-1, out=out), "--steps -1: expected 0"),
        (lambda out: pp.port("nowhere", to=LAB, batch_size=0, out=out), "--batch-size 0"),
        (lambda out: pp.test(None, LAB, TASK, limit_test=0), "--limit-test 0"),
        (lambda out: pp.assess("nowhere", LAB, TASK, seeds=0), "--seeds 0"),
        (lambda out: pp.assess("nowhere", LAB, TASK, native_steps=0), "--native-steps 0"),
        (lambda out: pp.assess("nowhere", LAB, TASK, budgets=[-1]), "--budgets -1"),
        (lambda out: pp.assess("nowhere", LAB, TASK, budgets=[]), "--budgets: expected one"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_looked_for(call, named, tmp_path):
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


def test_a_module_that_no_memory_holds_is_refused_before_it_is_made(tmp_path):
    asked = {"options": {"rank": 10**12}, "out": tmp_path / "out"}
    with pytest.raises(
        BadInput, match=r"--technique lora: .* parameters on lab:small, .* GB are free"
    ):
        pp.train(LAB, TASK, "lora", **asked)
    assert not list(tmp_path.iterdir())

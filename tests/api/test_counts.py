"""What the command line refuses of a count the functions refuse as well, by the option's name."""

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
    ],
)
def test_a_count_that_is_too_small_is_refused_before_anything_is_looked_for(call, named, tmp_path):
    with pytest.raises(BadInput, match=named):
        call(tmp_path / "out")
    assert not list(tmp_path.iterdir())

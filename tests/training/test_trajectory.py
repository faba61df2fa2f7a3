"""One training whose budgets are runs read off along the way.

That a lane equals its solo run, and dies alone, is held in tests/techniques/test_lanes.py.
"""

from __future__ import annotations

import importlib
import time
from itertools import pairwise

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional

from families import ONE_OF_EACH_KIND
from peftport.techniques.base import Parameters, take_lane
from peftport.training import TrainingSettings, class_logits, readout_of, trajectory
from tiny_runs import distance, encoded, host_in, run, start_of, task_in

room = importlib.import_module("peftport.training.trajectory")
"""The file, which its function hides by the same name."""

SETTINGS = TrainingSettings(batch_size=8)


@pytest.fixture(params=ONE_OF_EACH_KIND)
def here(request, tiny_host, tiny_task):
    """A host of each kind and the task."""
    return host_in(tiny_host(request.param)), task_in(tiny_task)


@pytest.fixture
def t5(tiny_host, tiny_task):
    return host_in(tiny_host("t5")), task_in(tiny_task)


def equal(one: Parameters, other: Parameters) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


# Budgets


def test_a_budget_is_the_same_run_whatever_else_is_read_and_however_far_it_goes(here):
    """Bit for bit: parameters; and losses are means since the reading before."""
    alone = {b: run("lora", *here, [b], [1e-2, 3e-3], [1, 2])[0] for b in (3, 8)}
    start, three, eight = run("lora", *here, [0, 3, 8], [1e-2, 3e-3], [1, 2])
    assert equal(three.parameters, alone[3].parameters)
    assert equal(eight.parameters, alone[8].parameters)
    assert not equal(three.parameters, eight.parameters)
    assert not equal(start.parameters, three.parameters)
    assert three.losses == alone[3].losses
    for lane in range(2):
        whole = 3 * three.losses[lane] + 5 * eight.losses[lane]
        assert whole == pytest.approx(8 * alone[8].losses[lane], rel=1e-5)


def test_budgets_are_read_once_and_in_rising_order(t5):
    readings = run("lora", *t5, [4, 0, 2, 4, 0], [1e-2], [1])
    assert [reading.budget for reading in readings] == [0, 2, 4]


def test_budget_0_is_the_start_and_training_leaves_the_start_alone(t5):
    _, _, start = start_of("houlsby", t5[0], [1, 2])
    zero, later = run("houlsby", *t5, [0, 4], [1e-2, 1e-2], [1, 2])
    assert equal(zero.parameters, start)
    assert zero.losses == ()
    assert zero.failures == (None, None)
    assert not equal(later.parameters, start)
    # What was read first is not trained on under the reader's hands.
    assert not any(tensor.requires_grad for tensor in zero.parameters.values())


def test_a_reader_may_change_what_was_read(t5):
    host, task = t5
    made, config, start = start_of("lora", host, [1])
    ends = []
    for spoil in (False, True):
        readings = trajectory(
            *(host, made, config, start, encoded(host, task, "train"), readout_of(host, task)),
            settings=SETTINGS,
            budgets=[0, 2, 4],
            learning_rates=[1e-2],
            seeds=[1],
        )
        for reading in readings:
            end = {name: tensor.clone() for name, tensor in reading.parameters.items()}
            if spoil:
                for tensor in reading.parameters.values():
                    tensor.fill_(torch.nan)
        ends.append(end)
    assert equal(*ends)


# Repeatable


def test_the_same_training_gives_the_same_bits(here):
    one, other = (run("prefix", *here, [6], [1e-2, 1e-2], [3, 4])[0] for _ in range(2))
    assert equal(one.parameters, other.parameters)
    assert one.losses == other.losses


def test_a_seed_decides_the_order_of_the_data_and_nothing_else_does(t5):
    host, task = t5
    made, config, start = start_of("lora", host, [1, 1, 1])
    (reading,) = trajectory(
        *(host, made, config, start, encoded(host, task, "train"), readout_of(host, task)),
        settings=SETTINGS,
        budgets=[6],
        learning_rates=[1e-2, 1e-2, 1e-2],
        seeds=[5, 6, 5],
    )
    first, other, same = (take_lane(reading.parameters, lane) for lane in range(3))
    assert distance(first, same) < 1e-5
    assert distance(first, other) > 1e-2


# The schedule, and the step


def test_the_warmup_is_that_of_the_settings(t5):
    """AdamW's first step goes as far as the learning rate, whatever the gradient."""
    moved = []
    for warmup in (1, 4):
        settings = TrainingSettings(batch_size=8, warmup=warmup)
        start, one = run("lora", *t5, [0, 1], [1e-2], [1], settings)
        ups = [name for name in start.parameters if name.endswith("lora_B")]
        moved.append(torch.cat([one.parameters[name].flatten() for name in ups]).abs().sum())
    assert float(moved[0] / moved[1]) == pytest.approx(4, rel=1e-3)


def test_a_first_step_moves_by_the_lane_s_own_rate_times_the_warmup(t5):
    """Adam's first step moves by the rate wherever the gradient is not tiny."""
    settings = TrainingSettings(batch_size=8, warmup=4)
    start, after = run("prefix", *t5, [0, 1], [1e-1, 1e-2, 0.0], [1, 2, 3], settings)
    moved = [
        max(
            float((after.parameters[n][lane] - t[lane]).abs().max())
            for n, t in start.parameters.items()
        )
        for lane in range(3)
    ]
    assert moved == pytest.approx([0.025, 0.0025, 0.0], rel=1e-2)


def test_a_trajectory_is_the_training_that_torch_would_write(here):
    """Mean cross-entropy of the class logits, clipped by norm, AdamW, warm-up: step by step."""
    host, task = here
    settings = TrainingSettings(batch_size=8, warmup=3, clip=0.1, weight_decay=0.05)
    # Not LoRA: its gradients on a random host are near Adam's epsilon, where rounding decides.
    found = run("houlsby", host, task, [10], [2e-2], [7], settings)[0]

    made, config, start = start_of("houlsby", host, [7])
    readout = readout_of(host, task)
    parameters = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    every = list(parameters.values())
    optimizer = torch.optim.AdamW(every, lr=2e-2, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / 3))
    losses = []
    for batch in encoded(host, task, "train").training_batches(8, 10, [7]):
        optimizer.zero_grad()
        with made.attach(host, config, parameters):
            loss = functional.cross_entropy(
                class_logits(host, batch, parameters, readout), batch.labels
            )
            loss.backward()
        torch.nn.utils.clip_grad_norm_(every, 0.1)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    ended = {name: tensor.detach() for name, tensor in parameters.items()}
    assert distance(ended, start) > 0.02
    assert distance(found.parameters, ended) < 1e-4
    assert found.losses[0] == pytest.approx(sum(losses) / 10, rel=1e-5)


# What it reports


def test_a_lane_fails_at_the_reading_after_its_death_and_stays_failed(t5):
    readings = run("lora", *t5, [0, 1, 2, 5], [1e38, 1e-2], [1, 2])
    failures = [reading.failures[0] for reading in readings]
    assert failures == [None, None, *["the loss or its gradient was not finite at step 2"] * 2]
    assert [reading.failures[1] for reading in readings] == [None] * 4


def test_time_between_readings_is_not_time_of_training(t5):
    host, task = t5
    made, config, start = start_of("lora", host, [1])
    seconds = []
    for reading in trajectory(
        *(host, made, config, start, encoded(host, task, "train"), readout_of(host, task)),
        settings=SETTINGS,
        budgets=[0, 1, 2],
        learning_rates=[1e-2],
        seeds=[1],
    ):
        seconds.append(reading.seconds)
        time.sleep(1.0)
    assert all(earlier <= later for earlier, later in pairwise(seconds))
    # The pauses alone are two seconds before the last reading; machines differ, this far not.
    assert 0 < seconds[-1] - seconds[0] < 1.5


def test_the_host_is_as_it_was(t5):
    host, _ = t5
    before = {name: tensor.clone() for name, tensor in host.model.state_dict().items()}
    run("houlsby", *t5, [3], [1e-2], [1])
    assert all(torch.equal(t, before[name]) for name, t in host.model.state_dict().items())
    assert all(tensor.grad is None for tensor in host.model.parameters())


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"warmup": -1}, {"clip": 0}, {"weight_decay": -0.1}, {"warm_up": 3}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        TrainingSettings(**wrong)

"""A lane is its own run: trained beside others, also beside one that dies, it ends where it would
have ended alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
import torch

from families import ONE_OF_EACH_KIND
from peftport.hosts.host import Host
from peftport.tasks import Task
from peftport.techniques.base import Parameters, lanes_of, stack_lanes, take_lane
from peftport.training import (
    Evaluation,
    Reading,
    TrainingSettings,
    evaluate,
    readout_of,
    trajectory,
)
from techniques.references import drawn
from tiny_runs import CASES, distance, encoded, host_in, run, start_of, task_in

pytestmark = pytest.mark.long

CASES_HERE = ("houlsby", "compacter", "rslora", "prefix")
STEPS = 50
SEEDS, RATES = [11, 12, 13], [3e-3, inf, 1e-2]
DYING = 1


@dataclass(frozen=True)
class Together:
    """Three lanes of different seeds and rates, the middle one dying, and each of them alone."""

    case: str
    host: Host
    task: Task
    start: Reading
    lanes: Reading
    alone: list[Reading]

    def evaluations(self, parameters: Parameters) -> list[Evaluation | None]:
        made, config, _ = start_of(self.case, self.host, [0])
        split = encoded(self.host, self.task, "test")
        return evaluate(
            self.host, made, config, parameters, split, readout_of(self.host, self.task)
        )


CELLS = [(family, case) for family in ONE_OF_EACH_KIND for case in CASES_HERE]


@pytest.fixture(scope="module", params=CELLS, ids=[f"{f}-{case}" for f, case in CELLS])
def trained(request, tiny_host, tiny_task) -> Together:
    family, case = request.param
    host, task = host_in(tiny_host(family)), task_in(tiny_task)
    start, lanes = run(case, host, task, [0, STEPS], RATES, SEEDS)
    alone = [
        run(case, host, task, [STEPS if i != DYING else 5], [rate], [seed])[0]
        for i, (rate, seed) in enumerate(zip(RATES, SEEDS, strict=True))
    ]
    return Together(case, host, task, start, lanes, alone)


def test_a_lane_ends_where_its_solo_run_ends(trained):
    for lane in (0, 2):
        found = take_lane(trained.lanes.parameters, lane)
        alone = take_lane(trained.alone[lane].parameters, 0)
        assert distance(found, alone) < 1e-4
        # It went somewhere, and not where another lane went.
        assert distance(found, take_lane(trained.start.parameters, lane)) > 1e-2
        assert distance(found, take_lane(trained.lanes.parameters, 2 - lane)) > 1e-2
        assert trained.lanes.failures[lane] is None
        assert trained.lanes.losses[lane] == pytest.approx(trained.alone[lane].losses[0], rel=1e-4)


def test_a_lane_predicts_what_its_solo_run_predicts(trained):
    together = trained.evaluations(trained.lanes.parameters)
    for lane in (0, 2):
        (alone,) = trained.evaluations(trained.alone[lane].parameters)
        assert together[lane] is not None
        assert alone is not None
        assert together[lane].predictions.tolist() == alone.predictions.tolist()
        assert together[lane].figures["log_loss"] == pytest.approx(
            alone.figures["log_loss"], rel=1e-3
        )


def test_a_lane_dies_alone_and_says_at_which_step(trained):
    reason = "the loss or its gradient was not finite at step 2"
    assert trained.lanes.failures == (None, reason, None)
    assert trained.alone[DYING].failures == (reason,)
    assert trained.evaluations(trained.lanes.parameters)[DYING] is None


@pytest.mark.parametrize("case", CASES_HERE)
def test_a_lane_that_is_broken_from_the_start_takes_none_with_it(case, tiny_host, tiny_task):
    """Its death is that of its own first step, and it stays as it was."""
    host, task = host_in(tiny_host("t5")), task_in(tiny_task)
    made, config, start = start_of(case, host, [1, 2])
    for tensor in start.values():
        tensor[0] = torch.nan
    (reading,) = trajectory(
        host,
        made,
        config,
        start,
        encoded(host, task, "train"),
        readout_of(host, task),
        settings=TrainingSettings(batch_size=8),
        budgets=[3],
        learning_rates=[1e-3, 1e-3],
        seeds=[1, 2],
    )
    assert reading.failures == ("the loss or its gradient was not finite at step 1", None)
    assert all(tensor[0].isnan().all() for tensor in reading.parameters.values())
    assert all(tensor[1].isfinite().all() for tensor in reading.parameters.values())


def test_lanes_are_stacked_and_taken_apart():
    modules = [drawn({"a": (2, 3), "b": (4,)}, seed) for seed in range(3)]
    lanes = stack_lanes(modules)
    assert lanes_of(lanes) == 3
    assert lanes["a"].shape == (3, 2, 3)
    for lane, module in enumerate(modules):
        taken = take_lane(lanes, lane)
        assert all(torch.equal(taken[name], tensor) for name, tensor in module.items())
        taken["a"].zero_()
    assert lanes["a"].all()


def test_every_technique_is_tried():
    assert {CASES[case][0] for case in CASES_HERE} == {name for name, _ in CASES.values()}

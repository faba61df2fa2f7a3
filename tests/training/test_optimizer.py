"""AdamW over lanes is torch's AdamW on each lane, and a lane's failure is its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftport.techniques.base import Parameters, stack_lanes, take_lane
from peftport.training.optimizer import LaneAdamW
from techniques.references import drawn

SHAPES = {"a.weight": (3, 5), "a.bias": (5,), "b.weight": (2, 2, 4)}
RATES = (1e-3, 3e-2, 0.5)
LANES, STEPS, WARMUP = len(RATES), 40, 7
# Gradients far above, about and far below the norm at which they are clipped.
SIZES = (30.0, 0.2, 1e-4)


def starts() -> list[Parameters]:
    return [drawn(SHAPES, seed) for seed in range(LANES)]


def gradients(step: int) -> list[Parameters]:
    """The gradient of each lane at a step."""
    drawn_now = [drawn(SHAPES, 1000 * lane + step + 50) for lane in range(LANES)]
    return [
        {name: size * tensor for name, tensor in each.items()}
        for size, each in zip(SIZES, drawn_now, strict=True)
    ]


def warmup(step: int) -> float:
    return min(1.0, (step + 1) / WARMUP)


def give(optimizer: LaneAdamW, lanes: list[Parameters]) -> None:
    """Let gradients reach the optimizer as training does: through its parameters."""
    stacked, parameters = stack_lanes(lanes), optimizer.parameters()
    sum((parameters[n] * gradient).sum() for n, gradient in stacked.items()).backward()


def torch_ends(lane: int, clip: float | None, weight_decay: float) -> Parameters:
    """Where torch's own AdamW, clipping and schedule bring one lane."""
    parameters = {n: t.clone().requires_grad_() for n, t in starts()[lane].items()}
    optimizer = torch.optim.AdamW(
        list(parameters.values()), lr=RATES[lane], weight_decay=weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmup)
    for step in range(STEPS):
        for name, gradient in gradients(step)[lane].items():
            parameters[name].grad = gradient.clone()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(list(parameters.values()), clip)
        optimizer.step()
        schedule.step()
    return {name: tensor.detach() for name, tensor in parameters.items()}


@pytest.mark.parametrize("clip", [None, 1.0, 0.05])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_lane_is_where_torch_would_bring_it(clip, weight_decay):
    optimizer = LaneAdamW(stack_lanes(starts()), torch.tensor(RATES), clip, weight_decay, WARMUP)
    for step in range(STEPS):
        give(optimizer, gradients(step))
        optimizer.step()
    assert optimizer.alive.all()
    for lane in range(LANES):
        found, expected = (
            take_lane(optimizer.parameters(), lane),
            torch_ends(lane, clip, weight_decay),
        )
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def one_step(lanes: list[Parameters], clip: float | None) -> Tensor:
    """How far each lane's mean gradient went in one step, (lanes,)."""
    optimizer = LaneAdamW(stack_lanes(starts()), torch.tensor(RATES), clip)
    give(optimizer, lanes)
    optimizer.step()
    return optimizer.mean.norm(dim=1) / 0.1


def test_a_lane_is_clipped_by_its_own_norm_alone():
    """A neighbour with a huge gradient does not shrink it, nor one with a tiny one spare it."""
    lanes = gradients(0)
    norms = [torch.cat([t.flatten() for t in lane.values()]).norm() for lane in lanes]
    assert norms[0] > 50 and 0.3 < norms[1] < 1 and norms[2] < 1e-2
    torch.testing.assert_close(one_step(lanes, clip=0.3), torch.tensor([0.3, 0.3, norms[2]]))
    torch.testing.assert_close(one_step(lanes, clip=None), torch.stack(norms))


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_stops_its_lane_for_good_and_no_other(broken):
    optimizer = LaneAdamW(stack_lanes(starts()), torch.tensor(RATES), 1.0, 0.1, WARMUP)
    for step in range(STEPS):
        lanes = gradients(step)
        if step == 3:
            before = take_lane(optimizer.parameters(), 1)
            lanes[1]["a.bias"][2] = broken
        give(optimizer, lanes)
        optimizer.step()
    assert optimizer.alive.tolist() == [True, False, True]
    stopped = take_lane(optimizer.parameters(), 1)
    assert all(torch.equal(stopped[name], tensor) for name, tensor in before.items())
    for lane in (0, 2):
        found = take_lane(optimizer.parameters(), lane)
        for name, tensor in torch_ends(lane, 1.0, 0.1).items():
            torch.testing.assert_close(found[name], tensor, rtol=1e-5, atol=1e-6)


def test_the_parameters_are_the_start_by_name_and_the_start_is_left_alone():
    start = stack_lanes(starts())
    kept = {name: tensor.clone() for name, tensor in start.items()}
    optimizer = LaneAdamW(start, torch.tensor(RATES))
    assert list(optimizer.parameters()) == list(start)
    assert all(torch.equal(t, start[name]) for name, t in optimizer.parameters().items())
    give(optimizer, gradients(0))
    optimizer.step()
    assert all(torch.equal(tensor, kept[name]) for name, tensor in start.items())
    assert not torch.equal(optimizer.parameters()["a.bias"], kept["a.bias"])


def test_a_step_uses_up_its_gradient():
    optimizer = LaneAdamW(stack_lanes(starts()), torch.tensor(RATES))
    give(optimizer, gradients(0))
    optimizer.step()
    assert optimizer.flat.grad is None
    assert optimizer.steps == 1


@pytest.mark.parametrize(
    ("warmup", "expected"),
    [(4, [0.25, 0.5, 0.75, 1, 1, 1]), (1, [1] * 6), (0, [1] * 6)],
)
def test_the_learning_rate_rises_over_the_warmup_and_is_constant_from_then_on(warmup, expected):
    """Under a constant gradient AdamW goes as far as the learning rate in every step."""
    optimizer = LaneAdamW(stack_lanes(starts()), torch.tensor(RATES), None, warmup=warmup)
    found = []
    for _ in expected:
        before = optimizer.flat.detach().clone()
        give(optimizer, [{n: torch.ones_like(t) for n, t in lane.items()} for lane in starts()])
        optimizer.step()
        moved = (before - optimizer.flat.detach()).mean(1) / torch.tensor(RATES)  # (lanes,)
        assert moved.max() - moved.min() < 1e-3
        found.append(float(moved.mean()))
    assert found == pytest.approx(expected, abs=1e-3)

"""A replayed step does what the step does, on every kind of host and with every technique.

There is no GPU here. `Recording` does on a CPU what a CUDA graph does: it keeps the operations of a
step with the memory that they read and write, and does them again without any Python.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from families import ONE_OF_EACH_KIND
from peftport.tasks.batches import Batch
from peftport.training import TrainingSettings
from peftport.training.graphs import SWITCH, Replayed, replayed
from tiny_runs import host_in, run, task_in

room = importlib.import_module("peftport.training.trajectory")
CPU = torch.device("cpu")
STEPS = 12


class Recording(TorchDispatchMode):
    """Operations with what they were given and gave. They are also done while they are recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[tuple[Callable, tuple, dict, object]] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        # A graph cannot be recorded of what waits for a value.
        assert "_local_scalar_dense" not in str(operation), "the step asks the device for a value"
        result = operation(*args, **(kwargs or {}))
        self.done.append((operation, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for operation, args, kwargs, before in self.done:
            again = operation(*args, **kwargs)
            for old, new in zip(tree_flatten(before)[0], tree_flatten(again)[0], strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def recorded(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """As `cuda_graph`; the first replay is the recording itself."""
    recording = Recording()
    with recording:
        result = step()
    fresh = [True]

    def replay() -> Tensor:
        if not fresh:
            recording.replay()
        fresh.clear()
        return result

    return replay


@pytest.fixture
def replays(monkeypatch) -> dict[str, list]:
    """Trainings replay their steps as on a GPU; gives what was recorded, and shapes of batches."""
    made: dict[str, list] = {"recorded": [], "shapes": []}

    def capture(step):
        made["recorded"].append(step)
        return recorded(step)

    def replaying(step, device):
        def seen(batch):
            made["shapes"].append(batch.input_ids.shape)
            return step(batch)

        return Replayed(seen, device, capture)

    monkeypatch.setattr(room, "replayed", replaying)
    # transformers looks for packed rows in a decoder's positions, but not while recording.
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    return made


@pytest.mark.parametrize(
    "case", ["houlsby", "compacter", "lora", "prefix", "reparametrised prefix"]
)
@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_replayed_steps_end_where_the_steps_end(family, case, request, tiny_host, tiny_task):
    """With a warm-up that the recording begins in, and a lane that dies while it is replayed."""
    host, task = host_in(tiny_host(family)), task_in(tiny_task)
    settings = TrainingSettings(batch_size=8, warmup=10)
    given = (case, host, task, [0, STEPS], [1e-2, 1e38, 3e-3], [1, 2, 3], settings)
    _, expected = run(*given)
    made = request.getfixturevalue("replays")
    _, found = run(*given)
    assert made["recorded"] and len(set(made["shapes"])) > 1
    assert found.failures == expected.failures
    assert found.failures[1] is not None and found.failures[0] is None
    for name, tensor in expected.parameters.items():
        torch.testing.assert_close(found.parameters[name], tensor, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(
        torch.tensor(found.losses)[[0, 2]], torch.tensor(expected.losses)[[0, 2]]
    )


def batch(rows: int, tokens: int, fill: int) -> Batch:
    ids = torch.from_numpy(np.full((rows, tokens), fill))
    return Batch(ids, torch.ones_like(ids), torch.zeros(rows, dtype=torch.int64))


def test_a_shape_is_run_then_recorded_then_replayed_and_the_caller_s_batch_is_left_alone():
    calls: list[tuple[int, ...]] = []
    captured: list[int] = []

    def step(batch: Batch) -> Tensor:
        calls.append(tuple(batch.input_ids.shape))
        return batch.input_ids.sum() + 0

    def capture(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        captured.append(1)
        return step

    steps = Replayed(step, CPU, capture)
    first = batch(2, 3, 1)
    assert steps(first) == 6 and not captured
    assert steps(batch(2, 3, 2)) == 12 and len(captured) == 1
    assert steps(batch(2, 5, 1)) == 10 and len(captured) == 1
    assert steps(batch(2, 3, 3)) == 18 and len(captured) == 1
    assert steps(batch(2, 5, 4)) == 40 and len(captured) == 2
    assert first.input_ids.unique().tolist() == [1]
    assert calls.count((2, 3)) == 3


def test_steps_are_replayed_on_a_gpu_alone_and_only_when_that_is_switched_on(monkeypatch):
    def step(batch: Batch) -> Tensor:
        return batch.labels

    monkeypatch.delenv(SWITCH, raising=False)
    assert replayed(step, torch.device("cuda")) is step
    monkeypatch.setenv(SWITCH, "1")
    assert replayed(step, CPU) is step
    assert isinstance(replayed(step, torch.device("cuda")), Replayed)

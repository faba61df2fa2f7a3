"""Training steps recorded as CUDA graphs and replayed.

A step of a small host is many hundred operations of a few microseconds each, which a GPU computes
faster than Python asks for them. Batches come in a few shapes, one a length bucket: for each, the
first step is run as it is, the second recorded, and every later one replayed from the recording.
Testing, whose batches on a GPU are large, is not recorded.

Off unless the environment variable `PEFTPORT_CUDA_GRAPHS` is 1: it has not been run on a GPU yet.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import Tensor

from peftport.tasks.batches import Batch

SWITCH = "PEFTPORT_CUDA_GRAPHS"

Step = Callable[[Batch], Tensor]
Replay = Callable[[], Tensor]
Capture = Callable[[Callable[[], Tensor]], Replay]


def replayed(step: Step, device: torch.device) -> Step:
    """`step`, replayed where it can be: on a GPU, when it is switched on."""
    if device.type == "cuda" and os.environ.get(SWITCH) == "1":
        return Replayed(step, device, cuda_graph)
    return step


class Replayed:
    """A step that is recorded once for every shape of batch.

    Args:
        step: what it does must follow from the batch and from tensors that it changes in place,
            for Python is not run again; it may not ask the device for a value.
        capture: records what a function without arguments does, without doing it, and returns what
            does it; the tensor that this gives is overwritten the next time.
    """

    def __init__(self, step: Step, device: torch.device, capture: Capture) -> None:
        self._step, self._device, self._capture = step, device, capture
        self._batches: dict[torch.Size, Batch] = {}
        self._replays: dict[torch.Size, Replay] = {}

    def __call__(self, batch: Batch) -> Tensor:
        """Take the step; returns what `step` does, valid until the next one."""
        shape = batch.input_ids.shape
        if shape not in self._batches:
            self._batches[shape] = _own(batch, self._device)
            return self._step(self._batches[shape])
        fixed = self._batches[shape]
        fixed.input_ids.copy_(batch.input_ids)
        fixed.attention_mask.copy_(batch.attention_mask)
        fixed.labels.copy_(batch.labels)
        if shape not in self._replays:
            self._replays[shape] = self._capture(lambda: self._step(fixed))
        return self._replays[shape]()


def _own(batch: Batch, device: torch.device) -> Batch:
    """A copy of the batch on the device, whose memory nobody else writes to."""
    tensors = (batch.input_ids, batch.attention_mask, batch.labels)
    return Batch(*(tensor.to(device, copy=True) for tensor in tensors))


def cuda_graph(step: Callable[[], Tensor]) -> Replay:
    """Record a step as a CUDA graph of its own memory."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay

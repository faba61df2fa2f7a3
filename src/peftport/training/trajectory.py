"""Train the modules of many lanes over one pass of a frozen host, and read them at budgets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from peftport.errors import BadInput
from peftport.memory import FreedMemory
from peftport.techniques.base import Parameters, Technique, lanes_of
from peftport.training.clock import now
from peftport.training.graphs import replayed
from peftport.training.optimizer import LaneAdamW
from peftport.training.readout import Readout

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded
    from peftport.tasks.batches import Batch


class TrainingSettings(BaseModel):
    """How modules are trained: equal for every condition that is compared.

    warmup: steps over which the learning rate rises from 0; it is constant afterwards, so that
        every budget lies on the same trajectory.
    precision: of the products with the host's frozen weights, in training and in testing; a host
        must have been loaded with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    batch_size: int = Field(default=16, ge=1)
    warmup: int = Field(default=5, ge=0)
    clip: float | None = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Reading:
    """The lanes' modules after `budget` steps.

    parameters: with the lane axis, detached.
    failures: per lane, None or why it died.
    losses: mean training loss of each lane since the reading before; empty at budget 0.
    seconds: time of training alone, from the start, for all lanes together.
    """

    budget: int
    parameters: Parameters
    failures: tuple[str | None, ...]
    losses: tuple[float, ...]
    seconds: float


def trajectory(
    host: Host,
    technique: Technique,
    config: Any,
    start: Parameters,
    encoded: Encoded,
    readout: Readout,
    *,
    settings: TrainingSettings,
    budgets: Sequence[int],
    learning_rates: Sequence[float],
    seeds: Sequence[int],
) -> Iterator[Reading]:
    """Train modules side by side and yield them at each budget, in rising order.

    A lane equals its solo run: losses are means over its own rows and summed over lanes, and
    clipping, optimizer state, learning rate, order of data and failure are its own.

    Args:
        start: parameters with the lane axis, one lane per seed.
        seeds: orders of the data, one per lane.
        budgets: steps at which to read; 0 is the start itself.

    Raises:
        BadInput: the host was loaded with another precision than the settings', which records
            would then tell of it.
    """
    _require_precision(host, settings)
    wanted = sorted(set(budgets))
    lanes = lanes_of(start)
    start = {name: tensor.to(host.device) for name, tensor in start.items()}
    optimizer = LaneAdamW(
        start,
        torch.tensor(learning_rates),
        settings.clip,
        settings.weight_decay,
        settings.warmup,
    )
    step = partial(_step, host, technique, config, optimizer, readout)
    take_step = replayed(step, host.device) if readout.replayable else step
    died = torch.full((lanes,), -1, device=host.device)  # step of each lane's death
    total = torch.zeros(lanes, device=host.device)
    seconds, begin, before = 0.0, now(host.device), 0
    freed = FreedMemory()
    batches = iter(encoded.training_batches(settings.batch_size, wanted[-1], seeds))
    for budget in wanted:
        for number in range(before, budget):
            total += take_step(next(batches))
            died = torch.where((died < 0) & ~optimizer.alive, number, died)
            freed.after_step()
        seconds += now(host.device) - begin
        spent = max(1, budget - before)
        yield Reading(
            budget=budget,
            parameters={n: t.detach().clone() for n, t in optimizer.parameters().items()},
            failures=tuple(_reason(step) for step in died.tolist()),
            losses=tuple((total / spent).tolist()) if budget else (),
            seconds=seconds,
        )
        total.zero_()
        begin, before = now(host.device), budget


def _require_precision(host: Host, settings: TrainingSettings) -> None:
    if host.precision != settings.precision:
        raise BadInput(
            f"training is set to {settings.precision} and host {host.name} was loaded in "
            f"{host.precision}: load it with load_host(..., precision={settings.precision!r}), or "
            f"train with Settings(precision={host.precision!r})."
        )


def _step(
    host: Host,
    technique: Technique,
    config: Any,
    optimizer: LaneAdamW,
    readout: Readout,
    batch: Batch,
) -> Tensor:
    """One step of every lane; returns the lanes' losses, (lanes,)."""
    parameters = optimizer.parameters()
    with torch.enable_grad(), technique.attach(host, config, parameters):
        losses = readout.losses(host, batch, parameters, len(optimizer.alive))  # (lanes,)
        losses.sum().backward()
    optimizer.step()
    return losses.detach()


def _reason(step: int) -> str | None:
    return None if step < 0 else f"the loss or its gradient was not finite at step {step + 1}"

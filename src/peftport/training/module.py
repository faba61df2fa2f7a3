"""Make a module: a technique trained on a host for a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftport.errors import RunFailed
from peftport.hosts.geometry import Geometry
from peftport.modules import HostName, Module, Record, versions
from peftport.techniques import technique
from peftport.techniques.base import Parameters, Technique, stack_lanes, take_lane
from peftport.techniques.head import Pooling, initial_head
from peftport.training.evaluate import evaluate_one
from peftport.training.metrics import Evaluation
from peftport.training.readout import readout_of
from peftport.training.trajectory import Settings, trajectory

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Task


@dataclass(frozen=True)
class Trained:
    """A trained module, its loss on the way as (step, mean loss) and its figures on validation."""

    module: Module
    losses: tuple[tuple[int, float], ...]
    validation: Evaluation


def fresh(
    made: Technique,
    config: Any,
    geometry: Geometry,
    classes: int,
    seed: int,
    pooling: Pooling = "mean",
) -> Parameters:
    """The technique's own initialisation on a host of this geometry, an encoder's head included."""
    generator = torch.Generator().manual_seed(seed)
    body = made.initial(config, geometry, generator)
    return body | initial_head(geometry, classes, generator, pooling)


def as_module(
    made: Technique,
    config: Any,
    host: Host,
    tensors: Parameters,
    task: Mapping[str, Any],
    seed: int,
    training: Mapping[str, Any],
) -> Module:
    """Join trained tensors (no lane axis) with their provenance; what only trains is folded away.

    Args:
        task: `Task.record()`.
        training: steps, learning rate and settings, for the record.
    """
    config, tensors = made.fold(config, host.geometry, tensors)
    name = HostName(name=host.name, fingerprint=host.fingerprint)
    record = Record(
        technique=made.name,
        config=config.model_dump(mode="json"),
        geometry=host.geometry.record(),
        host=name,
        origin=name,
        task=dict(task),
        seed=seed,
        training=dict(training),
        versions=versions(),
    )
    return Module(record, {name: t.detach().cpu().contiguous() for name, t in tensors.items()})


def train_module(
    host: Host,
    task: Task,
    name: str,
    options: Mapping[str, Any],
    *,
    steps: int,
    seed: int,
    learning_rate: float | None = None,
    settings: Settings | None = None,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Trained:
    """Train a module from scratch and test it on the validation split.

    Args:
        name: the technique; `options` are its configuration.
        learning_rate: None takes the technique's own.
        progress: called about twenty times with the step and the mean loss since the last call.

    Raises:
        BadInput: technique, options or label words do not fit.
        RunFailed: the loss was not finite.
    """
    from peftport.tasks import encode

    made, settings = technique(name), settings or Settings()
    config, readout = made.configure(options), readout_of(host, task)
    start = fresh(made, config, host.geometry, readout.classes, seed)
    rate = made.learning_rate if learning_rate is None else learning_rate
    every = max(1, steps // 20)
    losses: list[tuple[int, float]] = []
    tensors = start
    for reading in trajectory(
        host,
        made,
        config,
        stack_lanes([start]),
        encode(host.tokenizer, task, "train", host.geometry.kind),
        readout,
        settings=settings,
        budgets=[*range(0, steps, every), steps],
        learning_rates=[rate],
        seeds=[seed],
    ):
        if reading.failures[0]:
            raise RunFailed(
                f"{name} on {host.name}: {reading.failures[0]} (learning rate {rate:g}). "
                "Lower the learning rate."
            )
        tensors = take_lane(reading.parameters, 0)
        if reading.losses:
            losses.append((reading.budget, reading.losses[0]))
            progress(*losses[-1])
    validation = encode(host.tokenizer, task, "validation", host.geometry.kind)
    training = {"steps": steps, "learning_rate": rate, **settings.model_dump()}
    return Trained(
        as_module(made, config, host, tensors, task.record(), seed, training),
        tuple(losses),
        evaluate_one(host, made, config, tensors, validation, readout),
    )

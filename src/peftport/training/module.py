"""Make a module: a technique trained on a host for a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftport.errors import BadInput, RunFailed
from peftport.hosts.vocabulary import tokenizer_mark
from peftport.metrics import Evaluation
from peftport.modules import HostName, Module, Record, versions
from peftport.progress import Losses
from peftport.tasks.unlabelled import encode_unlabelled
from peftport.techniques import technique
from peftport.techniques.base import Parameters, Technique, stack_lanes, take_lane
from peftport.techniques.embeddings import replaced, without_embeddings
from peftport.techniques.head import Pooling, initial_head
from peftport.training.evaluate import evaluate_one
from peftport.training.readout import Readout, readout_of
from peftport.training.trajectory import TrainingSettings, trajectory

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Task


@dataclass(frozen=True)
class Trained:
    """A trained module, its loss on the way as (step, mean loss) and its figures on validation."""

    module: Module
    losses: tuple[tuple[int, float], ...]
    validation: Evaluation


def initial_module(
    made: Technique,
    config: Any,
    host: Host,
    classes: int,
    seed: int,
    pooling: Pooling = "mean",
) -> Parameters:
    """The technique's own initialisation on a host, an encoder's head included."""
    generator = torch.Generator().manual_seed(seed)
    body = made.initial_on(config, host, generator)
    return body | initial_head(host.geometry, classes, generator, pooling)


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
    read_by = tokenizer_mark(host.tokenizer)
    name = HostName(name=host.name, fingerprint=host.fingerprint, tokenizer=read_by)
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
    settings: TrainingSettings | None = None,
    progress: Losses = lambda step, loss: None,
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
    made, settings = technique(name), settings or TrainingSettings()
    config, readout = made.configure(options), readout_of(host, task)
    start = initial_module(made, config, host, readout.classes, seed)
    rate = made.learning_rate if learning_rate is None else learning_rate
    course = _Course(host, task, readout, steps, seed, rate, settings, progress)
    tensors, losses, validation = course.run(made, config, start)
    module = as_module(made, config, host, tensors, task.record(), seed, course.record())
    return Trained(module, losses, validation)


def train_further(
    host: Host,
    task: Task,
    module: Module,
    *,
    steps: int,
    seed: int,
    learning_rate: float | None = None,
    settings: TrainingSettings | None = None,
    progress: Losses = lambda step, loss: None,
) -> Trained:
    """Train a ported module on the host that it was ported to: the warm start.

    The record keeps how the donor was trained; what is trained here stands under `port`, as
    `trained`. An encoder's module without a head gets a fresh one.

    Args:
        learning_rate: None takes the one that the donor was trained with, else the technique's.

    Raises:
        BadInput: the task has other classes than the module, or label words that do not fit.
        RunFailed: the loss was not finite.
    """
    made, settings = technique(module.technique), settings or TrainingSettings()
    config, readout, record = module.config, readout_of(host, task, module.tensors), module.record
    if readout.classes and module.classes not in (0, readout.classes):
        raise BadInput(
            f"task {task.name} has {readout.classes} classes and the module was trained for "
            f"{module.classes}."
        )
    head = torch.Generator().manual_seed(seed)
    body = without_embeddings(module.tensors)
    start = initial_head(host.geometry, readout.classes, head, record.head) | body
    usual = record.training.get("learning_rate", made.learning_rate)
    rate = usual if learning_rate is None else learning_rate
    course = _Course(host, task, readout, steps, seed, rate, settings, progress)
    with replaced(host, config, module.tensors):
        tensors, losses, validation = course.run(made, config, start)
    trained = {"task": task.name, "seed": seed, **course.record()}
    changed = {"task": task.record(), "port": {**(record.port or {}), "trained": trained}}
    whole = {n: t.cpu().contiguous() for n, t in (module.tensors | tensors).items()}
    return Trained(Module(record.model_copy(update=changed), whole), losses, validation)


@dataclass(frozen=True)
class _Course:
    """How one module is trained on a host for a task."""

    host: Host
    task: Task
    readout: Readout
    steps: int
    seed: int
    rate: float
    settings: TrainingSettings
    progress: Losses

    def record(self) -> dict[str, Any]:
        """What a module's record says of its training."""
        return {"steps": self.steps, "learning_rate": self.rate, **self.settings.model_dump()}

    def run(
        self, made: Technique, config: Any, start: Parameters
    ) -> tuple[Parameters, tuple[tuple[int, float], ...], Evaluation]:
        """Train from `start`: the tensors, the losses on the way, the figures on validation."""
        every = max(1, self.steps // 20)
        losses: list[tuple[int, float]] = []
        tensors = start
        for reading in trajectory(
            self.host,
            made,
            config,
            stack_lanes([start]),
            self._encoded("train"),
            self.readout,
            settings=self.settings,
            budgets=[*range(0, self.steps, every), self.steps],
            learning_rates=[self.rate],
            seeds=[self.seed],
        ):
            if reading.failures[0]:
                raise RunFailed(
                    f"{made.name} on {self.host.name}: {reading.failures[0]} (learning rate "
                    f"{self.rate:g}). Lower the learning rate."
                )
            tensors = take_lane(reading.parameters, 0)
            if reading.losses:
                losses.append((reading.budget, reading.losses[0]))
                self.progress(*losses[-1])
        split, host = self._encoded("validation"), self.host
        texts = encode_unlabelled(host.tokenizer, self.task, host.geometry.kind)
        evaluation = evaluate_one(host, made, config, tensors, split, self.readout, texts)
        return tensors, tuple(losses), evaluation

    def _encoded(self, split: str) -> Any:
        from peftport.tasks import encode

        return encode(self.host.tokenizer, self.task, split, self.host.geometry.kind)

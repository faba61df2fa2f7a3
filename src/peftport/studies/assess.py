"""Assess one module on one host: the port, its controls and a native module, as a study's rows.

Two passes of the host do everything: scratch modules of all seeds, which trained in full are the
native ones, and the copy with its three samplings, all seeds side by side as lanes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from peftport.errors import BadInput
from peftport.modules import HostName, Module
from peftport.porting import SAMPLINGS, port
from peftport.tasks import encode
from peftport.techniques import technique
from peftport.techniques.base import Parameters, stack_lanes
from peftport.techniques.head import WEIGHT, initial_head
from peftport.training import Evaluation, Readout, Settings, evaluate, readout_of, trajectory
from peftport.training.module import fresh

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded, Task


@dataclass(frozen=True)
class Lane:
    """One row's condition, and where it starts."""

    condition: str
    how: str
    seed: int
    start: Parameters


@dataclass(frozen=True)
class Found:
    """One tested module: an evaluation, or why there is none."""

    lane: Lane
    budget: int
    evaluation: Evaluation | None
    seconds: float
    error: str = ""


@dataclass(frozen=True)
class Rows:
    """What was found, as a study exports it.

    rows: one mapping a run, with a study's columns. predictions: run id -> predicted classes,
    (n_test,). gold: task -> true classes, (n_test,).
    """

    rows: list[dict[str, Any]]
    predictions: dict[str, np.ndarray]
    gold: dict[str, np.ndarray]


@dataclass
class Assessment:
    """What is to be assessed.

    budgets: steps of training on the receiving host at which everything is tested.
    seeds: of the order of the data, of what controls draw, and of native modules.
    native_steps: how long a native module trains.
    rates: candidate learning rates; with more than one, each condition takes the one that is best
        on the validation split.
    """

    module: Module
    host: Host
    task: Task
    relation: str
    budgets: Sequence[int]
    seeds: Sequence[int]
    native_steps: int
    rates: Sequence[float]
    settings: Settings

    def __post_init__(self) -> None:
        self.technique = technique(self.module.technique)
        self.readout: Readout = readout_of(self.host, self.task)
        if self.readout.classes != self.module.classes:
            raise BadInput(
                f"task {self.task.name} has {self.readout.classes} classes and the module was "
                f"trained for {self.module.classes}."
            )

    def run(self) -> tuple[Rows, dict[str, float]]:
        """Train and test everything.

        Returns:
            The rows with predictions, and the learning rate of each condition.

        Raises:
            BadInput: the module cannot be copied to the host; the message says why.
        """
        ported, fresh_lanes = self._ported_lanes(), self._scratch_lanes()
        rates = self._choose(ported + fresh_lanes)
        found = [
            *self._bare(),
            *self._train(ported, self.budgets, rates),
            *self._native(fresh_lanes, rates),
        ]
        return self._collect(found), rates

    @cached_property
    def _train_split(self) -> Encoded:
        return self._encoded("train")

    def _encoded(self, split: str) -> Encoded:
        return encode(self.host.tokenizer, self.task, split, self.host.geometry.kind)

    @cached_property
    def _test_split(self) -> Encoded:
        return self._encoded("test")

    def _ported_lanes(self) -> list[Lane]:
        name = HostName(name=self.host.name, fingerprint=self.host.fingerprint)

        def made(how: str, seed: int) -> Parameters:
            ported = port(self.module, self.host.geometry, name, how, seed=seed)
            return ported.module.tensors

        lanes = [Lane("ported", "copy", seed, made("copy", seed)) for seed in self.seeds]
        return lanes + [
            Lane("sampled", how, seed, made(how, seed)) for how in SAMPLINGS for seed in self.seeds
        ]

    def _scratch_lanes(self) -> list[Lane]:
        geometry, config = self.host.geometry, self.module.config
        classes, pooling = self.module.classes, self.module.record.head
        return [
            Lane(
                "scratch",
                "",
                seed,
                fresh(self.technique, config, geometry, classes, seed, pooling),
            )
            for seed in self.seeds
        ]

    def _choose(self, lanes: list[Lane]) -> dict[str, float]:
        """The learning rate of each condition, by mean validation accuracy at the last budget."""
        conditions = list(dict.fromkeys(_name(lane) for lane in lanes))
        if len(self.rates) == 1 or not max(self.budgets):
            return dict.fromkeys(conditions, self.rates[0])
        split, last = self._encoded("validation"), max(self.budgets)
        score: dict[tuple[str, float], list[float]] = {}
        for rate in self.rates:
            for group in _alike(lanes):
                for tested in self._train(group, [last], dict.fromkeys(conditions, rate), split):
                    accuracy = tested.evaluation.accuracy if tested.evaluation else 0.0
                    score.setdefault((_name(tested.lane), rate), []).append(accuracy)
        return {
            condition: max(self.rates, key=lambda rate: float(np.mean(score[condition, rate])))
            for condition in conditions
        }

    def _train(
        self,
        lanes: list[Lane],
        budgets: Sequence[int],
        rates: dict[str, float],
        split: Encoded | None = None,
    ) -> Iterator[Found]:
        for reading in trajectory(
            self.host,
            self.technique,
            self.module.config,
            stack_lanes([lane.start for lane in lanes]),
            self._train_split,
            self.readout,
            settings=self.settings,
            budgets=budgets,
            learning_rates=[rates[_name(lane)] for lane in lanes],
            seeds=[lane.seed for lane in lanes],
        ):
            tested = evaluate(
                self.host,
                self.technique,
                self.module.config,
                reading.parameters,
                split or self._test_split,
                self.readout,
            )
            seconds = reading.seconds / len(lanes)
            for lane, evaluation, failure in zip(lanes, tested, reading.failures, strict=True):
                error = failure or ("" if evaluation else "its scores are not finite")
                yield Found(lane, reading.budget, None if error else evaluation, seconds, error)

    def _native(self, lanes: list[Lane], rates: dict[str, float]) -> Iterator[Found]:
        """Scratch modules at the budgets; at the end of their trajectory they are native ones."""
        for tested in self._train(lanes, [*self.budgets, self.native_steps], rates):
            if tested.budget in self.budgets:
                yield tested
            if tested.budget == self.native_steps:
                lane = Lane("native", "", tested.lane.seed, {})
                yield Found(lane, tested.budget, tested.evaluation, tested.seconds, tested.error)

    def _bare(self) -> Iterator[Found]:
        """The host without a module; an encoder's head is then a fresh one of each seed."""
        geometry, classes = self.host.geometry, self.module.classes
        for seed in self.seeds:
            generator = torch.Generator().manual_seed(seed)
            head = initial_head(geometry, classes, generator, self.module.record.head)
            (tested,) = self._without_module(head)
            error = "" if tested else "its scores are not finite"
            yield Found(Lane("host", "", seed, {}), 0, tested, 0.0, error)

    def head_alone(self) -> float | None:
        """Accuracy of the host with the module's head and nothing else; None without a head."""
        if WEIGHT not in self.module.tensors:
            return None
        head = {n: t for n, t in self.module.tensors.items() if n.startswith("head.")}
        (tested,) = self._without_module(head)
        return None if tested is None else tested.accuracy

    def _without_module(self, head: Parameters) -> list[Evaluation | None]:
        lanes = stack_lanes([head])
        return evaluate(self.host, None, None, lanes, self._test_split, self.readout)

    def _collect(self, found: Sequence[Found]) -> Rows:
        rows, predictions = [], {}
        for number, each in enumerate(found):
            run_id = f"assess-{number}"
            rows.append(self._row(run_id, each))
            if each.evaluation is not None:
                predictions[run_id] = each.evaluation.predictions
        return Rows(rows, predictions, {self.task.name: np.asarray(self._test_split.labels)})

    def _row(self, run_id: str, found: Found) -> dict[str, Any]:
        record, lane = self.module.record, found.lane
        nothing = dict.fromkeys(("accuracy", "macro_f1", "auroc", "log_loss", "n_test"))
        return {
            "run_id": run_id,
            "study": "assess",
            "status": "failed" if found.error else "done",
            "technique": "" if lane.condition == "host" else record.technique,
            "condition": lane.condition,
            "method": lane.how if lane.condition == "ported" else "",
            "control": lane.how if lane.condition == "sampled" else "",
            "origin": record.host.name,
            "receiver": self.host.name,
            "relation": self.relation,
            "origin_task": record.task["name"],
            "task": self.task.name,
            "budget": found.budget,
            "seed": lane.seed,
            **(found.evaluation.figures() if found.evaluation else nothing),
            "train_seconds": found.seconds,
            "error": found.error,
        }


def _name(lane: Lane) -> str:
    """What learning rates are chosen for."""
    return lane.how if lane.condition == "sampled" else lane.condition


def _alike(lanes: list[Lane]) -> list[list[Lane]]:
    """Lanes with tensors of equal shapes, so that they can train side by side."""
    groups: dict[tuple[tuple[str, torch.Size], ...], list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(tuple((n, t.shape) for n, t in lane.start.items()), []).append(lane)
    return list(groups.values())

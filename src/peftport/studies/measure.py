"""A short measurement of how fast a study's modules are trained and tested on this machine, as far
as can be told as if it did nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from peftport.hosts.host import Host, load_host
from peftport.hosts.precision import usual_device
from peftport.memory import forget_peak, resident_peak
from peftport.studies.plan import Plan
from peftport.studies.resolve import Facts
from peftport.tasks import Encoded, Task, encode, load_task
from peftport.techniques import technique
from peftport.techniques.base import Parameters, stack_lanes
from peftport.techniques.head import initial_head
from peftport.training import TrainingSettings, evaluate, readout_of, trajectory
from peftport.training.clock import now, worked
from peftport.training.module import initial_module

SLOW = 2.0
"""Seconds of a step beyond which fewer lanes are measured than a pack has."""
_STEPS = 3
_ROWS = {"limit_train": 1024, "limit_test": 64}


@dataclass(frozen=True)
class Pace:
    """Seconds that one token of one lane takes, padding included."""

    train: float
    test: float


@dataclass(frozen=True)
class Measurement:
    """What was measured.

    Attributes:
        paces: geometry (`geometry_key`) and technique -> pace; "" is the bare host.
        tokens: geometry and task -> mean tokens of a row in training and of a text in testing, with
            padding.
        memory, gpu_memory: bytes that the largest pack took, 0 without a GPU.
        seconds: how long measuring took.
    """

    paces: Mapping[tuple[str, str], Pace]
    tokens: Mapping[tuple[str, str], tuple[float, float]]
    memory: float
    gpu_memory: float
    threads: int
    device: str
    seconds: float


def geometry_key(host: Mapping[str, Any]) -> str:
    """Hosts with equal keys take equally long."""
    return json.dumps(host["geometry"], sort_keys=True)


def measure_costs(
    plan: Plan, facts: Facts, say: Callable[[str], None] = lambda text: None
) -> Measurement:
    """Train for a few steps and test a few rows: every technique on one host of each geometry.

    Nothing is kept. Hosts and tasks must be at hand (`Facts.unknown` empty).

    Args:
        say: told what is measured next.
    """
    begun = now(usual_device())
    lanes = _widest_packs(plan)
    paces: dict[tuple[str, str], Pace] = {}
    tokens: dict[tuple[str, str], tuple[float, float]] = {}
    memory = gpu_memory = 0.0
    tasks = {
        label: load_task(task["location"], **_ROWS, **dict(plan.spec.asked))  # type: ignore[arg-type]
        for label, task in facts.tasks.items()
    }
    for key, location in _one_of_each(facts).items():
        bench = Bench(plan, location, tasks)
        tokens |= {(key, task): found for task, found in bench.tokens().items()}
        paces[key, ""] = Pace(0.0, bench.bare())
        for name, options in facts.techniques.items():
            say(f"measuring {name} on {location} ...")
            paces[key, name], more, gpu = bench.pace(name, options, lanes[name])
            memory, gpu_memory = max(memory, more), max(gpu_memory, gpu)
        del bench  # a worker, too, has one host at a time
    return Measurement(
        paces,
        tokens,
        memory,
        gpu_memory,
        torch.get_num_threads(),
        usual_device(),
        now(usual_device()) - begun,
    )


def _widest_packs(plan: Plan) -> dict[str, int]:
    widest: dict[str, int] = {}
    for pack in plan.packs():
        name = pack.arm.technique
        widest[name] = max(widest.get(name, 0), len(pack.lanes))
    return widest


def _one_of_each(facts: Facts) -> dict[str, str]:
    """Geometry -> where a host of it is."""
    found: dict[str, str] = {}
    for host in facts.hosts.values():
        found.setdefault(geometry_key(host), host["location"])
    return found


class Bench:
    """A host with the tasks' first rows, on which techniques are tried."""

    def __init__(self, plan: Plan, location: str, tasks: Mapping[str, Task]) -> None:
        self.settings = TrainingSettings(**plan.spec.training.settings())
        self.host: Host = load_host(location, usual_device(), self.settings.precision)
        kind = self.host.geometry.kind
        self.rows: dict[str, dict[str, Encoded]] = {
            label: {split: encode(self.host.tokenizer, task, split, kind) for split in _SPLITS}
            for label, task in tasks.items()
        }
        # A text may be read in several rows: with each of its answers, or in windows.
        self.texts = {label: len(task.split("test")) for label, task in tasks.items()}
        self.task = next(iter(tasks))
        self.readout = readout_of(self.host, tasks[self.task])

    def tokens(self) -> dict[str, tuple[float, float]]:
        """Task -> mean tokens of a row in training and of a text in testing, as batches have it."""
        found = {}
        for label, rows in self.rows.items():
            drawn = list(rows["train"].training_batches(self.settings.batch_size, 100, [0]))
            tested = [batch for _, batch in rows["test"].evaluation_batches()]
            rows_of_text = len(rows["test"]) / self.texts[label]
            found[label] = (_mean_length(drawn), _mean_length(tested) * rows_of_text)
        return found

    def pace(self, name: str, options: Mapping[str, Any], lanes: int) -> tuple[Pace, float, float]:
        """A technique's pace with so many lanes, and the memory and GPU memory that they take, with
        the host."""
        held, held_there = forget_peak(), _forget_gpu_peak()
        trained, _ = self.train(name, options, 1)
        most = max(1, min(lanes, int(SLOW / max(trained, 1e-9))))
        trained, parameters = self.train(name, options, most)
        made = technique(name)
        tested = self.test(made, made.configure(options), parameters)
        train_tokens, test_tokens = self.tokens()[self.task]
        rows = most * self.settings.batch_size
        pace = Pace(trained / (rows * train_tokens), tested / (most * test_tokens))
        more, more_there = resident_peak() - held, _gpu_peak() - held_there
        return pace, held + more * lanes / most, held_there + more_there * lanes / most

    def bare(self) -> float:
        """Seconds of a test of the bare host for one token."""
        heads = initial_head(
            self.host.geometry, self.readout.classes, torch.Generator().manual_seed(0)
        )
        tested = self.test(None, None, stack_lanes([heads]))
        return tested / self.tokens()[self.task][1]

    def train(self, name: str, options: Mapping[str, Any], lanes: int) -> tuple[float, Parameters]:
        """Seconds of a step after the first, and the modules."""
        made = technique(name)
        config = made.configure(options)
        starts = [
            initial_module(made, config, self.host, self.readout.classes, seed)
            for seed in range(lanes)
        ]
        readings = trajectory(
            self.host,
            made,
            config,
            stack_lanes(starts),
            self.rows[self.task]["train"],
            self.readout,
            settings=self.settings,
            budgets=[1, 1 + _STEPS],
            learning_rates=[1e-3] * lanes,
            seeds=range(lanes),
        )
        next(readings)
        begun = _Moment.at(self.host.device)
        last = next(readings)
        return begun.spent() / _STEPS, last.parameters

    def test(self, made: Any, config: Any, parameters: Parameters) -> float:
        """Seconds of a text under all lanes."""
        rows = self.rows[self.task]["test"]
        begun = _Moment.at(self.host.device)
        evaluate(self.host, made, config, parameters, rows, self.readout)
        return begun.spent() / self.texts[self.task]


@dataclass(frozen=True)
class _Moment:
    """When something begins on a device: on the clock, and in this process's own work, which stands
    while other processes have the cores."""

    device: torch.device
    clock: float
    work: float

    @classmethod
    def at(cls, device: torch.device) -> _Moment:
        """Now."""
        return cls(device, now(device), worked())

    def spent(self) -> float:
        """Seconds since, those left out in which others had the core. On several threads it is some
        of them: as long as one works, nobody knows what the others waited for."""
        clock, work = now(self.device) - self.clock, worked() - self.work
        return clock if self.device.type == "cuda" else min(clock, work)


_SPLITS = ("train", "test")


def _mean_length(batches: list[Any]) -> float:
    rows = sum(len(batch.labels) for batch in batches)
    return sum(batch.input_ids.numel() for batch in batches) / rows


def _forget_gpu_peak() -> float:
    """Begin the peak anew: bytes of the GPU that are held now."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    return _gpu_peak()


def _gpu_peak() -> float:
    return float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0.0

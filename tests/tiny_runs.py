"""What the tests that train and test modules share: loaded hosts, techniques to try, short runs."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from peftport.hosts import load_host
from peftport.hosts.host import Host
from peftport.tasks import Encoded, Task, encode, load_task
from peftport.techniques import technique
from peftport.techniques.base import Parameters, stack_lanes
from peftport.training import TrainingSettings, readout_of, trajectory
from peftport.training.module import initial_module

# Small enough for the tiny hosts, and every way of acting that a technique has.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "houlsby": ("adapter", {"reduction": 4}),
    "pfeiffer": ("adapter", {"reduction": 4, "variant": "pfeiffer"}),
    "compacter": ("compacter", {"reduction": 4}),
    "lora": ("lora", {"rank": 4}),
    "rslora": ("lora", {"rank": 4, "rslora": True, "targets": ("all",)}),
    "prefix": ("prefix", {"length": 5}),
    "reparametrised prefix": ("prefix", {"length": 5, "reparametrise": True, "bottleneck": 12}),
}
ONE_OF_EACH_TECHNIQUE = ("houlsby", "compacter", "lora", "prefix")


@cache
def host_in(folder: Path) -> Host:
    """The host in a folder, loaded once; hosts are frozen and may be shared."""
    return load_host(str(folder))


@cache
def task_in(folder: Path) -> Task:
    """The task in a folder, read once."""
    return load_task(str(folder))


@cache
def few_rows_of(folder: Path) -> Task:
    """The task with one batch of training rows, which any module that trains at all can learn."""
    return load_task(str(folder), limit_train=16)


def encoded(host: Host, task: Task, split: str) -> Encoded:
    """A split as the host reads it."""
    return encode(host.tokenizer, task, split, host.geometry.kind)


def start_of(case: str, host: Host, seeds: list[int]) -> tuple[Any, Any, Parameters]:
    """A case's technique, its configuration and the starts of one lane a seed."""
    name, options = CASES[case]
    made = technique(name)
    config = made.configure(options)
    return (
        made,
        config,
        stack_lanes([initial_module(made, config, host, 2, seed) for seed in seeds]),
    )


def run(
    case: str,
    host: Host,
    task: Task,
    budgets: list[int],
    rates: list[float],
    seeds: list[int],
    settings: TrainingSettings | None = None,
) -> list[Any]:
    """The readings of a trajectory from fresh modules, one lane a seed."""
    made, config, start = start_of(case, host, seeds)
    return list(
        trajectory(
            host,
            made,
            config,
            start,
            encoded(host, task, "train"),
            readout_of(host, task),
            settings=settings or TrainingSettings(batch_size=8),
            budgets=budgets,
            learning_rates=rates,
            seeds=seeds,
        )
    )


def distance(one: Parameters, other: Parameters) -> float:
    """How far two modules are apart, relative to the second's size."""
    assert one.keys() == other.keys()
    flat, base = (
        torch.cat([tensor.flatten() for tensor in module.values()]) for module in (one, other)
    )
    return float((flat - base).norm() / base.norm())

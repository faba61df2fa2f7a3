"""Where the time of a training step goes, and what a step and a test take.

    python benchmarks/where.py [--quick] [--bf16] [--hosts lab mini minilm smollm2]

CPU time of one thread, LoRA, batch 16; shares by torch's profiler. Run with another checkout's
sources on PYTHONPATH it measures those: so are two states of the project compared. A test of
SmolLM2 is of 64 rows.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from measuring import SMALL, arguments, as_table, at_hand, places, save, spread, written
from peftport.hosts import load_host
from peftport.hosts.precision import Precision
from peftport.tasks import encode, load_task
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import TrainingSettings, evaluate, readout_of, trajectory
from peftport.training.module import initial_module

LANES = {"lab": 4, "mini": 4, "minilm": 2, "smollm2": 1}
STEPS = 5
KINDS = {
    "matrix products": r"addmm|::mm$|bmm|matmul|linear",
    "attention": r"scaled_dot_product|flash_attention|_softmax",
}
"""What torch's operations are, by their names; the others are counted as the rest."""


def main() -> None:
    asked = arguments(__doc__ or "", {"bf16": "products in bfloat16"}, hosts=list(LANES))
    torch.set_num_threads(1)
    precision: Precision = "bf16" if asked.bf16 else "fp32"
    for hosts in (SMALL, ("smollm2",)):
        if chosen := at_hand(name for name in asked.hosts if name in hosts):
            label = "where" if hosts is SMALL else "where-smollm2"
            found = [measured(name, 1 if asked.quick else 5, precision) for name in chosen]
            save(asked.out, label + "-bf16" * asked.bf16, {"hosts": found}, table(found))


def table(found: list[dict[str, Any]]) -> str:
    """What steps and tests take, and the shares, in Markdown."""
    kinds = [*KINDS, "the rest"]
    rows = [
        (
            each["host"],
            each["lanes"],
            written(each["step_ms"], 1),
            written(each["test_s"]),
            *(f"{100 * each['shares'][kind]:.0f} %" for kind in kinds),
        )
        for each in found
    ]
    columns = ("host", "lanes", "step, ms a lane", "test, s a lane", *kinds)
    return as_table(columns, rows)


def measured(name: str, rounds: int, precision: Precision = "fp32") -> dict[str, Any]:
    """Steps and tests of one host in turns, and the shares of a step."""
    place, lanes = places()[name], LANES[name]
    task = load_task(place["task"], limit_test=64 if name == "smollm2" else None)
    host, made = load_host(place["origin"], precision=precision), technique("lora")
    config, readout, kind = made.configure({}), readout_of(host, task), host.geometry.kind
    train, test = (encode(host.tokenizer, task, split, kind) for split in ("train", "test"))
    starts = [initial_module(made, config, host, readout.classes, seed) for seed in range(lanes)]
    start = stack_lanes(starts)

    def steps() -> Iterator[None]:
        """Train a stretch of steps each time it is asked; the first one warms up."""
        readings = trajectory(
            host,
            made,
            config,
            start,
            train,
            readout,
            settings=TrainingSettings(precision=precision),
            budgets=range(0, STEPS * (rounds + 3), STEPS),
            learning_rates=[1e-3] * lanes,
            seeds=range(lanes),
        )
        for _ in readings:
            yield

    stretch = steps()
    next(stretch)
    next(stretch)
    trained, tested = [], []
    for _ in range(rounds):
        begun = time.process_time()
        next(stretch)
        trained.append(1000 * (time.process_time() - begun) / STEPS / lanes)
        begun = time.process_time()
        evaluate(host, made, config, start, test, readout)
        tested.append((time.process_time() - begun) / lanes)
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        next(stretch)
    return {
        "host": name,
        "lanes": lanes,
        "step_ms": spread(trained),
        "test_s": spread(tested),
        "shares": shares(seen),
    }


def shares(seen: profile) -> dict[str, float]:
    """Share of each kind of operation in the time of all."""
    spent: Counter[str] = Counter()
    for event in seen.key_averages():
        kind = next((k for k, names in KINDS.items() if re.search(names, event.key)), "the rest")
        spent[kind] += event.self_cpu_time_total
    return {kind: spent[kind] / sum(spent.values()) for kind in (*KINDS, "the rest")}


if __name__ == "__main__":
    main()

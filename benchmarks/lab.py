"""Whether the lab is fit for studies: hosts know nothing of its tasks, and modules learn them.

    python benchmarks/lab.py [--quick] [--hosts small small-tuned ...] [--tasks films food ...]

Modules are trained as the preset `quick` says; figures are means over seeds. "Corrected" accuracy
takes for its threshold the median margin (the second label word's score less the first's) over 500
training texts whose labels are not looked at. Copies are tested on the continuations as they
arrive, beside controls. Exits with 1 where a bound does not hold.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from statistics import mean
from typing import Any

import numpy as np
import torch

from measuring import arguments, as_table, save
from peftport.hosts import Host, load_host
from peftport.lab import NAMES, describe
from peftport.lab.tasks import DOMAINS
from peftport.metrics import measure
from peftport.modules import HostName
from peftport.porting import port
from peftport.studies.load import load_spec
from peftport.tasks import Encoded, Task, encode, load_task
from peftport.techniques import technique
from peftport.techniques.base import Parameters, stack_lanes, take_lane
from peftport.training import TrainingSettings, readout_of, scores, trajectory
from peftport.training.module import as_module, initial_module

AUROC, BARE, NATIVE, BEHIND, LEAD, PORTABLE = (0.40, 0.60), 0.56, (0.85, 0.95), 0.10, 0.20, 3
"""The bounds: of the bare host's AUROC and corrected accuracy; of a native module's accuracy; how
far behind it a module from scratch is after a few steps; the lead of a copy over every control, and
for how many of the four techniques."""
TEXTS, SEEDS, FEW = 500, 3, 10
CONTROLS = ("gaussian", "permuted", "spectrum")

Row = dict[str, Any]


def main() -> None:
    asked = arguments(__doc__ or "", hosts=NAMES, tasks=DOMAINS)
    tasks, seeds = (asked.tasks[:1], 1) if asked.quick else (asked.tasks, SEEDS)
    named = list(load_spec("quick").techniques.items())[: 1 if asked.quick else None]
    jobs = [(family, task, named, seeds) for task in tasks for family in families(asked.hosts)]
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        parts = list(pool.map(measured, *zip(*jobs, strict=True)))
    found = {kind: [row for part in parts for row in part[kind]] for kind in parts[0]}
    save(asked.out, "lab", found, report(found))
    sys.exit(not all(row["holds"] for rows in found.values() for row in rows))


def families(hosts: list[str]) -> list[list[str]]:
    """The hosts that were asked for, each with the one that it continues before it if that was."""
    found: list[list[str]] = []
    for name in hosts:
        origin = (describe(name)["continues"] or "").removeprefix("lab:")
        family = next((each for each in found if each[0] == origin), None)
        if family is None:
            found.append([name])
        else:
            family.append(name)
    return found


def measured(
    family: list[str], task: str, techniques: list[tuple[str, Any]], seeds: int
) -> dict[str, list[Row]]:
    """What is measured of a host, and of its continuation, on one task."""
    places = [Place.at(name, task) for name in family]
    found: dict[str, list[Row]] = {"bare": [], "trained": [], "copied": []}
    for place in places:
        found["bare"].append(place.bare())
    for name, options in techniques:
        courses = [Course(place, name, options, seeds) for place in places]
        found["trained"] += [course.figures() for course in courses]
        if len(family) > 1:
            found["copied"].append(copied(*courses, found["bare"][1]["accuracy"]))
    portable = sum(row["lead"] >= LEAD for row in found["copied"])
    for row in found["copied"]:
        row["holds"] = row["lead"] >= LEAD or portable >= PORTABLE
    return found


def corrected(rows: torch.Tensor, texts: torch.Tensor, labels: np.ndarray) -> float:
    """Accuracy of scores (rows, classes) after the correction by unlabelled texts' scores."""
    return float(measure(rows.numpy(), labels, texts.numpy()).figures["corrected_accuracy"])


@dataclass(frozen=True)
class Place:
    """A host, and the rows of a task in its tokens."""

    name: str
    host: Host
    task: Task
    train: Encoded
    texts: Encoded
    test: Encoded

    @classmethod
    def at(cls, name: str, task: str) -> Place:
        host, rows = load_host(f"lab:{name}"), load_task(f"lab:{task}")
        few = load_task(f"lab:{task}", limit_train=TEXTS)
        wanted = ((rows, "train"), (few, "train"), (rows, "test"))
        encoded = (encode(host.tokenizer, t, split, host.geometry.kind) for t, split in wanted)
        return cls(name, host, rows, *encoded)

    def scores(self, name: str | None, config: Any, lanes: Parameters) -> list[torch.Tensor]:
        """Scores of the texts and of the test rows: (lanes, rows, 2) each."""
        made, readout = technique(name) if name else None, readout_of(self.host, self.task)
        return [scores(self.host, made, config, lanes, e, readout) for e in (self.texts, self.test)]

    def accuracy(self, name: str, config: Any, lanes: Parameters) -> float:
        """Corrected accuracy, the mean over lanes."""
        texts, test = self.scores(name, config, lanes)
        return mean(corrected(b, a, self.test.labels) for a, b in zip(texts, test, strict=True))

    def bare(self) -> Row:
        """AUROC and corrected accuracy of the host without a module."""
        texts, test = (each[0] for each in self.scores(None, None, {}))
        auroc = measure(test.numpy(), self.test.labels).figures["auroc"]
        accuracy = corrected(test, texts, self.test.labels)
        holds = AUROC[0] <= auroc <= AUROC[1] and accuracy <= BARE
        row = {"host": self.name, "task": self.task.name, "auroc": auroc, "accuracy": accuracy}
        return {**row, "holds": holds}


class Course:
    """Modules of one technique trained from scratch on a host, and their accuracy on the way."""

    def __init__(self, place: Place, name: str, options: Row, seeds: int) -> None:
        study = load_spec("quick", ["training.precision=fp32"])
        self.place, self.name, self.made = place, name, technique(name)
        self.config = self.made.configure(options)
        readout = readout_of(place.host, place.task)
        starts = [
            initial_module(self.made, self.config, place.host, 2, seed) for seed in range(seeds)
        ]
        self.accuracy: dict[int, float] = {}
        for reading in trajectory(
            place.host,
            self.made,
            self.config,
            stack_lanes(starts),
            place.train,
            readout,
            settings=TrainingSettings(**study.training.settings()),
            budgets=(0, FEW, study.native_steps),
            learning_rates=[study.learning_rate(name, "native", study.pairs[0].receiver)] * seeds,
            seeds=range(seeds),
        ):
            self.last, self.lanes = reading.budget, reading.parameters
            self.accuracy[self.last] = place.accuracy(name, self.config, self.lanes)

    def figures(self) -> Row:
        """Accuracy of native modules, and of those trained for few steps."""
        native, few = self.accuracy[self.last], self.accuracy[FEW]
        holds = NATIVE[0] <= native <= NATIVE[1] and native - few >= BEHIND
        place = {"host": self.place.name, "task": self.place.task.name, "technique": self.name}
        return {**place, "native": native, "few": few, "behind": native - few, "holds": holds}

    def ported(self, receiver: Place, method: str) -> float:
        """Accuracy of the modules on another host, as a method brings them there."""
        host, task = self.place.host, self.place.task.record()
        name = HostName(name=receiver.host.name, fingerprint=receiver.host.fingerprint)
        made = []
        for seed in range(len(next(iter(self.lanes.values())))):
            tensors = take_lane(self.lanes, seed)
            donor = as_module(self.made, self.config, host, tensors, task, seed, {})
            made.append(port(donor, receiver.host.geometry, name, method, seed=seed).module.tensors)
        return receiver.accuracy(self.name, self.config, stack_lanes(made))


def copied(donors: Course, natives: Course, bare: float) -> Row:
    """A host's modules on its continuation, beside every control."""
    receiver = natives.place
    copy = donors.ported(receiver, "copy")
    controls = {name: donors.ported(receiver, name) for name in CONTROLS}
    controls |= {"scratch": natives.accuracy[0], "host": bare}
    best = max(controls, key=lambda name: controls[name])
    return {
        "origin": donors.place.name,
        "host": receiver.name,
        "task": receiver.task.name,
        "technique": donors.name,
        "copy": copy,
        "controls": controls,
        "best": best,
        "lead": copy - controls[best],
    }


def report(found: dict[str, list[Row]]) -> str:
    """A summary, what the bounds are, and three tables of everything that was measured."""
    few = f"after {FEW} steps"
    copies = [
        {**row, "control": row["controls"][row["best"]], "best control": row["best"]}
        for row in found["copied"]
    ]
    trained = [{**row, few: row["few"]} for row in found["trained"]]
    names = ("host", "task", "technique")
    parts = [
        as_table(("host", "figure", "bound", "least", "most", "holds"), summary(found)),
        "Bare hosts: AUROC, and corrected accuracy.",
        _table(found["bare"], names[:2], ("auroc", "accuracy")),
        "Modules from scratch, and how far those of few steps are behind.",
        _table(trained, names, ("native", few, "behind")),
        "Copies to the continuation as they arrive, and their lead over the best control.",
        _table(copies, (*names, "best control"), ("copy", "control", "lead")),
    ]
    return "\n\n".join(parts)


def summary(found: dict[str, list[Row]]) -> list[tuple[str, ...]]:
    """Least and most of every figure of a host, over tasks and techniques, beside its bound."""
    kinds = (
        ("bare", "auroc", "bare, AUROC", AUROC),
        ("bare", "accuracy", "bare, accuracy", (0.0, BARE)),
        ("trained", "native", "native, accuracy", NATIVE),
        ("trained", "behind", f"native less {FEW} steps", (BEHIND, 1.0)),
        ("copied", "lead", f"copy less best control, {PORTABLE} techniques", (LEAD, 1.0)),
    )
    lines = []
    for host in dict.fromkeys(row["host"] for row in found["bare"]):
        for kind, key, figure, (low, high) in kinds:
            rows = [row for row in found[kind] if row["host"] == host]
            if rows:
                values = [row[key] for row in rows]
                least, most = f"{min(values):.3f}", f"{max(values):.3f}"
                inside = all(low <= value <= high for value in values)
                spared = kind == "copied" and all(row["holds"] for row in rows)
                holds = "yes" if inside or spared else "no"
                lines.append((host, figure, f"{low:.2f} to {high:.2f}", least, most, holds))
    return lines


def _table(rows: list[Row], names: tuple[str, ...], figures: tuple[str, ...]) -> str:
    lines = [
        (
            *(row[name] for name in names),
            *(f"{row[name]:.3f}" for name in figures),
            "yes" if row["holds"] else "no",
        )
        for row in rows
    ]
    return as_table((*names, *figures, "holds"), lines)


if __name__ == "__main__":
    main()

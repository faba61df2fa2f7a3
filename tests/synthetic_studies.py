"""Synthetic studies of known truth: right or wrong follows a probit model with effects of the
condition, the seed and the example."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtri

from peftport.metrics import Evaluation, measure
from peftport.reports.results import COLUMNS, Results

HOST, NATIVE, SAMPLED = 0.50, 0.86, 0.51
PORTED = {"same": 0.86, "continuation": 0.83, "independent": 0.52}
PAIRS = (("small", "small-tuned", "continuation"), ("small", "small-twin", "independent"))


@dataclass
class Synthetic:
    """A study to be made up: its grid, and the true accuracies where they differ from the above.

    With `scores` every run has class scores and corrected figures; `shift` is what a run's scores
    give to the second class for nothing.
    """

    techniques: tuple[str, ...] = ("adapter", "lora")
    pairs: tuple[tuple[str, str, str], ...] = PAIRS
    settings: tuple[tuple[str, str], ...] = (("films", "films"),)
    methods: tuple[str, ...] = ("copy",)
    controls: tuple[str, ...] = ("gaussian",)
    budgets: tuple[int, ...] = (0, 10, 100)
    seeds: tuple[int, ...] = (0, 1, 2)
    conditions: tuple[str, ...] = ("ported", "sampled", "scratch", "native", "host")
    native_steps: int = 300
    examples: int = 200
    seed_spread: float = 0.05
    example_spread: float = 1.0
    accuracy: Callable[[Mapping[str, Any]], float] | None = None
    failed: Callable[[Mapping[str, Any]], bool] = lambda row: False
    missing: Callable[[Mapping[str, Any]], bool] = lambda row: False
    predictions: bool = True
    scores: bool = False
    shift: Callable[[Mapping[str, Any]], float] = lambda row: 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def results(self, seed: int = 0) -> Results:
        """Make the study up."""
        generator = np.random.default_rng(seed)
        tasks = dict.fromkeys(task for _, task in self.settings)
        gold = {task: generator.integers(0, 2, self.examples) for task in tasks}
        ease = {task: generator.normal(size=self.examples) for task in tasks}
        rows, predictions, scored = [], {}, {}
        for number, row in enumerate(self._grid()):
            row |= {"run_id": f"{number:064x}", "study": "synthetic", "status": "done", "error": ""}
            if self.missing(row):
                continue
            if self.failed(row):
                row |= {"status": "failed", "error": "the loss is not a number at step 3"}
                rows.append(row)
                continue
            latent = self._latent(row, ease[row["task"]], generator)
            if self.scores:
                found = self._measured(row, latent, gold[row["task"]], generator)
                scored[row["run_id"]] = found.scored
                predictions[row["run_id"]] = found.predictions.astype(np.uint8)
                rows.append(row | dict(found.figures) | {"agreement": 0.5, "train_seconds": 0.1})
                continue
            right = latent > 0
            answers = np.where(right, gold[row["task"]], 1 - gold[row["task"]])
            predictions[row["run_id"]] = answers.astype(np.uint8)
            accuracy = float(right.mean())
            row |= {"n_test": self.examples, "accuracy": accuracy, "macro_f1": accuracy - 0.01}
            row |= {"auroc": min(1.0, accuracy + 0.05), "log_loss": 1.2 - accuracy}
            row |= {"train_seconds": 0.02 * row["budget"] + 0.1}
            rows.append(row)
        frame = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
        return Results(frame, predictions if self.predictions else {}, gold, self.facts, scored)

    def truth(self, row: Mapping[str, Any]) -> float:
        """The accuracy that a run has on average over seeds and examples."""
        if self.accuracy is not None:
            return self.accuracy(row)
        start = {"host": HOST, "native": NATIVE, "sampled": SAMPLED, "scratch": HOST}
        low = start.get(row["condition"], PORTED.get(row["relation"], HOST))
        if row["condition"] in ("host", "native"):
            return low
        return low + (NATIVE - low) * (1 - float(np.exp(-row["budget"] / 60)))

    def _measured(
        self,
        row: Mapping[str, Any],
        latent: np.ndarray,
        gold: np.ndarray,
        generator: np.random.Generator,
    ) -> Evaluation:
        """Scores whose margin is the latent figure in the true class's favour, and a shift."""
        apart = generator.integers(0, 2, 500)
        beside = self._latent(row, generator.normal(size=500), generator)
        scores, unlabelled = (
            np.stack([np.zeros(len(margin)), margin], axis=1).astype(np.float32)
            for margin in (
                (2 * labels - 1) * found + self.shift(row)
                for labels, found in ((gold, latent), (apart, beside))
            )
        )
        return measure(scores, gold, unlabelled)

    def _latent(
        self, row: Mapping[str, Any], ease: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        own = row["condition"] != "host"
        level = ndtri(self.truth(row)) * np.sqrt(1 + self.example_spread**2)
        level += self.seed_spread * generator.normal() if own else 0.0
        noise = generator.normal(size=len(ease)) if own else 0.0
        scale = 1.0 if own else np.sqrt(1 + 1 / self.example_spread**2)
        return np.asarray(level + scale * self.example_spread * ease + noise)

    def _grid(self) -> list[dict[str, Any]]:
        blank = dict.fromkeys(("method", "control", "origin", "relation", "origin_task"), "")
        rows: list[dict[str, Any]] = []
        for (origin, receiver, relation), (origin_task, task), technique in product(
            self.pairs, self.settings, self.techniques
        ):
            here = blank | {"technique": technique, "receiver": receiver, "task": task}
            moved = here | {"origin": origin, "relation": relation, "origin_task": origin_task}
            for budget in self.budgets:
                rows += [
                    moved | {"condition": "ported", "method": method, "budget": budget}
                    for method in self.methods
                ]
                rows += [
                    moved | {"condition": "sampled", "control": control, "budget": budget}
                    for control in self.controls
                ]
                rows.append(here | {"condition": "scratch", "budget": budget})
            rows.append(here | {"condition": "native", "budget": self.native_steps})
            rows.append(here | {"condition": "host", "technique": "", "budget": 0})
        wanted = [row for row in rows if row["condition"] in self.conditions]
        once = {tuple(sorted(row.items())): row for row in wanted}
        return [row | {"seed": seed} for row in once.values() for seed in self.seeds]


def founding(**others: Any) -> Synthetic:
    """A study of the founding study's size: 1,440 ported and sampled runs, and the baseline."""
    grid: dict[str, Any] = dict(
        techniques=("adapter", "compacter", "lora", "prefix"),
        pairs=(
            ("small", "small-tuned", "continuation"),
            ("small-tuned", "small", "continuation"),
            ("large", "large-tuned", "continuation"),
            ("large-tuned", "large", "continuation"),
        ),
        settings=(("films", "films"), ("food", "food"), ("films", "food")),
        budgets=(0, 30, 300),
        seeds=(0, 1, 2, 3, 4),
        native_steps=600,
        examples=400,
    )
    return Synthetic(**(grid | others))

"""What a report is made from: the rows of a study, what every run answered, and facts about it."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from peftport.errors import BadInput
from peftport.kind import USUAL, Kind, kind_named
from peftport.metrics import Metric
from peftport.reports.rows import tidy_rows
from peftport.reports.statistics import DRAWS, Series, resample_examples, share_floor
from peftport.studies.schema import COLUMNS

__all__ = ["COLUMNS", "CONDITIONS", "Cell", "Results", "natural"]

CONDITIONS = ("host", "sampled", "scratch", "ported", "native")
"""The conditions in the order in which every table shows them."""

_AT_ONCE = 2048


class Cell(NamedTuple):
    """One question of a study: a technique's module, ported by a method from one host and task to
    another host and task."""

    technique: str
    origin: str
    receiver: str
    relation: str
    origin_task: str
    task: str
    method: str

    @property
    def pair(self) -> str:
        """The two hosts, from where to where."""
        return f"{self.origin} → {self.receiver}"

    @property
    def setting(self) -> str:
        """The task, and the one that the module was trained on where that is another."""
        if self.origin_task == self.task:
            return self.task
        return f"{self.origin_task} → {self.task}"


def natural(name: str) -> tuple[str | int, ...]:
    """A key that sorts x2 before x16: numbers by their size, all else by letters."""
    parts = re.split(r"(\d+)", name)  # words and numbers in turn
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


@dataclass
class Results:
    """The runs of a study.

    Attributes:
        rows: one row a run, done or failed, with the columns of the study's kind
            (`studies.schema.columns_of`).
        predictions: run id -> predicted class of every test example, (examples,). Runs may lack
            them; what rests on such runs has intervals over seeds alone.
        scored: run id -> what is kept of every test example, of the runs that have it.
        gold: task -> what is true of every test example, as long as there are examples; of classes
            the true one, (examples,).
        facts: what is known beside the rows; every key may be missing: `study` (name), `kind` (of
            the tasks; classification if it is missing), `spec`
            (mapping), `hosts` and `tasks` (lists of mappings with `name`; a host may name the
            `parent` that it continues), `versions` (mapping), `plan` (what was counted before
            -> number; `rows`, when given, is the number of rows when nothing is missing) and
            `durations` (what took how long -> seconds).

    Raises:
        BadInput: the rows are none of one study (`tidy_rows`, and two runs that are the same one),
            or predictions do not fit the labels.
    """

    rows: pd.DataFrame
    predictions: Mapping[str, np.ndarray] = field(default_factory=dict)
    gold: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    scored: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows = tidy_rows(self.rows, self.kind)
        _ = self._runs
        for run_id, task in zip(self.done["run_id"], self.done["task"], strict=True):
            found = self.predictions.get(run_id)
            if found is not None and (
                task not in self.gold or found.shape != self.gold[task].shape
            ):
                raise BadInput(
                    f"run {run_id} has {len(found)} predictions, but task {task!r} has "
                    f"{len(self.gold.get(task, ()))} labels; read both from the same study."
                )

    @property
    def name(self) -> str:
        """The study's name."""
        names = self.rows["study"].unique()
        return str(self.facts.get("study") or (names[0] if len(names) else "study"))

    @cached_property
    def done(self) -> pd.DataFrame:
        """The rows that have figures."""
        return self.rows[(self.rows["status"] == "done") & self.rows[self.kind.plain].notna()]

    @cached_property
    def kind(self) -> Kind:
        """The kind of the study's tasks."""
        return kind_named(self.facts.get("kind") or USUAL)

    @cached_property
    def metrics(self) -> Mapping[str, Metric]:
        """Everything that is measured, by its column."""
        return self.kind.metrics

    @cached_property
    def metric(self) -> str:
        """What recovery, leads and answers rest on: the primary metric of the kind, or where not
        every run has it the plain one. Of classification: accuracy after the label-free correction,
        or as answered."""
        values = self._column(self.kind.primary)
        known = all(not np.isnan(value) for value in values.values())
        return self.kind.primary if values and known else self.kind.plain

    @property
    def rests_on(self) -> Metric:
        """The same metric itself."""
        return self.metrics[self.metric]

    @property
    def is_corrected(self) -> bool:
        """Whether figures are after the correction."""
        return self.kind.of_classes and self.metric == self.kind.primary

    @property
    def over(self) -> str:
        """How a lead reads before what it is a lead over."""
        return "over" if self.rests_on.better == "higher" else "ahead of"

    @cached_property
    def failed(self) -> pd.DataFrame:
        """The rows that have none, with their errors."""
        return self.rows.drop(self.done.index)

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell that has a ported row, done or failed, in a fixed order."""
        ported = self.rows[self.rows["condition"] == "ported"]
        found = ported[list(Cell._fields)].drop_duplicates().itertuples(index=False)
        relations = ("same", "continuation", "independent")
        order = {name: place for place, name in enumerate(relations)}
        return tuple(
            sorted(
                (Cell(*row) for row in found),
                key=lambda c: (
                    *(order.get(c.relation, 9), natural(c.pair)),
                    *(c.setting, c.method, c.technique),
                ),
            )
        )

    @cached_property
    def relations(self) -> tuple[str, ...]:
        """The kinds of host pair that occur; they are never pooled."""
        return tuple(dict.fromkeys(cell.relation for cell in self.cells))

    @cached_property
    def budgets(self) -> tuple[int, ...]:
        """Training steps at which ported modules were tested, ascending."""
        ported = self.rows[self.rows["condition"] == "ported"]
        return tuple(sorted(int(budget) for budget in ported["budget"].unique()))

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Every seed that occurs."""
        return tuple(sorted(int(seed) for seed in self.rows["seed"].unique()))

    @cached_property
    def methods(self) -> tuple[str, ...]:
        """The port methods that occur."""
        return tuple(dict.fromkeys(cell.method for cell in self.cells))

    def controls(self, cell: Cell) -> tuple[str, ...]:
        """The samplings beside a cell's ports; the first is the one that they are set beside."""
        return self._controls.get((cell.origin, cell.receiver, cell.relation), ())

    @cached_property
    def _controls(self) -> dict[Any, tuple[str, ...]]:
        sampled = self.rows[self.rows["condition"] == "sampled"]
        found = sampled.groupby(["origin", "receiver", "relation"])["control"].unique()
        order = partial(sorted, key=lambda name: (name != "gaussian", name))
        return {pair: tuple(order(names)) for pair, names in found.items()}

    @property
    def has_predictions(self) -> bool:
        """Whether it is known of every run with figures what it answered."""
        known = (self.predictions, self.scored)
        return len(self.done) > 0 and all(
            any(run in found for found in known) for run in self.done["run_id"]
        )

    def series(
        self, cell: Cell, condition: str, budget: int, control: str = "", metric: str = ""
    ) -> Series | None:
        """The figures of `condition` that belong beside `cell`, seed by seed.

        Args:
            budget: training steps; bare hosts and native modules have one figure for all.
            control: the sampling, for `sampled`.
            metric: of `metrics`; `self.metric` if not given.

        Returns:
            None when no such run is done, or none has this figure. Where less is better the series
            is of the figures times -1 (`Series.scale`).
        """
        metric = metric or self.metric
        scale = self.metrics[metric].scale
        column = self._column(metric)
        runs = {
            seed: run
            for seed, run in self._runs.get(_key(cell, condition, budget, control), {}).items()
            if not np.isnan(column[run])
        }
        if not runs:
            return None
        seeds = tuple(sorted(runs))
        draws = [self._draws(metric).get(runs[seed]) for seed in seeds]
        known = [draw for draw in draws if draw is not None]
        values = scale.sign * np.array([column[runs[seed]] for seed in seeds])
        stacked = scale.sign * np.stack(known) if len(known) == len(seeds) else None
        alike = np.ptp(values) == 0 and (stacked is None or np.ptp(stacked, axis=0).max() == 0)
        fixed = condition == "host" and bool(alike)
        floor = share_floor(len(self.gold[cell.task])) if scale.share and len(known) else 0.0
        return Series(seeds, values, stacked, floor, fixed, scale)

    def native_steps(self, cell: Cell) -> int:
        """Steps that native modules beside `cell` were trained for; 0 when there are none."""
        native = self.rows[
            (self.rows["condition"] == "native")
            & (self.rows["technique"] == cell.technique)
            & (self.rows["receiver"] == cell.receiver)
            & (self.rows["task"] == cell.task)
        ]
        return int(native["budget"].max()) if len(native) else 0

    def run_ids(self, cell: Cell, condition: str, budget: int, control: str = "") -> dict[int, str]:
        """Seed -> run id of the done runs that `series` reads."""
        return dict(self._runs.get(_key(cell, condition, budget, control), {}))

    def measure(self, run_ids: Iterable[str], column: str) -> float:
        """The mean of a column over runs; NaN without any."""
        values = self._column(column)
        known = [value for run_id in run_ids if not np.isnan(value := values[run_id])]
        return float(np.mean(known)) if known else float("nan")

    def _column(self, column: str) -> dict[str, float]:
        """Run id -> value: looked up for every run of a report, which takes long in a frame.

        A metric that a run's row lacks is measured by its scores, where it has them.
        """
        if column not in self._columns:
            values = self.done[column].to_numpy(float, na_value=np.nan).tolist()
            found = dict(zip(self.done["run_id"], values, strict=True))
            for run, value in found.items():
                if np.isnan(value) and column in self.metrics and run in self.scored:
                    parts = self.kind.parts(self.scored[run], column)
                    found[run] = float("nan") if parts is None else float(parts.mean())
            self._columns[column] = found
        return self._columns[column]

    @cached_property
    def _columns(self) -> dict[str, dict[str, float]]:
        return {}

    def correct(self, run_id: str, task: str) -> np.ndarray | None:
        """Which examples a run got right, (examples,) of bool; None where that is not known, or
        where no answer is right or wrong."""
        judged = (name for name in (self.metric, self.kind.plain) if self.metrics[name].share)
        found = next((self._parts(run_id, task, name) for name in judged), None)
        return None if found is None else found > 0

    def _parts(self, run_id: str, task: str, metric: str) -> np.ndarray | None:
        """What each test example adds to a run's figure, (examples,)."""
        if run_id in self.scored:
            return self.kind.parts(self.scored[run_id], metric)
        found = self.predictions.get(run_id)
        return None if found is None or metric != self.kind.plain else found == self.gold[task]

    @cached_property
    def _runs(self) -> dict[Hashable, dict[int, str]]:
        runs: dict[Hashable, dict[int, str]] = {}
        for row in self.done.itertuples(index=False):
            beside = runs.setdefault(_row_key(row), {})
            if (other := beside.setdefault(int(row.seed), row.run_id)) != row.run_id:
                raise BadInput(
                    f"the runs {other} and {row.run_id} of the rows are the same {row.condition} "
                    f"run twice, with seed {row.seed}: a report is of one study. Report each study "
                    "by itself."
                )
        return runs

    def _draws(self, metric: str) -> dict[str, np.ndarray]:
        """Run id -> its figure on resampled test examples, (draws,)."""
        if metric not in self._drawn:
            self._drawn[metric] = dict(self._resampled(metric))
        return self._drawn[metric]

    @cached_property
    def _drawn(self) -> dict[str, dict[str, np.ndarray]]:
        return {}

    def _resampled(self, metric: str) -> Iterator[tuple[str, np.ndarray]]:
        draws = int(np.clip(10**8 // max(len(self.done), 1), 400, DRAWS))
        for task, rows in self.done.groupby("task", sort=True):
            if len(self.gold.get(task, ())) < 2:
                continue
            for start in range(0, len(rows), _AT_ONCE):
                runs = rows["run_id"].iloc[start : start + _AT_ONCE]
                parts = {run: self._parts(run, str(task), metric) for run in runs}
                known = {run: part for run, part in parts.items() if part is not None}
                if known:
                    found = resample_examples(np.stack(list(known.values())), str(task), draws)
                    yield from zip(known, found, strict=True)


def _key(cell: Cell, condition: str, budget: int, control: str) -> Hashable:
    if condition == "ported":
        return (condition, *cell, budget)
    if condition == "sampled":
        return (condition, *cell[:-1], control, budget)
    if condition == "scratch":
        return (condition, cell.technique, cell.receiver, cell.task, budget)
    if condition == "native":
        return (condition, cell.technique, cell.receiver, cell.task)
    return (condition, cell.receiver, cell.task)


def _row_key(row: Any) -> Hashable:
    cell = Cell(*(getattr(row, name) for name in Cell._fields))
    return _key(cell, row.condition, int(row.budget), row.control)

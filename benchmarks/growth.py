"""What a study costs beside its trainings, by its size: planning, a row in the store, the report.

    python benchmarks/growth.py [--quick]

The study is the founding grid with as many seeds as make up the size. Its rows are made up; what
they cost does not depend on what is in them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from measuring import arguments, as_table, save, spread, written
from peftport.kinds.classification import CLASSIFICATION
from peftport.metrics import measure
from peftport.reports import analyse, write_report
from peftport.reports.stored import read_results
from peftport.studies.identity import Identity
from peftport.studies.load import load_spec
from peftport.studies.plan import Plan
from peftport.studies.resolve import Facts, resolve
from peftport.studies.schedule import Schedule
from peftport.studies.store import Row, Store, create

SIZES = (1_000, 10_000, 100_000, 1_000_000)
REPORTED = 100_000
"""The largest study that a report is written of."""
_BATCH, _TEST_ROWS = 48, 500


def main() -> None:
    asked = arguments(__doc__ or "")
    sizes = SIZES[:1] if asked.quick else SIZES
    facts = resolve(_spec(1), fetch=False)
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measured(size, facts, Path(folder)))
    save(asked.out, "growth", {"sizes": found}, table(found))


def _spec(seeds: int) -> Any:
    return load_spec("founding-lab", [f"seeds={seeds}", "training.precision=fp32"])


def measured(size: int, facts: Facts, folder: Path) -> dict[str, Any]:
    """Plan, fill the store, and write the report."""
    seeds = max(1, round(size / sum(Plan(_spec(1)).count().values())))
    begun = time.perf_counter()
    plan = Plan(_spec(seeds))
    identity = Identity(plan, *facts.marks())
    schedule = Schedule(plan, identity, {}, {})
    planning = time.perf_counter() - begun
    runs = sum(plan.count().values())
    assert schedule.cost_left
    gold = {task: labels[:_TEST_ROWS] for task, labels in facts.gold.items()}
    with create(folder, plan.spec.model_dump(mode="json"), facts.record(), gold) as store:
        rows = _fill(store, plan, identity)
        reported = {}
        if runs <= 1.2 * REPORTED:
            begun = time.perf_counter()
            write_report(analyse(read_results(folder)), folder)
            reported = {"report_seconds": time.perf_counter() - begun}
    return {
        "runs": runs,
        "planning_seconds": planning,
        "planning_microseconds_a_run": 1e6 * planning / runs,
        "row_microseconds": rows,
        **reported,
    }


def _fill(store: Store, plan: Plan, identity: Identity) -> dict[str, float]:
    """Record every run, some at a time as packs are read; microseconds a row."""
    rng = np.random.default_rng(0)
    made, seconds = _rows(plan, identity, rng), []
    store.begin_sitting()
    while batch := list(islice(made, _BATCH)):
        begun = time.perf_counter()
        store.record(batch)
        seconds.append(1e6 * (time.perf_counter() - begun) / len(batch))
    # The last tenth against the whole: a row must not cost more in a large store.
    return spread(np.array_split(seconds, 10)[-1].tolist())


def _rows(plan: Plan, identity: Identity, rng: Any) -> Iterator[Row]:
    labels = np.arange(_TEST_ROWS) % 2
    for run in plan.runs():
        run_id, config = identity.run(run)
        signal = rng.uniform(0.0, 2.0) * (2 * labels - 1)
        scores, unlabelled = rng.normal(size=(2, _TEST_ROWS, 2)).astype(np.float32)
        scores[:, 1] += signal
        found = measure(scores, labels, unlabelled)
        yield Row(
            run_id,
            run.columns(),
            config,
            {**found.figures, "train_seconds": 1.0},
            CLASSIFICATION.pack(found),
        )


def table(found: list[dict[str, Any]]) -> str:
    """Sizes down."""
    rows = [
        (
            f"{size['runs']:,}",
            f"{size['planning_seconds']:.2f}",
            f"{size['planning_microseconds_a_run']:.0f}",
            written(size["row_microseconds"], 0),
            f"{size['report_seconds']:.1f}" if "report_seconds" in size else "not written",
        )
        for size in found
    ]
    columns = ("runs", "planning, s", "planning, us a run", "a row more, us", "report, s")
    return as_table(columns, rows)


if __name__ == "__main__":
    main()

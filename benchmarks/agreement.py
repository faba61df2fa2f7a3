"""Whether a script per run and `peftport study` train equally good modules.

Modules from scratch, some seeds of each technique on both sides: the same steps and learning
rates, and other random numbers. What differs beyond chance would be a fault of one side.

    python benchmarks/agreement.py [--quick] [--hosts lab mini minilm]
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import ttest_ind

from measuring import arguments, as_table, places, save
from peftport.studies.store import read_store
from study import Comparison

STEPS, SEEDS = 200, 5


def main() -> None:
    asked = arguments(__doc__ or "", hosts=[*places()])
    found = []
    for name in asked.hosts:
        with tempfile.TemporaryDirectory() as folder:
            found += measured(Comparison(name, Path(folder), asked.quick, every=False, bf16=False))
    save(asked.out, "agreement", {"cells": found}, table(found))


def measured(sides: Comparison) -> list[dict[str, Any]]:
    """Accuracies of each technique by both sides, one a seed."""
    steps, seeds = (2, 2) if sides.quick else (STEPS, SEEDS)
    data = sides.specification(conditions=["scratch"], budgets=[steps], seeds=seeds)
    sides.run(data, "seeds")
    with read_store(sides.folder / "seeds") as store:
        rows = [row for row in store.rows()]
    cells = []
    for technique in sides.data["techniques"]:
        jobs = [sides.job(technique, "scratch", steps, seed=seed) for seed in range(seeds)]
        for job in jobs:
            sides.script(job)
        cells.append(
            {
                "host": sides.name,
                "technique": technique,
                "steps": steps,
                "scripts": [
                    json.loads(Path(job["result"]).read_text())["accuracy"] for job in jobs
                ],
                "study": [row["accuracy"] for row in rows if row["technique"] == technique],
            }
        )
    return cells


def table(cells: list[dict[str, Any]]) -> str:
    """The comparison in Markdown; intervals by Welch's t-test."""
    rows = []
    for cell in cells:
        test = ttest_ind(cell["study"], cell["scripts"], equal_var=False)
        low, high = test.confidence_interval(0.95)
        rows.append(
            (
                cell["host"],
                cell["technique"],
                len(cell["study"]),
                *(
                    " ".join(f"{each:.3f}" for each in sorted(cell[s]))
                    for s in ("scripts", "study")
                ),
                f"{mean(cell['study']) - mean(cell['scripts']):+.3f} ({low:+.3f} to {high:+.3f})",
            )
        )
    columns = (
        *("host", "technique", "seeds", "accuracies by scripts", "accuracies by the study"),
        "study - scripts, 95 % interval",
    )
    return as_table(columns, rows)


if __name__ == "__main__":
    main()

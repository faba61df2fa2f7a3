"""Whether a script per run and `peftport study` train equally good modules.

Modules from scratch, some seeds of each technique on both sides: the same steps and learning
rates, and other random numbers. Scripts take their rows as those of `study.py` do, grouped by
length, and at random: Trainer's groups go from long texts to short ones, fifty batches at a time,
where the study's go back and forth.

    python benchmarks/agreement.py [--quick] [--hosts lab mini minilm]
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import ttest_ind

from measuring import SMALL, arguments, as_table, at_hand, save
from peftport.studies.store import read_store
from study import Comparison

STEPS, SEEDS = 200, 5
SAMPLINGS = ("group_by_length", "random")


def main() -> None:
    asked = arguments(__doc__ or "", hosts=SMALL)
    found = []
    for name in at_hand(asked.hosts):
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
    return [
        {
            "host": sides.name,
            "technique": technique,
            "steps": steps,
            "scripts": {s: scripts(sides, technique, steps, seeds, s) for s in SAMPLINGS},
            "study": [row["accuracy"] for row in rows if row["technique"] == technique],
        }
        for technique in sides.data["techniques"]
    ]


def scripts(
    sides: Comparison, technique: str, steps: int, seeds: int, sampling: str
) -> list[float]:
    """Accuracies of a script for each seed."""
    found = []
    for seed in range(seeds):
        job = sides.job(technique, "scratch", steps, seed=seed) | {"sampling": sampling}
        sides.script(job)
        found.append(json.loads(Path(job["result"]).read_text())["accuracy"])
    return found


def table(cells: list[dict[str, Any]]) -> str:
    """Means, and by how much the study leads, in Markdown; intervals by Welch's t-test."""
    rows = []
    for cell in cells:
        leads = []
        for sampling in SAMPLINGS:
            test = ttest_ind(cell["study"], cell["scripts"][sampling], equal_var=False)
            low, high = test.confidence_interval(0.95)
            lead = mean(cell["study"]) - mean(cell["scripts"][sampling])
            leads.append(f"{lead:+.3f} ({low:+.3f} to {high:+.3f})")
        means = (mean(values) for values in (*cell["scripts"].values(), cell["study"]))
        rows.append((cell["host"], cell["technique"], *(f"{each:.3f}" for each in means), *leads))
    columns = (
        *("host", "technique", "scripts, by length", "scripts, random", "study"),
        *("study's lead, by length", "study's lead, random"),
    )
    return as_table(columns, rows)


if __name__ == "__main__":
    main()

"""Make the hosts of the forecast's studies: `python benchmarks/forecast_hosts.py DIR`.

For the calibration, continuations of `lab:small` that go from a few steps at a low rate to many at
a high one, so that copies keep from nearly everything to nothing of a module, and a host that was
pretrained independently; for the test, continuations of `lab:small-twin`. About five minutes on
one core; hosts that DIR has already are left as they are.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftport.files import new_folder, write_json
from peftport.hosts.fingerprint import fingerprint
from peftport.lab import RECORD, folder, recipes
from peftport.lab import language as words

_TASKS, _OTHERS = tuple(words.TASK_DOMAINS), tuple(words.OTHER_DOMAINS)
_FULL = words.Style(units=(1, 2, 3), fillers=(0, 1), advice=0.7, labels=0.2)


def _further(
    seed: int, steps: int, rate: float, origin: str = "small", **kind: Any
) -> recipes.Recipe:
    stage = {"domains": _OTHERS, "style": _FULL, "questions": 0.5, **kind}
    return recipes.Recipe(origin, seed, (recipes.Stage(steps, rate, **stage),))


def _independent(seed: int, steps: int) -> recipes.Recipe:
    shape = recipes.RECIPES["small"].start
    return recipes.Recipe(shape, seed, (recipes.Stage(steps, 3e-3, _TASKS, _FULL),))


HOSTS = {
    "tuned-30": _further(31, 30, 1e-3),
    "tuned-1000": _further(32, 1000, 3e-3),
    "harsh-300": _further(33, 300, 1e-2),
    "harsh-1000": _further(34, 1000, 1e-2),
    "harsher-300": _further(36, 300, 2e-2),
    "alike-600": _further(37, 600, 5e-3, domains=_TASKS, questions=0.0),
    "other": _independent(41, 1500),
    "twin-300": _further(51, 300, 5e-3, origin="small-twin"),
    "twin-harsh-300": _further(52, 300, 1e-2, origin="small-twin"),
}


def make(name: str, out: Path) -> None:
    """Make one host in the new folder `out`: weights as fp16, tokenizer, record."""
    from transformers import T5ForConditionalGeneration

    recipe = HOSTS[name]
    start: dict[str, str] | None = None
    if isinstance(recipe.start, str):
        model = T5ForConditionalGeneration.from_pretrained(
            folder(recipe.start), dtype=torch.float32
        )
        start = {"name": f"lab:{recipe.start}", "fingerprint": fingerprint(folder(recipe.start))}
    else:
        model = recipes.fresh(recipe.start, recipe.seed)
    model.train()
    losses: list[float] = []
    for index, stage in enumerate(recipe.stages):
        losses += recipes.train_stage(model, stage, recipe.rows, seed=1000 * recipe.seed + index)
    with new_folder(out) as made:
        model.half().save_pretrained(made)
        recipes.tokenizer().save_pretrained(made)
        record = {"from": start, "seed": recipe.seed, "steps": len(losses)}
        write_json(made / RECORD, {**record, "loss": round(float(np.mean(losses[-100:])), 4)})


if __name__ == "__main__":
    for each in HOSTS:
        if not (Path(sys.argv[1]) / each).exists():
            make(each, Path(sys.argv[1]) / each)
            print(each, flush=True)

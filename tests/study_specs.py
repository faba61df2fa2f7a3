"""Specifications for tests."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from peftport.studies.spec import Spec, parse_spec


def data(**changes: Any) -> dict[str, Any]:
    """A small specification as it would be read from YAML."""
    made: dict[str, Any] = {
        "name": "tiny",
        "techniques": {"lora": {}, "adapter": {}},
        "pairs": [
            {"origin": "a", "receiver": "b", "relation": "continuation"},
            {"origin": "a", "receiver": "c", "relation": "independent"},
        ],
        "settings": [{"origin_task": "films", "task": "films"}],
        "budgets": [0, 5, 10],
        "seeds": 2,
        "donor_steps": 20,
        "native_steps": 20,
        "training": {"learning_rates": {"lora": 0.01, "adapter": 0.01}},
    }
    found = {key: value for key, value in {**made, **changes}.items() if value is not None}
    # Settled, as it is in every study that was begun.
    return found | {"training": {"precision": "fp32", **found["training"]}}


def spec(**changes: Any) -> Spec:
    """A small specification; `None` takes a key out."""
    return parse_spec(data(**changes), "test")


def tiny_spec(hosts: dict[str, Path], task: Path, **changes: Any) -> Spec:
    """The small specification on real folders."""
    places = {label: str(folder) for label, folder in hosts.items()}
    made: dict[str, Any] = {
        "hosts": places,
        "tasks": {"films": str(task)},
        "training": {
            "batch_size": 8,
            "learning_rates": {"lora": 0.01, "adapter": 0.01},
        },
    }
    return spec(**{**made, **changes})


def figures(folder: Path) -> list[tuple[Any, ...]]:
    """What a study found, without how long it took: rows, answers and donors in order."""
    db = sqlite3.connect(f"file:{folder / 'study.sqlite'}?mode=ro", uri=True)
    try:
        runs = db.execute(
            "SELECT run_id, status, technique, condition, method, control, origin, receiver, "
            "relation, origin_task, task, budget, seed, json_remove(figures, '$.train_seconds'), "
            "error, config, predictions, scores, unlabelled FROM runs ORDER BY run_id"
        ).fetchall()
        donors = db.execute(
            "SELECT donor_id, status, error, config, record, tensors, answers FROM donors "
            "ORDER BY donor_id"
        ).fetchall()
    finally:
        db.close()
    return [*runs, *donors]


def other_tokenizer(host: Path) -> None:
    """Two of the words of a host change their numbers; its weights stay."""
    file = host / "tokenizer.json"
    told = json.loads(file.read_text())
    vocabulary = told["model"]["vocab"]
    if isinstance(vocabulary, list):
        vocabulary[-1], vocabulary[-2] = vocabulary[-2], vocabulary[-1]
    else:
        first, second = list(vocabulary)[-2:]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(told))

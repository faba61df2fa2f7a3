"""A study's store as what a report is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.studies.plan import Plan
from peftport.studies.schema import COLUMNS
from peftport.studies.spec import parse_spec
from peftport.studies.store import NAME, Store, read_store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from peftport.reports.results import Results


def read_results(folder: Path) -> Results:
    """Read rows, predictions, true classes and facts of the study in `folder`.

    Raises:
        BadInput: there is no study, or one of another schema.
    """
    from peftport.reports.results import Results

    with read_store(folder) as store:
        classes = {label: len(task["labels"]) for label, task in store.facts["tasks"].items()}
        rows = _rows(store)
        task_of = dict(zip(rows["run_id"], rows["task"], strict=True))
        return Results(
            rows,
            {run: _classes(data, classes[task_of[run]]) for run, data in store.predictions()},
            {task: _classes(data, classes[task]) for task, data in store.gold().items()},
            _facts(store, folder),
        )


def read_rows(folder: Path) -> pd.DataFrame:
    """Read the rows of the study in `folder`; errors as for `read_results`."""
    with read_store(folder) as store:
        return _rows(store)


def _rows(store: Store) -> pd.DataFrame:
    """The rows; whole numbers stay whole where a failed run has none."""
    import pandas as pd

    rows = pd.DataFrame(store.rows(), columns=list(COLUMNS))
    return rows.astype({"n_test": "Int64"})


def _classes(data: bytes, classes: int) -> np.ndarray:
    import numpy as np

    return np.frombuffer(data, dtype=np.uint8 if classes <= 256 else np.uint16)


def _facts(store: Store, folder: Path) -> dict[str, Any]:
    spec, facts = store.spec, store.facts
    counts = Plan(parse_spec(spec, str(folder / NAME))).count()
    return {
        "study": spec["name"],
        "spec": spec,
        "hosts": [{"name": label, **host} for label, host in facts["hosts"].items()],
        "tasks": [{**task, "name": label} for label, task in facts["tasks"].items()],
        "versions": facts["versions"],
        "plan": {**counts, "rows": sum(counts.values())},
    }

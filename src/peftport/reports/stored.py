"""A study's store as what a report is made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.errors import BadInput
from peftport.studies.answers import Unpacked
from peftport.studies.plan import Plan
from peftport.studies.schema import columns_of, kind_of_columns
from peftport.studies.spec import parse_spec
from peftport.studies.store import NAME, Store, read_study

if TYPE_CHECKING:
    import pandas as pd

    from peftport.reports.results import Results


def read_results(folder: Path) -> Results:
    """Read rows, predictions, true classes and facts of the study in `folder`.

    Raises:
        BadInput: there is no study, or one of another schema.
    """
    from peftport.reports.results import Results

    with read_study(folder) as store:
        kind, tasks = store.kind, store.facts["tasks"]
        rows, answers = _rows(store), dict(store.answers())
        task_of = dict(zip(rows["run_id"], rows["task"], strict=True))
        gold = {task: kind.read_gold(data, tasks[task]) for task, data in store.gold().items()}
        said = {run: kind.predictions(a, tasks[task_of[run]]) for run, a in answers.items()}
        return Results(
            rows,
            {run: classes for run, classes in said.items() if classes is not None},
            gold,
            _facts(store, folder),
            Unpacked(
                kind,
                {
                    run: (found, gold[task_of[run]], tasks[task_of[run]])
                    for run, found in answers.items()
                    if found.scores
                },
            ),
        )


def read_exported(file: Path) -> Results:
    """Read rows as `study export` writes them; of older packages too. Answers are not in them, so
    intervals are over seeds alone.

    Raises:
        BadInput: the file is no table of rows.
    """
    from peftport.reports.results import Results
    from peftport.tables import read_table

    try:
        table = read_table(file)
        names = table.column_names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:  # pandas takes columns of one name for columns of one type
            raise BadInput(f"the rows have the columns {', '.join(twice)} more than once.")
        # What a file says of pandas' types need not be true of its columns.
        rows = table.to_pandas(ignore_metadata=True)
        return Results(rows, facts={"kind": kind_of_columns(rows.columns).name})
    except BadInput as error:
        message = str(error)
        raise BadInput(message if str(file) in message else f"{file}: {message}") from error


def read_rows(folder: Path) -> pd.DataFrame:
    """Read the rows of the study in `folder`; errors as for `read_results`."""
    with read_study(folder) as store:
        return _rows(store)


def _rows(store: Store) -> pd.DataFrame:
    """The rows; whole numbers stay whole where a failed run has none."""
    import pandas as pd

    rows = pd.DataFrame(store.rows(), columns=list(columns_of(store.kind)))
    return rows.astype({"n_test": "Int64"})


def _facts(store: Store, folder: Path) -> dict[str, Any]:
    spec, facts = store.spec, store.facts
    counts = Plan(parse_spec(spec, str(folder / NAME))).count()
    sittings = store.sittings()
    return {
        "study": store.title,
        "kind": store.kind.name,
        "spec": spec | {kind: _places(spec[kind]) for kind in ("hosts", "tasks")},
        "hosts": [_host(label, host) for label, host in facts["hosts"].items()],
        "tasks": [_task(label, task) for label, task in facts["tasks"].items()],
        "versions": facts["versions"],
        "plan": {**counts, "rows": sum(counts.values())},
        "durations": {
            f"running, {len(sittings)} sitting{'s' * (len(sittings) != 1)}": sum(
                seconds for _, seconds, _ in sittings
            )
        },
    }


def _host(label: str, host: dict[str, Any]) -> dict[str, Any]:
    names = ("family", "kind", "parent", "continued", "fingerprint")
    kept = {key: host[key] for key in names if key in host}
    return {"name": label, "from": _place(host["location"]), **kept}


def _task(label: str, task: dict[str, Any]) -> dict[str, Any]:
    words = task["label_words"] or task["labels"]
    kind = {"kind": task["kind"]} if "kind" in task else {}
    return {
        "name": label,
        "from": _place(task["location"]),
        **kind,
        **({"label words": ", ".join(map(str, words))} if words or not kind else {}),
        "rows": ", ".join(f"{split} {found['rows']}" for split, found in task["data"].items()),
        "fingerprint": task["fingerprint"],
    }


def _places(locations: dict[str, str]) -> dict[str, str]:
    return {label: _place(location) for label, location in locations.items()}


def _place(location: str) -> str:
    """A report is read elsewhere: of a path on this machine it tells the last part."""
    return Path(location).name if Path(location).is_absolute() else location

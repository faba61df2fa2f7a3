"""What a store must hold to be a study's: known tables, values of their types, facts of a known
shape, and answers of the length that the tasks have. A store is a file that anybody can write."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from peftport.errors import BadInput
from peftport.files import by_library, parse_json
from peftport.kind import USUAL, Kind, shared_kind
from peftport.studies.spec import parse_spec

_KINDS = {
    "TEXT": ("text",),
    "INTEGER": ("integer",),
    "REAL": ("real", "integer"),
    "BLOB": ("blob",),
}


class _Loose(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _HostFacts(_Loose):
    location: str
    fingerprint: str = ""
    tokenizer: str = ""
    family: str = ""
    kind: str = ""
    parent: str = ""
    continued: float = 0


class _SplitFacts(_Loose):
    rows: int


class _TaskFacts(_Loose):
    location: str
    fingerprint: str
    labels: list[str | int | bool]
    label_words: list[str] | None = None
    kind: str = USUAL
    data: dict[str, _SplitFacts]


class _Facts(_Loose):
    hosts: dict[str, _HostFacts]
    tasks: dict[str, _TaskFacts]
    versions: dict[str, str]


def require_contents(db: sqlite3.Connection, path: Path) -> None:
    """Look through a store of today's schema before anything of it is used.

    Raises:
        BadInput: it is none that peftport wrote; the message says what is wrong with it.
    """
    with by_library(f"{path} is not a study's store as peftport writes them"):
        meta = dict(db.execute("SELECT key, value FROM meta"))
        spec = parse_json(meta.get("spec") or "", "its specification")
        facts = parse_json(meta.get("facts") or "", "what it knows of hosts and tasks")
    spec = parse_spec(spec, f"{path}: its specification")
    try:
        known = _Facts.model_validate(facts)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "facts"
        raise BadInput(f"{path} is not a study's store: {where}: {first['msg']}.") from error
    with by_library(f"{path} is not a study's store as peftport writes them"):
        for kind, used, there in (
            ("host", spec.hosts_used(), known.hosts),
            ("task", spec.tasks_used(), known.tasks),
        ):
            for label in used:
                if label not in there:
                    raise ValueError(f"it knows nothing of {kind} {label!r}")
        _require_types(db)
        for column, names in (("condition", spec.conditions), ("task", known.tasks)):
            for (value,) in db.execute(f"SELECT DISTINCT {column} FROM runs"):
                if value not in names:
                    raise ValueError(f"it has runs of the {column} {value!r}")
        _require_figures(db)
        asks = shared_kind(facts["tasks"])
        for label, record in facts["tasks"].items():
            _require_answers(db, asks, label, record)


def _require_types(db: sqlite3.Connection) -> None:
    for table in ("runs", "donors", "sittings", "gold"):
        for _, column, declared, needed, _, key in db.execute(
            f"PRAGMA table_info({table})"
        ).fetchall():
            allowed = (*_KINDS[declared], *(() if needed or key else ("null",)))
            listed = ", ".join(map(repr, allowed))
            if _any(db, f"SELECT 1 FROM {table} WHERE typeof({column}) NOT IN ({listed})"):
                raise ValueError(f"{table}.{column} holds what is no {declared}")


def _require_figures(db: sqlite3.Connection) -> None:
    """Figures are numbers by name, and whoever cannot say one says null."""
    for (text,) in db.execute("SELECT DISTINCT figures FROM runs WHERE figures IS NOT NULL"):
        found = parse_json(text, "figures of a run")
        if not isinstance(found, dict) or not all(map(_is_figure, found.values())):
            raise ValueError("a run has figures that are no numbers")
        if type(found.get("n_test", 0)) is not int:
            raise ValueError("a run was tested on what is no number of texts")


def _is_figure(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < 2**63)


def _require_answers(
    db: sqlite3.Connection, kind: Kind, task: str, record: Mapping[str, Any]
) -> None:
    """A run answers every example of its task, in as many bytes as its kind takes."""
    gold = db.execute("SELECT labels FROM gold WHERE task = ?", (task,)).fetchone()
    runs = "SELECT 1 FROM runs WHERE task = ? AND status = 'done'"
    if gold is None:
        if _any(db, runs, task):
            raise ValueError(f"task {task!r} has runs and no true answers")
        return
    try:
        known = kind.lengths(kind.read_gold(gold[0], record), record)
    except ValueError as error:
        raise ValueError(f"task {task!r}: {error}") from error
    said = "FALSE" if known.predictions is None else f"length(predictions) != {known.predictions}"
    beside = "unlabelled IS NOT NULL"
    if known.classes:
        beside = (
            f"length(unlabelled) < {4 * known.classes} "
            f"OR length(unlabelled) % {2 * known.classes} != 0"
        )
    wrong = f"predictions IS NULL OR {said} OR length(scores) != {known.scores} OR {beside}"
    if _any(db, f"{runs} AND ({wrong})", task):
        raise ValueError(f"a run of task {task!r} has answers of another number of examples")


def _any(db: sqlite3.Connection, query: str, *given: Any) -> bool:
    return db.execute(f"{query} LIMIT 1", given).fetchone() is not None

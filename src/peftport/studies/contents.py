"""What a store must hold to be a study's: known tables, values of their types, facts of a known
shape, and answers of the length that the tasks have. A store is a file that anybody can write."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from peftport.errors import BadInput
from peftport.files import by_library, parse_json
from peftport.studies.schema import TABLES
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
        _require_tables(db)
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
        for label, task in known.tasks.items():
            _require_answers(db, label, len(task.labels))


def _require_tables(db: sqlite3.Connection) -> None:
    """No table is a view or made by an extension, whose rows may never end."""
    names = {part.split(" (")[0] for part in TABLES.split("CREATE TABLE ")[1:]}
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master"):
        own = kind == "table" and name in names and str(sql).startswith("CREATE TABLE")
        if not own and not (kind == "index" and sql is None):
            raise ValueError(f"it has the {kind} {name!r}, which no store has")


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


def _require_answers(db: sqlite3.Connection, task: str, classes: int) -> None:
    """A run answers every example of its task, by a class and by scores (`studies.answers`)."""
    gold = db.execute("SELECT labels FROM gold WHERE task = ?", (task,)).fetchone()
    runs = "SELECT 1 FROM runs WHERE task = ? AND status = 'done'"
    if gold is None:
        if _any(db, runs, task):
            raise ValueError(f"task {task!r} has runs and no true classes")
        return
    width = 1 if classes <= 256 else 2
    count, rest = divmod(len(gold[0]), width)
    if rest or not count or not classes or (width == 1 and max(gold[0]) >= classes):
        raise ValueError(f"task {task!r} has true classes that are none of its {classes}")
    scores = (4 + 2 * count) * classes
    if _any(
        db,
        f"{runs} AND (predictions IS NULL OR length(predictions) != ? OR length(scores) != ? "
        "OR length(unlabelled) < ? OR length(unlabelled) % ? != 0)",
        *(task, len(gold[0]), scores, 4 * classes, 2 * classes),
    ):
        raise ValueError(f"a run of task {task!r} has answers of another number of examples")


def _any(db: sqlite3.Connection, query: str, *given: Any) -> bool:
    return db.execute(f"{query} LIMIT 1", given).fetchone() is not None

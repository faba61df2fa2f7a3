"""The tables of a study's store."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from peftport.kind import KINDS, USUAL, Kind, kind_named

VERSION = 3
"""Raised whenever a store of an older package could be misread."""

APPLICATION = 0x70707374
"""SQLite's application_id of a store: "ppst"."""

PLAN_COLUMNS = (
    "technique",
    "condition",
    "method",
    "control",
    "origin",
    "receiver",
    "relation",
    "origin_task",
    "task",
    "budget",
    "seed",
)
"""What a row says of its run before it is run."""


def figures_of(kind: Kind) -> tuple[str, ...]:
    """What a row says of a done run: the metrics of the study's kind, and where answers are classes
    a ported module's agreement with its donor, which is Cohen's kappa of their corrected answers
    to the same unlabelled texts."""
    agreement = ("agreement",) if kind.of_classes else ()
    return ("n_test", *kind.metrics, *agreement, "train_seconds")


def columns_of(kind: Kind) -> tuple[str, ...]:
    """The columns of an exported row, in order."""
    return ("run_id", "study", "status", *PLAN_COLUMNS, *figures_of(kind), "error")


def kind_of_columns(columns: Iterable[str]) -> Kind:
    """The kind whose figures exported rows have; of several the one with the most."""
    there = set(columns)
    found = [kind for kind in map(kind_named, KINDS) if {*kind.metrics} <= there]
    return max(found, key=lambda kind: len(kind.metrics), default=kind_named(USUAL))


FIGURES = figures_of(kind_named(USUAL))
COLUMNS = columns_of(kind_named(USUAL))
"""Those of studies of classification."""

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE runs (
    run_id        TEXT PRIMARY KEY,
    status        TEXT NOT NULL CHECK (status IN ('done', 'failed')),
    technique     TEXT NOT NULL,
    condition     TEXT NOT NULL,
    method        TEXT NOT NULL,
    control       TEXT NOT NULL,
    origin        TEXT NOT NULL,
    receiver      TEXT NOT NULL,
    relation      TEXT NOT NULL,
    origin_task   TEXT NOT NULL,
    task          TEXT NOT NULL,
    budget        INTEGER NOT NULL,
    seed          INTEGER NOT NULL,
    figures       TEXT,
    error         TEXT NOT NULL DEFAULT '',
    log           TEXT NOT NULL DEFAULT '',
    config        TEXT NOT NULL,
    predictions   BLOB,
    scores        BLOB,
    unlabelled    BLOB,
    finished      TEXT NOT NULL,
    digest        TEXT NOT NULL DEFAULT '',
    CHECK ((status = 'done') = (predictions IS NOT NULL AND error = ''))
);

CREATE TABLE donors (
    donor_id  TEXT PRIMARY KEY,
    status    TEXT NOT NULL CHECK (status IN ('done', 'failed')),
    technique TEXT NOT NULL,
    host      TEXT NOT NULL,
    task      TEXT NOT NULL,
    budget    INTEGER NOT NULL,
    seed      INTEGER NOT NULL,
    error     TEXT NOT NULL DEFAULT '',
    config    TEXT NOT NULL,
    record    TEXT,
    tensors   BLOB,
    answers   BLOB,
    finished  TEXT NOT NULL,
    digest    TEXT NOT NULL DEFAULT '',
    CHECK ((status = 'done') = (tensors IS NOT NULL AND error = ''))
);

CREATE TABLE sittings (
    number  INTEGER PRIMARY KEY,
    started TEXT NOT NULL,
    seconds REAL NOT NULL DEFAULT 0,
    runs    INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE gold (
    task   TEXT PRIMARY KEY,
    labels BLOB NOT NULL
) WITHOUT ROWID;
"""


def require_tables(db: sqlite3.Connection) -> None:
    """Raise ValueError for what no store has, before any of it is read: a view, a table that an
    extension makes, a column that is computed. Their rows may never end, and their values be of
    any size."""
    names = {part.split(" (")[0] for part in TABLES.split("CREATE TABLE ")[1:]}
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master").fetchall():
        own = kind == "table" and name in names and str(sql).startswith("CREATE TABLE")
        if not own and not (kind == "index" and sql is None):
            raise ValueError(f"it has the {kind} {name!r}, which no store has")
    for name in names:
        for _, column, *_, computed in db.execute(f"PRAGMA table_xinfo({name})").fetchall():
            if computed:
                raise ValueError(f"the column {name}.{column} is computed, which no store's is")

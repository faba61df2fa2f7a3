"""The tables of a study's store."""

from __future__ import annotations

from peftport.metrics import METRICS

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

FIGURES = ("n_test", *METRICS, "agreement", "train_seconds")
"""What a row says of a done run: the metrics, and a ported module's agreement with its donor, which
is Cohen's kappa of their corrected answers to the same unlabelled texts."""

COLUMNS = (
    "run_id",
    "study",
    "status",
    *PLAN_COLUMNS,
    *FIGURES,
    "error",
)
"""The columns of an exported row, in order."""

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

"""Brings a store that an older package wrote to the tables of today.

Schema 1 had a column for each metric, kept no scores, named runs by their port method as it was
written, and did not say in which precision a study multiplies where there was no choice yet. What
it did not keep cannot be made up: its runs have no corrected figures. Schema 2 had no digests: a
row is taken as it is when it is migrated, and held against that then.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from peftport.studies.identity import id_and_text
from peftport.studies.rows import DONOR_FIELDS, RUN_FIELDS, digest
from peftport.studies.schema import TABLES, VERSION

_METRICS = ("n_test", "accuracy", "macro_f1", "auroc", "log_loss", "train_seconds")


def migrate(db: sqlite3.Connection) -> None:
    """Migrate an older store in place, within the caller's transaction if there is one."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 1:
        _migrate_tables(db)
    else:
        for table in ("runs", "donors"):
            db.execute(f"ALTER TABLE {table} ADD COLUMN digest TEXT NOT NULL DEFAULT ''")
    _add_digests(db, "runs", RUN_FIELDS)
    _add_digests(db, "donors", DONOR_FIELDS)
    db.execute(f"PRAGMA user_version = {VERSION}")


def _add_digests(db: sqlite3.Connection, table: str, fields: tuple[str, ...]) -> None:
    names = ", ".join(fields[:-1])
    for (rowid,) in db.execute(f"SELECT rowid FROM {table}").fetchall():
        values = db.execute(f"SELECT {names} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()
        db.execute(f"UPDATE {table} SET digest = ? WHERE rowid = ?", (digest(values), rowid))


def _migrate_tables(db: sqlite3.Connection) -> None:
    """From the tables of schema 1 to those of today."""
    for table in ("runs", "donors"):
        db.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    _make_tables(db)
    _move(db, "runs", f"CASE status WHEN 'done' THEN {_figures()} END", "figures")
    _move(db, "donors")
    _name_runs_anew(db)
    _say_precision(db)
    for table in ("runs", "donors"):
        db.execute(f"DROP TABLE old_{table}")


def _make_tables(db: sqlite3.Connection) -> None:
    """Make the tables that are not there; one by one, for a script would end the transaction."""
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for statement in TABLES.split(";"):
        name = statement.partition("TABLE ")[2].partition(" (")[0]
        if name and name not in there:
            db.execute(statement)


def _figures() -> str:
    named = ", ".join(f"'{name}', {name}" for name in _METRICS)
    return f"json_object({named})"


def _move(db: sqlite3.Connection, table: str, made: str = "", into: str = "") -> None:
    """Copy what old and new table both have, and one column that is made of others."""
    new, old = (
        [name for _, name, *_ in db.execute(f"PRAGMA table_info({each})")]
        for each in (table, f"old_{table}")
    )
    shared = [name for name in new if name in old]
    fields, values = ([*shared, into], [*shared, made]) if into else (shared, shared)
    db.execute(
        f"INSERT INTO {table} ({', '.join(fields)}) SELECT {', '.join(values)} FROM old_{table}"
    )


def _name_runs_anew(db: sqlite3.Connection) -> None:
    """Name ported and sampled runs by their methods with every option, and keep what those are.

    The options' defaults have not changed between the schemas.
    """
    from peftport.studies.ways import resolved

    ways: dict[str, list[dict[str, Any]]] = {}
    found = db.execute(
        "SELECT run_id, config FROM runs WHERE condition IN ('ported', 'sampled')"
    ).fetchall()
    for run_id, text in found:
        config = json.loads(text)
        how = config["how"]
        ways[how] = ways.get(how) or resolved(how)
        new_id, new_text = id_and_text(config | {"how": ways[how]})
        db.execute(
            "UPDATE runs SET run_id = ?, config = ? WHERE run_id = ?", (new_id, new_text, run_id)
        )
    (facts,) = db.execute("SELECT value FROM meta WHERE key = 'facts'").fetchone()
    kept = json.dumps(json.loads(facts) | {"ways": ways})
    db.execute("UPDATE meta SET value = ? WHERE key = 'facts'", (kept,))


def _say_precision(db: sqlite3.Connection) -> None:
    """Have the specification say what was meant where it says nothing: single precision."""
    (text,) = db.execute("SELECT value FROM meta WHERE key = 'spec'").fetchone()
    spec = json.loads(text)
    spec["training"].setdefault("precision", "fp32")
    db.execute("UPDATE meta SET value = ? WHERE key = 'spec'", (json.dumps(spec),))

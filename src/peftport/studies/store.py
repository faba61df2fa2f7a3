"""What is known of a study: an SQLite database, the only truth.

A run is done when its row is committed, and not before. Only the driver writes; every transaction
holds all rows of one reading of one pack, with the donors that it gave, so that nothing in the
store refers to what is not there. Donors are kept in the database itself for the same reason:
one commit, one file, and no order of writing and renaming that a power loss could turn around.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peftport.errors import BadInput, RunFailed
from peftport.files import is_file, write_atomic
from peftport.studies.migration import migrate
from peftport.studies.schema import APPLICATION, COLUMNS, FIGURES, PLAN_COLUMNS, TABLES, VERSION
from peftport.studies.work import Answers, Kept

NAME = "study.sqlite"


@dataclass(frozen=True)
class Row:
    """A finished run: `answers` for a done one, `error` and `log` for a failed one.

    Attributes:
        columns: what the row says of its run, by the names in `PLAN_COLUMNS`.
        figures: by the names in `FIGURES`; empty for a failed run.
    """

    run_id: str
    columns: Mapping[str, str | int]
    config: str
    figures: Mapping[str, float | int | None]
    answers: Answers | None = None
    error: str = ""
    log: str = ""

    @property
    def status(self) -> str:
        """ "done" or "failed"."""
        return "failed" if self.error else "done"


@dataclass(frozen=True)
class Donor:
    """A module kept for porting, or the reason why there is none."""

    donor_id: str
    technique: str
    host: str
    task: str
    budget: int
    seed: int
    config: str
    module: Kept | None = None
    error: str = ""


class Store:
    """An open study. Made by `create`, `open_store` or `read_store`; a context manager."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._db = connection
        self._sitting: int | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; SQLite folds its log into the file when this is the last user."""
        self._db.close()

    @property
    def spec(self) -> dict[str, Any]:
        """The specification that the study was begun with."""
        return self._meta("spec")

    @property
    def facts(self) -> dict[str, Any]:
        """Hosts, tasks, configurations and versions that the study was begun with."""
        return self._meta("facts")

    @property
    def title(self) -> str:
        """The study's name, with the split that it is tested on where that is not the test."""
        split = self.spec.get("split", "test")
        return self.spec["name"] + (f" ({split})" if split != "test" else "")

    def begin_sitting(self) -> None:
        """From here on `record` keeps how long this sitting is and what it gives."""
        with self._transaction() as db:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self._sitting = db.execute(
                "INSERT INTO sittings (started) VALUES (?)", (now,)
            ).lastrowid
        self._begun = time.monotonic()

    def sittings(self) -> list[tuple[str, float, int]]:
        """When each sitting began, its seconds until it last recorded, and its runs."""
        return self._db.execute(
            "SELECT started, seconds, runs FROM sittings ORDER BY number"
        ).fetchall()

    def record(self, rows: Sequence[Row], donors: Iterable[Donor] = ()) -> None:
        """Commit rows and donors together: all of them are there afterwards, or none.

        A row that is done stays as it is; a failed one gives way to what came later.

        Raises:
            RunFailed: the database cannot be written, for instance because the disk is full.
        """
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._transaction() as db:
            db.executemany(_UPSERT_RUN, [_run_values(row, now) for row in rows])
            db.executemany(_UPSERT_DONOR, [_donor_values(donor, now) for donor in donors])
            db.execute(
                "UPDATE sittings SET seconds = ?, runs = runs + ? WHERE number = ?",
                (time.monotonic() - self._begun, len(rows), self._sitting),
            )

    def statuses(self) -> dict[str, str]:
        """Run id -> "done" or "failed"; runs that are missing are not in it."""
        return dict(self._db.execute("SELECT run_id, status FROM runs"))

    def donor_statuses(self) -> dict[str, str]:
        """Donor id -> "done" or "failed"."""
        return dict(self._db.execute("SELECT donor_id, status FROM donors"))

    def count(self) -> list[tuple[str, str, int]]:
        """Condition, status and number of the rows that are there."""
        return self._db.execute(
            "SELECT condition, status, count(*) FROM runs GROUP BY condition, status"
        ).fetchall()

    def donor(self, donor_id: str) -> tuple[Kept | None, str]:
        """A donor's module, or None and why; KeyError when it is missing."""
        found = self._db.execute(
            "SELECT record, tensors, answers, error FROM donors WHERE donor_id = ?", (donor_id,)
        ).fetchone()
        if found is None:
            raise KeyError(donor_id)
        *kept, error = found
        return (None if error else Kept(*kept)), error

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows as they are exported, in the order of their columns; a figure that was not
        measured is None."""
        told = [column for column in COLUMNS if column not in (*FIGURES, "study")]
        study = {"study": self.title}
        found = self._db.execute(f"SELECT figures, {', '.join(told)} FROM runs {_ORDER}")
        for figures, *values in found:
            row = study | (json.loads(figures) if figures else {})
            row |= dict(zip(told, values, strict=True))
            yield {column: row.get(column) for column in COLUMNS}

    def answers(self) -> Iterator[tuple[str, Answers]]:
        """Run id and answers of every run that is done."""
        fields = "run_id, predictions, scores, unlabelled"
        for run_id, *found in self._db.execute(f"SELECT {fields} FROM runs WHERE status = 'done'"):
            yield run_id, Answers(*found)

    def gold(self) -> dict[str, bytes]:
        """Task -> true class of every test example, of the same type as predictions."""
        return dict(self._db.execute("SELECT task, labels FROM gold"))

    def failures(self) -> list[dict[str, str]]:
        """Run id, error, log and when, of every failed run."""
        names = ("run_id", "error", "log", "finished")
        found = self._db.execute(
            f"SELECT {', '.join(names)} FROM runs WHERE status = 'failed' {_ORDER}"
        )
        return [dict(zip(names, values, strict=True)) for values in found]

    def config(self, run_id: str) -> dict[str, Any]:
        """The whole resolved configuration that a run is named by; KeyError when it is missing."""
        found = self._db.execute("SELECT config FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if found is None:
            raise KeyError(run_id)
        config: dict[str, Any] = json.loads(found[0])
        return config

    def _meta(self, key: str) -> dict[str, Any]:
        (value,) = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        parsed: dict[str, Any] = json.loads(value)
        return parsed

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise RunFailed(
                f"{self.folder / NAME} cannot be written: {error}. What was recorded before is "
                "safe; free some space there and run the study again to go on."
            ) from error


def create(
    folder: Path, spec: Mapping[str, Any], facts: Mapping[str, Any], gold: Mapping[str, bytes]
) -> Store:
    """Begin a study in `folder`: an empty store that knows what it is for.

    Raises:
        BadInput: there is a store already.
        RunFailed: the folder cannot be written.
    """
    path = folder / NAME
    if path.exists():
        raise BadInput(f"{folder} holds a study already.")
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        db.executescript(TABLES)
        meta = {"spec": json.dumps(spec), "facts": json.dumps(facts)}
        db.executemany("INSERT INTO meta VALUES (?, ?)", list(meta.items()))
        db.executemany("INSERT INTO gold VALUES (?, ?)", list(gold.items()))
        db.execute(f"PRAGMA application_id = {APPLICATION}")
        db.execute(f"PRAGMA user_version = {VERSION}")
        # Written in one piece, so that a kill leaves a whole store or none.
        write_atomic(path, db.serialize())
    except OSError as error:
        raise RunFailed(f"{path} cannot be written: {error}.") from error
    finally:
        db.close()
    return open_store(folder)


def open_store(folder: Path) -> Store:
    """Open a study for its driver, who alone may write.

    Raises:
        BadInput: there is no study, it is no store, or one of another schema.
    """
    path = _existing(folder)
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    begun_with = _check(db, path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    store = Store(folder, db)
    if begun_with < VERSION:
        with store._transaction():
            migrate(db)
    return store


def read_store(folder: Path) -> Store:
    """Open a study for reading, also while it is being run; errors as for `open_store`."""
    path = _existing(folder)
    # Opened for writing if possible, because only then SQLite clears its log away afterwards. A
    # store on a disk that cannot be written has no log beside it and does not change.
    mode = "mode=rw" if os.access(folder, os.W_OK) else "mode=ro"
    if mode == "mode=ro" and not Path(f"{path}-wal").exists():
        mode = "mode=ro&immutable=1"
    location = f"{path.absolute().as_uri()}?{mode}"
    db = sqlite3.connect(location, uri=True, isolation_level=None, timeout=30)
    db.execute("PRAGMA query_only = ON")
    if _check(db, path) == VERSION:
        return Store(folder, db)
    # A reader changes no file: what an older package wrote is read into memory and migrated there.
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(db):
        db.backup(copy)
    migrate(copy)
    return Store(folder, copy)


def is_study(folder: Path) -> bool:
    """Whether there is a store in `folder`."""
    return is_file(folder / NAME)


def _existing(folder: Path) -> Path:
    if not is_study(folder):
        raise BadInput(f"{folder} holds no study: there is no {NAME} in it.")
    return folder / NAME


def _check(db: sqlite3.Connection, path: Path) -> int:
    """The schema of a store; BadInput when it is no store, or a newer package's."""
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        db.close()
        raise BadInput(f"{path} cannot be read as a study's store: {error}.") from error
    if application != APPLICATION:
        db.close()
        raise BadInput(f"{path} is a database, but not a study's store.")
    if version not in range(1, VERSION + 1):
        db.close()
        raise BadInput(
            f"{path} has schema {version}, and this peftport reads schemas up to {VERSION}. Read "
            "it with the version that wrote it, or run the study anew in another folder."
        )
    return int(version)


_ORDER = (
    "ORDER BY condition, technique, receiver, task, origin, origin_task, method, control, "
    "seed, budget, run_id"
)

_RUN_FIELDS = (
    "run_id", "status", *PLAN_COLUMNS, "figures", "error", "log", "config", "predictions", "scores",
    "unlabelled", "finished",
)  # fmt: skip
_DONOR_FIELDS = (
    "donor_id", "status", "technique", "host", "task", "budget", "seed", "error", "config",
    "record", "tensors", "answers", "finished",
)  # fmt: skip


def _upsert(table: str, key: str, fields: tuple[str, ...]) -> str:
    changes = ", ".join(f"{field} = excluded.{field}" for field in fields if field != key)
    return (
        f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))}) "
        f"ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE {table}.status = 'failed'"
    )


_UPSERT_RUN = _upsert("runs", "run_id", _RUN_FIELDS)
_UPSERT_DONOR = _upsert("donors", "donor_id", _DONOR_FIELDS)


def _run_values(row: Row, now: str) -> list[Any]:
    answers = row.answers
    return [
        row.run_id,
        row.status,
        *(row.columns[name] for name in PLAN_COLUMNS),
        json.dumps(dict(row.figures)) if row.figures else None,
        row.error,
        row.log,
        row.config,
        *((answers.predictions, answers.scores, answers.unlabelled) if answers else (None,) * 3),
        now,
    ]


def _donor_values(donor: Donor, now: str) -> list[Any]:
    status = "failed" if donor.error else "done"
    kept = donor.module
    module = (kept.record, kept.tensors, kept.answers) if kept else (None, None, None)
    return [
        *(donor.donor_id, status, donor.technique, donor.host, donor.task, donor.budget),
        *(donor.seed, donor.error, donor.config, *module, now),
    ]

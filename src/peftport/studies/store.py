"""What is known of a study: an SQLite database, the only truth.

A run is done when its row is committed, and not before. Only the driver writes; every transaction
holds all rows of one reading of one pack, with the donors that it gave, so that nothing in the
store refers to what is not there. Donors are kept in the database itself for the same reason:
one commit, one file, and no order of writing and renaming that a power loss could turn around.

Every row and donor carries a digest of all that it says, and is held against it when it is read.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peftport.errors import BadInput, RunFailed
from peftport.files import by_library, is_file, parse_json, write_atomic
from peftport.kept import Answers
from peftport.kind import Kind, shared_kind
from peftport.studies.contents import require_contents
from peftport.studies.migration import migrate
from peftport.studies.rows import (
    DONOR_FIELDS,
    RUN_FIELDS,
    UPSERT_DONOR,
    UPSERT_RUN,
    Donor,
    Row,
    donor_values,
    is_whole,
    run_values,
)
from peftport.studies.salvage import damaged, is_whole_meta, reading, seal_meta, store_problem
from peftport.studies.schema import APPLICATION, TABLES, VERSION, columns_of, require_tables
from peftport.studies.work import Kept

NAME = "study.sqlite"


class Store:
    """An open study; its database is `db`. Made by `create`, `open_store` or `read_store`; a
    context manager."""

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self.db = connection
        self._sitting: int | None = None
        self._begun = time.monotonic()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database, with its log folded into the file.

        Whoever copies `study.sqlite` between two sittings has everything then. A reader who is
        looking on at this moment can keep the log from being folded in; the next close does it.
        """
        if self._sitting is not None:
            with suppress(sqlite3.Error):
                self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.db.close()

    @property
    def spec(self) -> dict[str, Any]:
        """The specification of the study."""
        return self._meta("spec")

    @property
    def facts(self) -> dict[str, Any]:
        """Its hosts, tasks, configurations and versions."""
        return self._meta("facts")

    @property
    def kind(self) -> Kind:
        """The kind of the study's tasks."""
        return shared_kind(self.facts.get("tasks", {}))

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
        return self.db.execute(
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
            db.executemany(UPSERT_RUN, [run_values(row, now) for row in rows])
            db.executemany(UPSERT_DONOR, [donor_values(donor, now) for donor in donors])
            db.execute(
                "UPDATE sittings SET seconds = ?, runs = runs + ? WHERE number = ?",
                (time.monotonic() - self._begun, len(rows), self._sitting),
            )

    def become(
        self, spec: Mapping[str, Any], facts: Mapping[str, Any], gold: Mapping[str, bytes]
    ) -> None:
        """Be the study of another specification from here on; what is recorded stays."""
        with self._transaction() as db:
            _tell(db, spec, facts, gold)

    def statuses(self) -> dict[str, str]:
        """Run id -> "done" or "failed"; runs that are missing are not in it."""
        return dict(self._read("SELECT run_id, status FROM runs"))

    def donor_statuses(self) -> dict[str, str]:
        """Donor id -> "done" or "failed"."""
        return dict(self._read("SELECT donor_id, status FROM donors"))

    def count(self) -> list[tuple[str, str, int]]:
        """Condition, status and number of the rows that are there."""
        sql = "SELECT condition, status, count(*) FROM runs GROUP BY condition, status"
        return list(self._read(sql))

    def donor(self, donor_id: str) -> tuple[Kept | None, str]:
        """A donor's module, or None and why; KeyError when it is missing.

        Raises:
            BadInput: it is not what was stored.
        """
        for found in self._whole("donors", DONOR_FIELDS, "WHERE donor_id = ?", donor_id):
            error = found["error"]
            kept = None if error else Kept(found["record"], found["tensors"], found["answers"])
            return kept, error
        raise KeyError(donor_id)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows as they are exported, in the order of their columns; a figure that was not
        measured is None."""
        study, columns = {"study": self.title}, columns_of(self.kind)
        for found in self._whole("runs", RUN_FIELDS, _ORDER):
            figures = parse_json(found["figures"] or "{}", f"{self.folder / NAME}: figures")
            row = study | figures | found
            yield {column: row.get(column) for column in columns}

    def answers(self) -> Iterator[tuple[str, Answers]]:
        """Run id and answers of every run that is done."""
        for found in self._whole("runs", RUN_FIELDS, "WHERE status = 'done'"):
            answers = (found[key] for key in ("predictions", "scores", "unlabelled"))
            yield found["run_id"], Answers(*answers)

    def gold(self) -> dict[str, bytes]:
        """Task -> what is true of every test example (`Kind.gold`)."""
        return dict(self._read("SELECT task, labels FROM gold"))

    def failures(self) -> list[dict[str, str]]:
        """Run id, error, log and when, of every failed run."""
        names = ("run_id", "error", "log", "finished")
        failed = self._whole("runs", RUN_FIELDS, f"WHERE status = 'failed' {_ORDER}")
        return [{name: found[name] for name in names} for found in failed]

    def config(self, run_id: str) -> dict[str, Any]:
        """The whole resolved configuration that a run is named by; KeyError when it is missing."""
        for found in self._whole("runs", RUN_FIELDS, "WHERE run_id = ?", run_id):
            config: dict[str, Any] = parse_json(found["config"], f"{self.folder / NAME}: a run")
            return config
        raise KeyError(run_id)

    def _meta(self, key: str) -> dict[str, Any]:
        ((value,),) = self._read("SELECT value FROM meta WHERE key = ?", key)
        parsed: dict[str, Any] = parse_json(value, f"{self.folder / NAME}: {key}")
        return parsed

    def _whole(
        self, table: str, fields: tuple[str, ...], which: str, *given: Any
    ) -> Iterator[dict[str, Any]]:
        """Rows by their fields, each held against its digest."""
        for values in self._read(f"SELECT {', '.join(fields)} FROM {table} {which}", *given):
            if not is_whole(values):
                what = f"{table.removesuffix('s')} {values[0]} is not what was stored"
                raise damaged(self.folder / NAME, what)
            yield dict(zip(fields, values, strict=True))

    def _read(self, sql: str, *given: Any) -> Iterator[tuple[Any, ...]]:
        """What a query gives; BadInput where the file is no whole database any more."""
        try:
            yield from self.db.execute(sql, given)
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise store_problem(self.folder / NAME, error) from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield self.db
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:
                    self.db.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise RunFailed(
                f"{self.folder / NAME} cannot be written: {error}. What was recorded before is "
                "safe; free some space there and run the study again to go on."
            ) from error
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise store_problem(self.folder / NAME, error) from error


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
        _tell(db, spec, facts, gold)
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
        BadInput: there is no study, it is no store, damaged, or one of a newer schema.
    """
    path = existing(folder)
    db = sqlite3.connect(path, isolation_level=None, timeout=30)
    begun_with = _check(db, path)
    _prepare(db, path)
    store = Store(folder, db)
    if begun_with < VERSION:
        with store._transaction():
            _migrate(db, path)
    return store


def read_store(folder: Path) -> Store:
    """Open a study for reading, also while it is being run; errors as for `open_store`."""
    path = existing(folder)
    try:
        db = reading(path)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a study's store: {error}.") from error
    if _check(db, path) == VERSION:
        return Store(folder, db)
    # A reader changes no file: what an older package wrote is read into memory and migrated there.
    copy = sqlite3.connect(":memory:", isolation_level=None)
    with closing(db):
        db.backup(copy)
    _migrate(copy, path)
    return Store(folder, copy)


def read_study(folder: Path) -> Store:
    """As `read_store`, for those who take what is in it at its word: BadInput also where it holds
    what no study wrote (`peftport.studies.contents`)."""
    store = read_store(folder)
    try:
        require_contents(store.db, folder / NAME)
    except BaseException:
        store.close()
        raise
    return store


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    with by_library(f"{path} cannot be brought to the tables of today"):
        migrate(db)
        seal_meta(db)


def _tell(
    db: sqlite3.Connection,
    spec: Mapping[str, Any],
    facts: Mapping[str, Any],
    gold: Mapping[str, bytes],
) -> None:
    """Write what the study is for."""
    meta = [("spec", json.dumps(spec)), ("facts", json.dumps(facts))]
    db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta)
    db.executemany("INSERT OR REPLACE INTO gold VALUES (?, ?)", gold.items())
    seal_meta(db)


def is_study(folder: Path) -> bool:
    """Whether there is a store in `folder`."""
    return is_file(folder / NAME)


def existing(folder: Path) -> Path:
    """The store in `folder`; BadInput when there is none."""
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
        if error.sqlite_errorname == "SQLITE_NOTADB":
            raise BadInput(f"{path} cannot be read as a study's store: {error}.") from error
        raise store_problem(path, error) from error
    if application != APPLICATION:
        db.close()
        raise BadInput(f"{path} is a database, but not a study's store.")
    if version not in range(1, VERSION + 1):
        db.close()
        raise BadInput(
            f"{path} has schema {version}, and this peftport reads schemas up to {VERSION}. Read "
            "it with the version that wrote it, or run the study anew in another folder."
        )
    try:
        require_tables(db)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        db.close()
        raise store_problem(path, error) from error
    except ValueError as error:
        db.close()
        raise BadInput(
            f"{path} is not a study's store as peftport writes them: {error}."
        ) from error
    if version == VERSION and not _is_known(db):
        db.close()
        raise damaged(path, "what the study is for is not what was stored")
    return int(version)


def _is_known(db: sqlite3.Connection) -> bool:
    try:
        return is_whole_meta(db)
    except (sqlite3.DatabaseError, ValueError):  # ValueError: text that is none
        return False


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Have a store written by a log ahead of it, safe against a loss of power; BadInput when SQLite
    finds anything wrong with the file, RunFailed when its disk is full."""
    try:
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
    except sqlite3.DatabaseError as error:
        db.close()
        raise store_problem(path, error) from error
    if found != "ok":
        db.close()
        raise damaged(path, " ".join(found.split()))


_ORDER = (
    "ORDER BY condition, technique, receiver, task, origin, origin_task, method, control, "
    "seed, budget, run_id"
)

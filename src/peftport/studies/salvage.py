"""What can still be read of a store whose file is damaged, and stores in folders of others."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from peftport.errors import BadInput, PeftportError, RunFailed
from peftport.studies.rows import DONOR_FIELDS, RUN_FIELDS, digest, is_whole
from peftport.studies.schema import VERSION, require_tables

_TRIES = 5
_HEADER = 100
_GIVE_UP = 10_000
"""Rows in sequence that cannot be read, after which there are none."""


def reading(path: Path) -> sqlite3.Connection:
    """A connection that reads a store and leaves the study's folder as it is.

    In a folder that may not be written, SQLite cannot see what others write at the same time; the
    store is copied from there, until it has not changed while it was copied, and read in memory.

    Raises:
        BadInput: others write it all the time.
    """
    if os.access(path.parent, os.W_OK):
        # Opened for writing, because only then SQLite clears its log away afterwards.
        place = f"{path.absolute().as_uri()}?mode=rw"
        found = sqlite3.connect(place, uri=True, isolation_level=None, timeout=30)
    else:
        found = sqlite3.connect(":memory:", isolation_level=None)
        with tempfile.TemporaryDirectory() as folder:
            copied = _copied(path, Path(folder))
            with closing(sqlite3.connect(copied)) as db:
                db.backup(found)
    found.execute("PRAGMA query_only = ON")
    return found


def _copied(path: Path, folder: Path) -> Path:
    """The store and its log, as they stood at one moment."""
    files = (path, Path(f"{path}-wal"))
    for _ in range(_TRIES):
        before = _marks(files)
        for file in files:
            (folder / file.name).unlink(missing_ok=True)
            if file.exists():
                shutil.copyfile(file, folder / file.name)
        if _marks(files) == before:
            return folder / path.name
    raise BadInput(f"{path} is being written, and its folder may not be: read it later.")


def _marks(files: tuple[Path, ...]) -> list[tuple[int, int] | None]:
    found = [file.stat() if file.exists() else None for file in files]
    return [(each.st_mtime_ns, each.st_size) if each else None for each in found]


def whole_rows(
    db: sqlite3.Connection, table: str, fields: tuple[str, ...]
) -> Iterator[tuple[Any, ...]]:
    """The rows of "runs" or "donors" that can be read and are what was stored."""
    last = missed = 0
    select = f"SELECT rowid, {', '.join(fields)} FROM {table} WHERE rowid > ? ORDER BY rowid"
    while missed < _GIVE_UP:
        try:
            for rowid, *values in db.execute(select, (last,)):
                last, missed = rowid, 0
                if is_whole(values):
                    yield tuple(values)
            return
        except (sqlite3.DatabaseError, UnicodeDecodeError):
            last, missed = last + 1, missed + 1


@contextmanager
def rescuing(path: Path) -> Iterator[sqlite3.Connection | None]:
    """A copy of a damaged store, filled up where its end is missing, which SQLite would refuse as a
    whole; None where even what the study is for cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        copied = _copied(path, Path(folder))
        with copied.open("r+b") as file:
            header = file.read(_HEADER)
            size, pages = (int.from_bytes(header[a:b]) for a, b in ((16, 18), (28, 32)))
            file.truncate(max(copied.stat().st_size, size * pages))
        with closing(sqlite3.connect(copied, isolation_level=None)) as db:
            try:
                (version,) = db.execute("PRAGMA user_version").fetchone()
                require_tables(db)
                known = version == VERSION and is_whole_meta(db)
            except (sqlite3.DatabaseError, ValueError):  # ValueError: text that is none, a view
                known = False
            yield db if known else None


def is_whole_meta(db: sqlite3.Connection) -> bool:
    """Whether specification, facts and true classes are what was stored."""
    found = db.execute("SELECT value FROM meta WHERE key = 'digest'").fetchone()
    return found is not None and found[0] == _digest_of_meta(db)


def seal_meta(db: sqlite3.Connection) -> None:
    """Keep the digest of what a study is for."""
    db.execute("INSERT OR REPLACE INTO meta VALUES ('digest', ?)", (_digest_of_meta(db),))


def _digest_of_meta(db: sqlite3.Connection) -> str:
    """The digest of what a study is for."""
    meta = db.execute("SELECT key, value FROM meta WHERE key != 'digest' ORDER BY key").fetchall()
    gold = db.execute("SELECT task, labels FROM gold ORDER BY task").fetchall()
    return digest([value for row in (*meta, *gold) for value in row])


def store_problem(path: Path, error: Exception) -> PeftportError:
    """What to say of a store that SQLite cannot read or write: that the disk is full or fails,
    where it is that, and else that it is damaged."""
    name = getattr(error, "sqlite_errorname", None) or ""
    if name.startswith(("SQLITE_IOERR", "SQLITE_FULL")):
        return RunFailed(
            f"{path} cannot be read or written: {error}. What was recorded before is safe; free "
            "some space there and give the same command again."
        )
    return damaged(path, " ".join(str(error).split()))


def damaged(path: Path, why: str) -> BadInput:
    """The refusal of a damaged store, with what can be rescued of it."""
    with rescuing(path) as db:
        if db is None:
            rest = "Nothing of it can be rescued; take a copy of it, or run the study anew."
        else:
            runs = sum(1 for _ in whole_rows(db, "runs", RUN_FIELDS))
            donors = sum(1 for _ in whole_rows(db, "donors", DONOR_FIELDS))
            rest = (
                f"{runs} of its runs and {donors} of its donors are whole: `peftport study rescue "
                f"{path.parent} --out NEW` writes them into a new study, and `peftport study run "
                "NEW` does the others again."
            )
    return BadInput(f"{path} is damaged: {why}. {rest}")

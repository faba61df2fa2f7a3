"""Writes what is whole of a damaged store into a new one."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from peftport.errors import BadInput
from peftport.files import new_folder
from peftport.studies.rows import DONOR_FIELDS, RUN_FIELDS, UPSERT_DONOR, UPSERT_RUN
from peftport.studies.salvage import rescuing, whole_rows
from peftport.studies.store import NAME, create, existing


@dataclass(frozen=True)
class RescueCounts:
    """How many runs and donors are in the new study."""

    runs: int
    donors: int


def rescue(folder: Path, out: Path) -> RescueCounts:
    """Begin the study of `folder` anew in `out`, with every run and donor that is whole.

    Raises:
        BadInput: there is no study, it is of an older schema, what it is for cannot be read, or
            `out` exists already.
    """
    path = existing(folder)
    with rescuing(path) as db, new_folder(out) as made:
        if db is None:
            raise BadInput(f"{path}: what the study is for cannot be read; run it anew.")
        meta = dict(db.execute("SELECT key, value FROM meta"))
        gold = dict(db.execute("SELECT task, labels FROM gold"))
        create(made, json.loads(meta["spec"]), json.loads(meta["facts"]), gold).close()
        with closing(sqlite3.connect(made / NAME)) as new, new:
            runs = new.executemany(UPSERT_RUN, whole_rows(db, "runs", RUN_FIELDS)).rowcount
            donors = new.executemany(UPSERT_DONOR, whole_rows(db, "donors", DONOR_FIELDS)).rowcount
        return RescueCounts(runs, donors)

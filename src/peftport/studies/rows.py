"""Rows and donors as the tables of a store hold them, each with a digest of all that it says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftport.kept import Answers
from peftport.studies.schema import PLAN_COLUMNS
from peftport.studies.work import Kept


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


RUN_FIELDS = (
    "run_id", "status", *PLAN_COLUMNS, "figures", "error", "log", "config", "predictions", "scores",
    "unlabelled", "finished", "digest",
)  # fmt: skip
DONOR_FIELDS = (
    "donor_id", "status", "technique", "host", "task", "budget", "seed", "error", "config",
    "record", "tensors", "answers", "finished", "digest",
)  # fmt: skip


def _upsert(table: str, key: str, fields: tuple[str, ...]) -> str:
    changes = ", ".join(f"{field} = excluded.{field}" for field in fields if field != key)
    return (
        f"INSERT INTO {table} ({', '.join(fields)}) VALUES ({', '.join('?' * len(fields))}) "
        f"ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE {table}.status = 'failed'"
    )


UPSERT_RUN = _upsert("runs", "run_id", RUN_FIELDS)
UPSERT_DONOR = _upsert("donors", "donor_id", DONOR_FIELDS)


def run_values(row: Row, now: str) -> list[Any]:
    """A row by `RUN_FIELDS`."""
    answers = row.answers
    values = [
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
    return [*values, digest(values)]


def donor_values(donor: Donor, now: str) -> list[Any]:
    """A donor by `DONOR_FIELDS`."""
    status = "failed" if donor.error else "done"
    kept = donor.module
    module = (kept.record, kept.tensors, kept.answers) if kept else (None, None, None)
    values = [
        *(donor.donor_id, status, donor.technique, donor.host, donor.task, donor.budget),
        *(donor.seed, donor.error, donor.config, *module, now),
    ]
    return [*values, digest(values)]


def digest(values: Sequence[Any]) -> str:
    """SHA-256 over values as SQLite keeps them: texts, bytes, whole numbers and None."""
    found = hashlib.sha256()
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode()
        found.update(f"{type(value).__name__} {len(data)} ".encode())
        found.update(data)
    return found.hexdigest()


def is_whole(values: Sequence[Any]) -> bool:
    """Whether values by `RUN_FIELDS` or `DONOR_FIELDS` are those that were stored."""
    return bool(values[-1] == digest(values[:-1]))

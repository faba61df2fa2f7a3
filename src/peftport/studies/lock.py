"""One driver per study."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import exists, opened, parse_json, require_regular
from peftport.places import writing

NAME = "driver.lock"


@contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """Hold a study's folder as its only driver.

    The lock is the kernel's: it ends with the process, however that ends, and the file that stays
    behind locks nothing.

    Raises:
        BadInput: another process drives the study, which is named with its machine; or the folder
            cannot be written.
        RunFailed: the disk is full.
    """
    require_regular(folder / NAME)
    with writing(folder / NAME):
        handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _locked(handle):
            raise BadInput(_refusal(folder, driver_of(folder)))
        mine = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
        with writing(folder / NAME):
            os.ftruncate(handle, 0)
            os.pwrite(handle, json.dumps(mine).encode(), 0)
        yield
    finally:
        os.close(handle)


def require_free(folder: Path) -> None:
    """Raise BadInput when a process drives the study, which may be about to change its store."""
    if other := driver_of(folder):
        raise BadInput(_refusal(folder, other))


def driver_of(folder: Path) -> dict[str, Any] | None:
    """The process that runs a study now (pid, host, since), or None when there is none."""
    if not exists(folder / NAME):
        return None
    with opened(folder / NAME) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _parsed(file.read(4096))


def _locked(handle: int) -> bool:
    """Try for a moment: somebody who only looks who drives holds the lock for an instant."""
    for attempt in range(5):
        if attempt:
            time.sleep(0.1)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            continue
    return False


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        found = parse_json(content, NAME)
        return {key: found[key] for key in ("pid", "host", "since")}
    except (BadInput, KeyError, TypeError):
        return {"pid": None, "host": None, "since": None}


def _refusal(folder: Path, other: dict[str, Any] | None) -> str:
    who = "another process, which has just started"
    if other and other["pid"]:
        who = f"process {other['pid']} on {other['host']}, since {other['since']}"
    return f"study {folder} is being run by {who}. Wait for it, or stop it, and run again."


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

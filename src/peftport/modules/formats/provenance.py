"""What peftport keeps of a module beside the files of another library: its whole record.

`peftport.json` holds the record and the SHA-256 of every file that says what the module does. It
counts only as long as those are as they were written, so that a module which was trained on or
edited since is never taken for the one that peftport knew.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import is_file, opened, read_bytes, read_json
from peftport.hosts.fingerprint import read_header
from peftport.modules.record import Record, parse_record

KEPT = "peftport.json"
_log = logging.getLogger(__name__)


def provenance(folder: Path, names: list[str], record: Record) -> dict[str, Any]:
    """The content of `peftport.json` for a folder in which these files have been written."""
    return {
        "files": {name: _sha256(folder / name) for name in sorted(names)},
        "record": record.model_dump(mode="json"),
    }


def read_provenance(folder: Path) -> Record | None:
    """The record that peftport kept in a folder; None where there is none that holds."""
    path = folder / KEPT
    if not is_file(path):
        return None
    kept = read_json(path)
    try:
        marks = dict(kept["files"])
        raw = kept["record"]
    except (KeyError, TypeError, ValueError):
        raise BadInput(f"{path} lacks `files` or `record`; remove it to go on without.") from None
    # Names from a file: only those right in the folder are opened.
    whole = bool(marks) and all(
        Path(name).name == name and is_file(folder / name) and _sha256(folder / name) == mark
        for name, mark in marks.items()
    )
    if not whole:
        _log.warning("notice: %s is of other files than those beside it and is not used", path)
        return None
    return parse_record(raw, path)


def _sha256(path: Path) -> str:
    # A file that is none of its kind, however large, is not read to its end.
    if path.suffix != ".safetensors":
        return hashlib.sha256(read_bytes(path)).hexdigest()
    read_header(path)
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

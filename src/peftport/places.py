"""Places that are written to: looked at before work begins, and one message where they fail."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peftport.errors import BadInput, PeftportError, RunFailed

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG}
_CLOSED = {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG),
    errno.ELOOP,
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one way, whoever writes, that nothing can be written at `path`.

    Raises:
        BadInput: the place cannot be written: it is read-only, of somebody else, or none.
        RunFailed: the disk is full or fails.
    """
    try:
        yield
    except PeftportError:
        raise
    except Exception as error:
        # Libraries that write in Rust raise what is no OSError, with the number in its text.
        told = re.search(r"\(os error (\d+)\)", str(error))
        number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
        if number in _FULL:
            raise RunFailed(
                f"{path} cannot be written: {os.strerror(number)}. Nothing is left there by "
                "halves; free some space and give the same command again."
            ) from error
        if number in _CLOSED:
            raise _closed(path, os.strerror(number)) from error
        raise


def _closed(path: Path, why: str) -> BadInput:
    return BadInput(
        f"{path} cannot be written: {why}. Give another place, or see to it that this one may be "
        "written."
    )


def require_new(path: Path) -> None:
    """Raise BadInput unless something new can be written at `path`, before any work is done."""
    refuse_existing(path)
    require_writable(path)


def require_writable(path: Path) -> None:
    """Raise BadInput unless something can be written at `path`; nothing is left there."""
    with writing(path):
        parent = Path(os.path.abspath(path)).parent
        while not parent.exists():
            _require_name(parent)
            parent = parent.parent
        # As it will be written: beside its place, under a longer name.
        try:
            with tempfile.TemporaryDirectory(dir=parent, prefix=f".{path.name}."):
                pass
        except FileNotFoundError as error:  # in /proc and the like, where nothing can be made
            raise _closed(path, f"in {parent} nothing can be made") from error


def _require_name(path: Path) -> None:
    if len(os.fsencode(path.name)) > os.pathconf("/", "PC_NAME_MAX"):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))


def refuse_existing(path: Path) -> None:
    """Raise BadInput when there is something at `path` (an empty folder counts as nothing)."""
    with writing(path):
        if path.is_dir() and not any(path.iterdir()):
            return
        if Path(os.path.abspath(path)) == Path.cwd():
            raise BadInput(f"--out {str(path)!r} is the folder that you are in; name a new one.")
        if path.exists() or path.is_symlink():
            raise BadInput(f"{path} exists already; give another --out or remove it first.")

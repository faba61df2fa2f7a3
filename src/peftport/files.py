"""Files written whole or not at all, and files read with an error that names them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.places import refuse_existing, writing

_POINTER = b"version https://git-lfs.github.com/spec/"


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a kill at any moment leaves the old file or the new one.

    Raises:
        BadInput, RunFailed: nothing can be written there; see `peftport.places.writing`.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), 0o644)  # mkstemp makes files that nobody else may read
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against others who lock it, in this process or another, until the block ends.

    The lock is the kernel's and of the folder itself: it leaves no file behind.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an error.

    Raises:
        BadInput: `path` exists already (nothing is ever written over), or cannot be written.
        RunFailed: the disk is full or fails.
    """
    refuse_existing(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        temporary.chmod(0o755)
        try:
            yield temporary
            refuse_existing(path)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def refuse_pointer(path: Path) -> None:
    """Raise BadInput when git-lfs has left its pointer in place of a file."""
    with path.open("rb") as file:
        start = file.read(len(_POINTER))
    if start == _POINTER:
        raise BadInput(
            f"{path} is a git-lfs pointer and not the file itself: fetch it with `git lfs pull`."
        )


def read_json(path: Path) -> Any:
    """Read a JSON file; BadInput names the file and the place of the error."""
    try:
        refuse_pointer(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON: {error}.") from error


def read_yaml(path: Path) -> Any:
    """Read a YAML file; BadInput names the file and the place of the error."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not valid YAML: {error}.") from error


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML; BadInput says `where` it stands and the place of the error."""
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"{where} is not valid YAML: {error}.") from error


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with a final newline, whole or not at all."""
    write_atomic(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

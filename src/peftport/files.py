"""Files written whole or not at all, and files read with an error that names them."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from peftport.errors import BadInput, PeftportError
from peftport.places import refuse_existing, writing

LARGEST = 16 << 20
"""Bytes of a file that is parsed as a whole: as objects in memory, up to thirty times as many."""
LARGEST_YAML = 1 << 20
_DIGITS, _DEPTH, _VALUES, _TOLD = 100, 64, 100_000, 500
_DEEP = f"it is nested deeper than {_DEPTH} levels"

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
            for file in temporary.rglob("*"):
                if file.is_file():
                    file.chmod(0o644)  # safetensors makes files that nobody else may read
            refuse_existing(path)
            os.replace(temporary, path)
            _sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def is_file(path: Path) -> bool:
    """Whether there is a regular file at `path`; False for names that no disk can hold."""
    return os.path.isfile(path)  # unlike Path.is_file, it does not raise for an over-long name


def is_folder(path: Path) -> bool:
    """Whether there is a folder at `path`; False for names that no disk can hold."""
    return os.path.isdir(path)


def exists(path: Path) -> bool:
    """Whether there is anything at `path`; False for names that no disk can hold."""
    return os.path.exists(path)


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """Open a file to be read. Every file that is read is opened here.

    Raises:
        BadInput: there is none, it may not be read, it is what git-lfs left in its place, or it is
            no regular file but a folder, or a pipe or device, from which reading might never end.
    """
    try:
        # Without waiting: a pipe opens only when somebody else writes into it.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a null or a lone surrogate
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInput(f"{path} cannot be opened: {why}.") from error
    try:
        _refuse_special(path, os.fstat(handle).st_mode)
        file = os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
    with file:
        if file.read(len(_POINTER)) == _POINTER:
            raise BadInput(
                f"{path} is a git-lfs pointer and not the file itself: fetch it with "
                "`git lfs pull`."
            )
        file.seek(0)
        yield file


def require_regular(path: Path) -> None:
    """Raise BadInput, as `opened` does, before another library opens a file. Where nothing is, the
    library says so."""
    if os.path.lexists(path):  # a link that leads nowhere is something
        with opened(path):
            pass


def read_bytes(path: Path, limit: int | None = LARGEST) -> bytes:
    """Read a whole file; BadInput when it has more than `limit` bytes, or as `opened`."""
    with opened(path) as file:
        data = file.read(-1 if limit is None else limit + 1)
    if limit is not None and len(data) > limit:
        raise BadInput(
            f"{path} has more than {limit:,} bytes, which no such file has: it is not read."
        )
    return data


def read_text(path: Path, limit: int | None = LARGEST) -> str:
    """Read a whole file of text; BadInput when it is not UTF-8, or as `read_bytes`."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}.") from error


def read_json(path: Path) -> Any:
    """Read a JSON file; BadInput names the file and the place of the error."""
    return parse_json(read_bytes(path), str(path))


def parse_json(text: str | bytes, where: str, halves: bool = False) -> Any:
    """Read JSON that a stranger may have written.

    Args:
        halves: let half a character (a lone surrogate) pass, as texts from the web have it.

    Raises:
        BadInput: says `where` it stands and what is wrong: no JSON, an object with one key twice,
            an integer of more than 100 digits, nesting deeper than 64, half a character.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
        _require_plain(value, halves)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not valid JSON: {_reason(error)}.") from error
    return value


def parse_first(text: str, start: int, where: str) -> tuple[Any, int]:
    """Read the JSON value that begins at a place of a text, and say where it ends.

    Raises:
        BadInput: as `parse_json`; half a character passes.
    """
    try:
        value, end = _FIRST.raw_decode(text, start)
        _require_plain(value, halves=True)
    except (ValueError, RecursionError) as error:
        why = error.msg if isinstance(error, json.JSONDecodeError) else _reason(error)
        raise BadInput(f"{where} is not valid JSON: {why}.") from error
    return value, end


def read_yaml(path: Path) -> Any:
    """Read a YAML file; BadInput names the file and the place of the error."""
    try:
        return parse_yaml(read_bytes(path, LARGEST_YAML).decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not valid YAML: {error}.") from error


def parse_yaml(text: str, where: str) -> Any:
    """Read YAML that a stranger may have written.

    Raises:
        BadInput: says `where` it stands and what is wrong: no YAML, a key twice, aliases that make
            more than 100,000 values of it, an integer of more than 100 digits, nesting deeper than
            64, half a character.
    """
    import yaml

    with by_library(f"{where} is not valid YAML"):
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _written_out(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()


@contextmanager
def by_library(what: str, advice: str = "") -> Iterator[None]:
    """Let another library read a stranger's file: whatever it raises ends in BadInput.

    What libraries raise for files that nobody meant them to read is open: PyYAML has KeyError and
    AttributeError, transformers TypeError, and what is written in Rust panics with what is no
    Exception.

    Args:
        what: the beginning of the message, which the library's reason follows.
        advice: what to do, the end of the message.
    """
    try:
        yield
    except (PeftportError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise BadInput(f"{what}: {_reason(error)}. {advice}".rstrip()) from error


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


def _refuse_special(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a device or the like"
        raise BadInput(f"{path} is {kind}, expected a file.")


def _reason(error: BaseException) -> str:
    """What an error says, as the rest of a sentence."""
    if isinstance(error, RecursionError):
        return _DEEP
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    said = " ".join(str(error).split())[:_TOLD]
    name = "" if said and isinstance(error, ValueError | OSError) else type(error).__name__
    return (f"{name}: {said}" if name and said else said or name).rstrip(".")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which every key stands once: readers differ in which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} stands in one object twice")
    return found


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"it has an integer of {len(text):,} digits")
    return int(text)


_FIRST = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer)


def _require_plain(value: Any, halves: bool) -> None:
    """Raise ValueError for values that are nested too deep, and strings that cannot be written."""
    level, depth = [value], 0
    while level:
        if depth > _DEPTH:
            raise ValueError(_DEEP)
        inner: list[Any] = []
        for each in level:
            if isinstance(each, str) and not halves:
                each.encode()  # of a lone surrogate UnicodeEncodeError, a ValueError
            elif isinstance(each, dict):
                inner += each.keys()
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level, depth = inner, depth + 1


def _written_out(node: Any, known: dict[Any, tuple[int, int] | None]) -> tuple[int, int]:
    """The number of values that a YAML node stands for, aliases written out, and their depth.

    Raises:
        ValueError: they are too many, nested too deep or within themselves, or one of them cannot
            be used.
    """
    if node in known:
        if (found := known[node]) is None:
            raise ValueError("an alias stands within what it stands for")
        return found
    known[node] = None
    inner = [_written_out(each, known) for each in _parts(node)]
    size = 1 + sum(size for size, _ in inner)
    depth = 1 + max((depth for _, depth in inner), default=0)
    if size > _VALUES:
        raise ValueError(f"it has more than {_VALUES:,} values, aliases written out")
    if depth > _DEPTH:
        raise ValueError(_DEEP)
    known[node] = size, depth
    return size, depth


def _parts(node: Any) -> list[Any]:
    """The YAML nodes within one; ValueError when it cannot be used itself."""
    if isinstance(node.value, str):
        node.value.encode()  # of a lone surrogate UnicodeEncodeError, a ValueError
        if node.tag.endswith(":int"):
            _integer(node.value)
        return []
    if not all(isinstance(each, tuple) for each in node.value):
        return list(node.value)
    scalars = [key for key, _ in node.value if isinstance(key.value, str)]
    for (_, name), count in Counter((key.tag, key.value) for key in scalars).items():
        if count > 1 and name != "<<":
            raise ValueError(f"the key {name!r} stands in one mapping twice")
    return [part for pair in node.value for part in pair]

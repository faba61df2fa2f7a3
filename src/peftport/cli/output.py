"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.errors import BadInput, RunFailed
from peftport.plain import printable

if TYPE_CHECKING:
    from peftport.api.result import Result

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def show(result: Result, as_json: bool) -> None:
    """Print a result as JSON, or else in words."""
    text = str(result)
    if as_json:
        known = finite_or_null(result.to_dict())
        text = json.dumps(known, indent=2, ensure_ascii=False, allow_nan=False)
    print(printable(text))


def finite_or_null(value: Any) -> Any:
    """The same with None for numbers that JSON has not."""
    if isinstance(value, dict):
        return {key: finite_or_null(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


@contextmanager
def printed_whole() -> Iterator[None]:
    """Say in one line where standard output cannot be written, as into a file on a full disk.

    Raises:
        RunFailed: it cannot.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Whoever stops reading is no fault, and files that cannot be written have a name.
        if error.errno in (None, errno.EPIPE) or error.filename is not None:
            raise
        with suppress(OSError, ValueError):  # what is left in the buffer goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise RunFailed(f"standard output cannot be written: {error.strerror}.") from error


def require_upload(name: str | None, private: bool) -> None:
    """Raise BadInput where something that is uploaded nowhere is to be private."""
    if private and name is None:
        raise BadInput("--private says how --push-to-hub makes a repository: name one with it.")


def upload(result: Any, name: str | None, private: bool) -> None:
    """Upload what was made, where that was asked for, and say where it is."""
    if name is not None:
        say(f"uploaded: {result.push_to_hub(name, private=private)}")


def say(text: str) -> None:
    """Print progress or a notice on standard error."""
    print(printable(text), file=sys.stderr, flush=True)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _Once(logging.Filter):
    """Lets a message through once: a module is read for its outline and again for its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        fresh = message not in self._said
        self._said.add(message)
        return fresh


def log_to_stderr() -> None:
    """Send the package's notices to standard error, as bare lines, each once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Once())
    handler.setFormatter(_Printable("%(message)s"))
    logger = logging.getLogger("peftport")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)


def parse_numbers(text: str, option: str, kind: type[int] | type[float]) -> list[Any]:
    """Read a comma-separated list of numbers; BadInput names the option."""
    try:
        numbers = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number < inf for number in numbers):
        what = "whole numbers" if kind is int else "numbers"
        raise BadInput(f"{option} {text!r}: expected {what} of 0 or more, joined by commas.")
    return numbers

"""What commands print: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from peftport.errors import BadInput
from peftport.plain import printable

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def show(record: dict[str, Any], text: str, as_json: bool) -> None:
    """Print `record` as JSON, or else `text`."""
    print(printable(json.dumps(record, indent=2, ensure_ascii=False) if as_json else text))


def say(text: str) -> None:
    """Print progress or a notice on standard error."""
    print(printable(text), file=sys.stderr, flush=True)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Send the package's notices to standard error, as bare lines."""
    handler = logging.StreamHandler(sys.stderr)
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
    if not numbers or any(number < 0 for number in numbers):
        what = "whole numbers" if kind is int else "numbers"
        raise BadInput(f"{option} {text!r}: expected {what} of 0 or more, joined by commas.")
    return numbers


def figures_text(figures: Mapping[str, Any]) -> str:
    """A test's figures in one line."""
    from peftport.metrics import METRICS

    told = [
        f"{metric.title} {figures[name]:.3f}"
        for name, metric in METRICS.items()
        if figures.get(name) is not None
    ]
    return f"{', '.join(told)} on {figures['n_test']} texts"

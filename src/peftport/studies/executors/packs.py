"""What a worker does with a pack, wherever it runs. Nothing here needs torch."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Callable, Iterable, Iterator

from peftport.errors import PeftportError
from peftport.studies.work import Broken, Event, Finished, PackReading, Work

ENTRY = "peftport.studies.execute:execute"
"""Turns a Work into readings, with so many threads."""

Entry = Callable[[Work, int], Iterable[PackReading]]


def load(entry: str) -> Entry:
    """Import an entry, "module:function"."""
    module, function = entry.split(":")
    found: Entry = getattr(importlib.import_module(module), function)
    return found


def events(entry: str, work: Work, threads: int) -> Iterator[Event]:
    """Everything that comes of a pack, its end included; its errors are told and not raised."""
    try:
        yield from load(entry)(work, threads)
    except MemoryError as error:
        yield Broken(work.number, f"out of memory: {error}", traceback.format_exc())
    except PeftportError as error:
        yield Broken(work.number, str(error), "")
    except Exception as error:
        yield Broken(work.number, f"{type(error).__name__}: {error}", traceback.format_exc())
    else:
        yield Finished(work.number)

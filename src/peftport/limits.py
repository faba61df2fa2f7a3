"""Programs of strangers, such as a chat template, with an end to their time and memory."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/statm")


class TooMuch(Exception):
    """A program took more than it was given."""


@contextmanager
def limited(seconds: float, memory: int) -> Iterator[None]:
    """Stop what runs in the block after so many seconds, or bytes beyond what the process has.

    Memory is limited where the system tells how much there is (Linux). What runs in one step of C
    cannot be stopped before that step is done.

    Raises:
        TooMuch: it took too long. MemoryError: it took too much memory.
    """
    with _within(seconds), _below(memory):
        yield


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    caller, lock = ctypes.c_ulong(threading.get_ident()), threading.Lock()
    over = list[bool]()

    def stop() -> None:
        with lock:  # so that nothing is thrown at what comes after the block
            if not over:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(caller, ctypes.py_object(TooMuch))

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    except TooMuch:
        raise TooMuch(f"it took more than {seconds:g} seconds") from None
    finally:
        with lock:
            over.append(True)
        timer.cancel()


@contextmanager
def _below(memory: int) -> Iterator[None]:
    if not _STATUS.exists():
        yield
        return
    import resource

    pages = int(_STATUS.read_text().split()[0])
    before, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = pages * resource.getpagesize() + memory
    if most != resource.RLIM_INFINITY:
        wanted = min(wanted, most)
    if before != resource.RLIM_INFINITY:
        wanted = min(wanted, before)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, most))

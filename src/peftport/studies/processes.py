"""Processes that are started through a fork server, which may have been killed."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from peftport.errors import RunFailed

_TRIES, PAUSE = 5, 0.2
Made = TypeVar("Made")


_LOST = 255
"""What multiprocessing takes for the exit code of a process whose fork server was killed."""


def ended(code: int | None, by_server: bool) -> str:
    """How a process ended, as words after "it was" or the like.

    Args:
        by_server: whether a fork server had started it.
    """
    if code == _LOST and by_server:
        return "lost with the fork server that had started it"
    if code is not None and code < 0:
        return f"killed by signal {-code}"
    return f"ended with exit code {code}"


def started(make: Callable[[], Made]) -> Made:
    """What `make` gives, which starts a process. All processes are started through here.

    Python's multiprocessing starts a fork server anew when it finds that the old one has ended; of
    one that ends just while it is asked, only a broken connection is seen.

    Raises:
        RunFailed: no process can be started, however often it is tried.
    """
    for attempt in range(_TRIES):
        try:
            with _main_hidden():
                return make()
        except (EOFError, OSError, BrokenExecutor) as error:
            reason = f"{type(error).__name__}: {error}".rstrip(": ")
            time.sleep(PAUSE * attempt)
    raise RunFailed(f"no worker process can be started ({reason}); run the study again to go on.")


@contextmanager
def _main_hidden() -> Iterator[None]:
    """A process begins without the program that starts it: given that, multiprocessing would run a
    plain script, which has no guard, a second time. All that a process needs it imports."""
    main = vars(sys.modules["__main__"])
    before: dict[str, Any] = {name: main[name] for name in ("__file__", "__spec__") if name in main}
    main.update({name: None for name in before})
    try:
        yield
    finally:
        main.update(before)


def apart(function: Callable[..., Made], *given: Any) -> Made:
    """What `function` gives, in a process of its own: what it loads is gone with it.

    Raises:
        RunFailed: no process can be started.
    """
    known = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in known else "spawn")

    def made() -> Made:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(function, *given).result()

    return started(made)

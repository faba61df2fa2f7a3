"""How far a training or a port is: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from peftport.cli.output import say
from peftport.studies.progress import duration


class _Shown:
    """Something that has a bar on a terminal while the block runs."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


class StepProgress(_Shown):
    """Shows steps and their losses on standard error while the block runs.

    Args:
        total: how many steps there will be; a file gets about twenty lines.
    """

    def __init__(self, total: int) -> None:
        super().__init__()
        self._total = total
        self._every = max(1, total // 20)
        self._sum, self._count = 0.0, 0

    def show(self, step: int, loss: float) -> None:
        """Called after each step, with its number from 1 and its loss."""
        self._sum, self._count = self._sum + loss, self._count + 1
        due = step % self._every == 0 or step == self._total
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = _bar(self._total)
            (task,) = self._bar.task_ids
            mean = {"loss": f"{self._sum / self._count:.4f}"} if due or step == 1 else {}
            self._bar.update(task, completed=step, **mean)
        elif due:
            say(f"step {step:>6} of {self._total}  loss {self._sum / self._count:.4f}")
        if due:
            self._sum, self._count = 0.0, 0


_QUIET = 10.0
"""Seconds between two lines in a file."""


class Shares(_Shown):
    """Shows on standard error how much of a port is done, and how long the rest will take."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = self._told = time.monotonic()

    def show(self, share: float, what: str) -> None:
        """Called with the share that is done, from 0 to 1, and what comes next."""
        now = time.monotonic()
        left = (now - self._begun) * (1 - share) / share if share > 0 else None
        rest = "" if left is None else f", about {duration(left)} left"
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = _share_bar()
            (task,) = self._bar.task_ids
            self._bar.update(task, completed=share, what=f"{what}{rest}")
        elif now - self._told >= _QUIET:
            self._told = now
            say(f"{share:4.0%}  {what}{rest}")


def _share_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(), TextColumn("{task.percentage:>3.0f}%  {task.fields[what]}"))
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.add_task("", total=1.0, what="")
    bar.start()
    return bar


def _bar(total: int) -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task("", total=total, loss="-")
    bar.start()
    return bar


def losses_to_stderr(steps: int) -> Callable[[int, float], None]:
    """What is called now and then in a training of so many steps: a line on standard error."""
    return lambda step, loss: say(f"step {step:>6} of {steps}  loss {loss:.4f}")

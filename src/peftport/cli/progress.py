"""How far a training is: a bar on a terminal, a line now and then in a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any

from peftport.cli.output import say


class Steps:
    """Shows steps and their losses on standard error while the block runs.

    Args:
        total: how many steps there will be; a file gets about twenty lines.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._every = max(1, total // 20)
        self._bar: Any = None
        self._sum, self._count = 0.0, 0

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

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

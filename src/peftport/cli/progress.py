"""How far a training or a port is, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from peftport.cli.output import say
from peftport.progress import Line, Losses, duration


class _Shown:
    """Something that is shown while the block runs."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.clear()


class _TimeLeft:
    """Says how long the rest of some work will take, by what was done since it was first told of:
    what goes before that is mostly loading."""

    def __init__(self) -> None:
        self._first: tuple[float, float] | None = None

    def text(self, done: float, total: float) -> str:
        """Called with what is done of the whole: a clause, or nothing where it is not known."""
        now = time.monotonic()
        first, begun = self._first = self._first or (done, now)
        if not first < done < total:
            return ""
        return f", about {duration((now - begun) * (total - done) / (done - first))} left"


class _Pace:
    """Says how far a training is, and how long the rest of it will take.

    Args:
        total: how many steps there will be.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = _TimeLeft()

    def text(self, step: int, loss: str) -> str:
        """Called with a step that is done."""
        left = self._left.text(step, self.total)
        return f"step {step:>6} of {self.total}  loss {loss}{left}"


class StepProgress(_Shown):
    """Shows steps, their losses and the time that is left while the block runs.

    Args:
        total: how many steps there will be; a file gets about twenty lines.
    """

    def __init__(self, total: int) -> None:
        super().__init__(Line(sys.stderr, every=float("inf")))
        self._pace = _Pace(total)
        self._every = max(1, total // 20)
        self._sum, self._count, self._loss = 0.0, 0, ""

    def show(self, step: int, loss: float) -> None:
        """Called after each step, with its number from 1 and its loss."""
        self._sum, self._count = self._sum + loss, self._count + 1
        due = step % self._every == 0 or step == self._pace.total
        if due or step == 1:
            self._loss = f"{self._sum / self._count:.4f}"
        self._line.show(self._pace.text(step, self._loss), due)
        if due:
            self._sum, self._count = 0.0, 0


QUIET = 10.0
"""Seconds between two lines in a file."""


class Shares(_Shown):
    """Shows how much of a port is done, and how long the rest will take."""

    def __init__(self) -> None:
        super().__init__(Line(sys.stderr, QUIET, patient=True))
        self._left = _TimeLeft()

    def begin(self, text: str) -> None:
        """Called before each of several pieces of work: says what it is, on a line of its own."""
        self._line.clear()
        say(text)
        self._left = _TimeLeft()

    def show(self, share: float, what: str) -> None:
        """Called with the share that is done, from 0 to 1, and what comes next."""
        self._line.show(f"{share:4.0%}  {what}{self._left.text(share, 1.0)}")


def losses_to_stderr(steps: int) -> Losses:
    """What is called now and then in a training of so many steps: a line on standard error."""
    pace = _Pace(steps)
    return lambda step, loss: say(pace.text(step, f"{loss:.4f}"))

"""How far a study is, for a terminal or for a log file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TextIO

from peftport.progress import Line, duration


@dataclass(frozen=True)
class State:
    """How far a study is.

    Attributes:
        total, known, failed: runs of the study; known ones are done or failed.
        recorded, seconds: runs recorded in this sitting, and how long it is.
        left: share of this sitting's work that is still to be done, between 0 and 1.
    """

    total: int
    known: int
    failed: int
    recorded: int
    seconds: float
    left: float

    def text(self) -> str:
        """One line: `120/318 runs, 64 a minute, 3 min left, 2 failed`."""
        parts = [f"{self.known:,}/{self.total:,} runs"]
        if self.recorded and self.seconds:
            parts.append(f"{60 * self.recorded / self.seconds:.0f} a minute")
        if 0 < self.left < 1:
            parts.append(f"{duration(self.seconds * self.left / (1 - self.left))} left")
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        return ", ".join(parts)


class Progress(Protocol):
    """Is told now and then how far the study is."""

    def show(self, state: State) -> None:
        """Called after everything that may have changed."""

    def end(self, state: State) -> None:
        """Called once, at the end."""


class Silent:
    """Says nothing."""

    def show(self, state: State) -> None:
        """Nothing."""

    def end(self, state: State) -> None:
        """Nothing."""


class Lines:
    """One line that is written over on a terminal; a line now and then in a file.

    Args:
        stream: where to.
        every: seconds between two lines in a file.
    """

    def __init__(self, stream: TextIO, every: float = 15.0) -> None:
        self._line = Line(stream, every)

    def show(self, state: State) -> None:
        """Write when it is time and there is something new."""
        self._line.show(state.text())

    def end(self, state: State) -> None:
        """Write the last line."""
        self._line.end(state.text())

"""How far some work is: who is told; one line on a terminal, or lines now and then in a file."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from peftport.plain import printable

Portion = Callable[[float, str], None]
"""Is told, now and then, which share of some work is done and what comes next, or was done."""
Losses = Callable[[int, float], None]
"""Is told, now and then, a step of a training and the mean loss."""


class Line:
    """A line that is written over on a terminal; in a file, a line now and then.

    Args:
        stream: where to.
        every: seconds between two lines in a file.
        patient: the first comes after so many seconds too; work that is done before says nothing.
    """

    def __init__(self, stream: TextIO, every: float = 15.0, patient: bool = False) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._every = 0.5 if self._terminal else every
        self._last, self._text = time.monotonic() if patient else 0.0, ""

    def show(self, text: str, due: bool = False) -> None:
        """Write when it is time, or `due` in a file, and there is something new."""
        now = due and not self._terminal
        if (now or time.monotonic() - self._last >= self._every) and text != self._text:
            self._write(text, "" if self._terminal else "\n")

    def end(self, text: str) -> None:
        """Write the last line, once."""
        if text != self._text or self._terminal:
            self._write(text, "\n")

    def clear(self) -> None:
        """Take the line off a terminal."""
        if self._terminal and self._text:
            self._write("", "")

    def _write(self, text: str, end: str) -> None:
        self._last, self._text = time.monotonic(), text
        start = "\r\x1b[K" if self._terminal else ""
        self._stream.write(f"{start}{printable(text)}{end}")
        self._stream.flush()


def duration(seconds: float) -> str:
    """A length of time as a person says it: `40 s`, `3 min`, `2 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"

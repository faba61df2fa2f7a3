"""Programs of strangers, such as a chat template, with an end to their time and memory.

They run in a process of their own. A limit of memory is a whole process's, and in this one it would
be met by other threads, too; nor could a program be stopped here within one step of C.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from peftport.errors import RunFailed

SECONDS, MEMORY = 10.0, 1 << 30
"""What a program may take for one chat."""
_START = 120.0
PROGRAM = Path(__file__).with_name("confined.py")
_PART = 1 << 16
_ENDED = "the process in which it ran has ended"


class TooMuch(Exception):
    """A program took more than it was given, or refused its task; says why."""


def write_chat(
    template: str,
    turns: Sequence[Any],
    options: dict[str, Any],
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> str:
    """A chat as a template writes it.

    The process that does it is started by the first call, in about a second, and kept for others
    with the same memory. Threads take turns.

    Args:
        template: as a tokenizer has it. options: of `apply_chat_template`, and the values that the
            template knows, such as special tokens.
        memory: bytes beyond what the process has when it is started.

    Raises:
        TooMuch: the template refuses the chat, or takes too long or too much memory.
        RunFailed: no process can be started.
    """
    asked = {"template": template, "turns": list(turns), "options": options}
    return CONFINED.answer(json.dumps(asked), seconds, memory)


class _Confined:
    """The process, while there is one: `process`."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Leave the process to whoever has it: a process that was forked has none yet."""
        self._lock = threading.Lock()
        self.process: subprocess.Popen[bytes] | None = None
        self._memory = 0

    def answer(self, line: str, seconds: float, memory: int) -> str:
        """What the process says to a line."""
        with self._lock:
            if self.process is None or self._memory != memory or self.process.poll() is not None:
                self.end()
                self._start(memory)
            try:
                self._write(line)
                said: dict[str, str] = json.loads(self._read(seconds))
            except BaseException:  # also Ctrl-C: what it would still say is no answer to the next
                self.end()
                raise
        if "error" in said:
            raise TooMuch(said["error"])
        return said["text"]

    def end(self) -> None:
        """End the process, if there is one."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self, memory: int) -> None:
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", str(PROGRAM), str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            self._memory = memory
            self._read(_START)
        except (TooMuch, OSError) as error:
            self.end()
            raise RunFailed(f"no process for chat templates can be started: {error}.") from error

    def _write(self, line: str) -> None:
        assert self.process is not None and self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise TooMuch(_ENDED) from error

    def _read(self, seconds: float) -> bytes:
        """The next line."""
        assert self.process is not None and self.process.stdout is not None
        source, until = self.process.stdout.fileno(), time.monotonic() + seconds
        found = list[bytes]()
        while not found or not found[-1].endswith(b"\n"):
            if not connection.wait([source], max(0.0, until - time.monotonic())):
                raise TooMuch(f"it took more than {seconds:g} seconds")
            found.append(os.read(source, _PART))
            if not found[-1]:
                raise TooMuch(_ENDED)
        return b"".join(found)


CONFINED = _Confined()
os.register_at_fork(after_in_child=CONFINED.forget)
atexit.register(CONFINED.end)

"""Drivers of studies for tests that kill them.

Importing torch and transformers takes seconds. A nursery is a process that has imported them and
forks a driver whenever it is told to: the driver and its workers are real processes with the
package's own code, and twenty of them cost no more than one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Nursery:
    """Starts drivers in processes of their own. A context manager."""

    def __enter__(self) -> Nursery:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def start(self, spec: Any, folder: Path, **options: Any) -> Driver:
        """Start a driver of the study `spec` in `folder`."""
        log = folder.parent / f"{folder.name}.log"
        order = {"spec": spec.model_dump(mode="json"), "folder": str(folder), "log": str(log)}
        return Driver(self, self.ask({**order, **options}), log)

    def run(self, spec: Any, folder: Path, **options: Any) -> int:
        """Run the study to its end; the exit code."""
        return self.start(spec, folder, **options).wait()

    def ask(self, order: dict[str, Any]) -> int:
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


class Driver:
    """A driver that runs."""

    def __init__(self, nursery: Nursery, pid: int, log: Path) -> None:
        self._nursery, self.pid, self._log = nursery, pid, log

    def kill(self, number: int) -> None:
        """Send the driver a signal; it may be gone already."""
        os.kill(self.pid, number)

    def workers(self) -> list[int]:
        """The processes of its workers."""
        try:
            return [
                int(p)
                for p in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            ]
        except FileNotFoundError:
            return []

    def ended(self, within: float) -> bool:
        """Whether it ends within so many seconds."""
        limit = time.monotonic() + within
        while time.monotonic() < limit:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z":
                return True
            time.sleep(0.005)
        return False

    def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return self._nursery.ask({"wait": self.pid})

    def said(self) -> str:
        """What it wrote on standard error."""
        return self._log.read_text()


def main() -> None:
    """The nursery's own process: read orders, fork drivers, answer with a number each."""
    import peftport.studies.execute
    import peftport.studies.run  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            _, status = os.waitpid(order["wait"], 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        pid = os.fork()
        if not pid:
            os._exit(_drive(order))
        print(pid, flush=True)


def _drive(order: dict[str, Any]) -> int:
    from peftport.errors import PeftportError
    from peftport.studies.executors.local import LocalExecutor
    from peftport.studies.progress import Lines
    from peftport.studies.run import run_study
    from peftport.studies.spec import parse_spec

    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    try:
        outcome = run_study(
            parse_spec(order["spec"], "test"),
            Path(order["folder"]),
            LocalExecutor(order.get("workers", 1), threads=1, start=order.get("start", "fork")),
            retry_failed=order.get("retry", False),
            progress=Lines(sys.stderr, every=0.0),
        )
    except PeftportError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 130 if outcome.interrupted else int(outcome.failed > 0)


if __name__ == "__main__":
    main()

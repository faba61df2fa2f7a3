"""Ray clusters for tests: real nodes on this machine, which can be killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

_RAY = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1"]
_RAY += ["--num-gpus=0", "--object-store-memory=80000000"]
_ENVIRONMENT = {
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    "RAY_USAGE_STATS_ENABLED": "0",
    # A dead node is noticed in five seconds instead of a quarter of a minute; in less, a node that
    # only waits for a busy machine would be taken for a dead one.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "10",
    "RAY_health_check_initial_delay_ms": "500",
}


class Node:
    """A node's processes, with one CPU for tasks."""

    def __init__(self, log: Path, *options: str) -> None:
        self._log = log.open("w")
        self._process = subprocess.Popen(
            [*_RAY, *options],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**os.environ, **_ENVIRONMENT},
            start_new_session=True,
        )

    def processes(self) -> list[psutil.Process]:
        """All that belong to it and live."""
        try:
            own = psutil.Process(self._process.pid)
            return [*own.children(recursive=True), own]
        except psutil.NoSuchProcess:
            return []

    def busy(self) -> bool:
        """Whether one of its workers has a pack now."""
        return any(_title(process).startswith("ray::peftport pack") for process in self.processes())

    def kill(self) -> None:
        """End it at once, as a power failure does."""
        found = self.processes()
        for process in found:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(found, timeout=10)
        self._process.wait(10)
        self._log.close()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


class Cluster:
    """A head and a second node, which may be killed.

    Attributes:
        address: of the head.
    """

    def __init__(self, folder: Path) -> None:
        port, self._folder = free_port(), folder
        self.address = f"127.0.0.1:{port}"
        options = [f"--port={port}", "--include-dashboard=false", f"--temp-dir={folder}"]
        self._head = Node(folder / "head.log", "--head", *options)
        try:
            _wait_for(port)
            self.other = self._second()
        except BaseException:
            self._head.kill()
            raise

    def mend(self) -> None:
        """Start a second node again where it was killed."""
        if not self.other.processes():
            self.other = self._second()

    def end(self) -> None:
        """Kill both nodes."""
        for node in (self.other, self._head):
            node.kill()

    def _second(self) -> Node:
        where = ("--node-ip-address=127.0.0.2", f"--address={self.address}")
        return Node(self._folder / "other.log", *where)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int) -> None:
    limit = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < limit, "the head does not start"
            time.sleep(0.1)

"""Packs worked on by a Ray cluster.

A pack is a Ray task that streams its readings. Where it runs, that it is done again when its
worker or its node dies, and how donors and readings travel are Ray's business: a task that is
done again repeats the readings that it had given, and Ray hands on only those that are new.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from peftport.errors import BadInput
from peftport.studies.driver import TRIES
from peftport.studies.executors import ExecutorOptions
from peftport.studies.executors.packs import ENTRY, events
from peftport.studies.work import Broken, Event, Finished, Work

KNOCK, JOIN = 3.0, 15.0
"""Seconds for somebody to answer at an address, and to prove a cluster that can be joined."""
_CAPACITY_HOLDS = 2.0
JOINING = "import logging, ray, sys; ray.init(address=sys.argv[1], logging_level=logging.ERROR)"


class RayExecutor:
    """The nodes of a Ray cluster, of which this machine is one.

    Every node has this package, and finds hosts and data under the same names.

    Args:
        address: the head's, `HOST:PORT`.
        workers: packs in the cluster at the same time; None takes what its nodes have room for.
        threads: threads and CPUs of each pack.
        gpus: GPUs of each pack, fractions allowed; None takes one where there are any.
        entry: see `peftport.studies.executors.packs`.

    Raises:
        BadInput: Ray is not installed.
    """

    def __init__(
        self,
        address: str,
        workers: int | None = None,
        threads: int = 1,
        gpus: float | None = None,
        entry: str = ENTRY,
    ) -> None:
        self._ray = _import_ray()
        self._address, self._workers, self._threads = address, workers, threads
        self._gpus, self._entry = gpus, entry
        self._task: Any = None
        self._packs: dict[Any, int] = {}
        self._capacity, self._asked = 0, float("-inf")

    @classmethod
    def from_options(cls, options: ExecutorOptions) -> RayExecutor:
        """The executor that a user asks for; BadInput without an address."""
        address = options.address or os.environ.get("RAY_ADDRESS")
        if not address:
            raise BadInput(
                "--executor ray needs --address HOST:PORT, where a cluster's head listens; "
                "`ray start --head` prints it."
            )
        return cls(address, options.workers, options.threads or 1, options.gpus)

    def warm(self) -> None:
        """Join the cluster.

        Raises:
            BadInput: nothing answers at the address within seconds, it is no Ray cluster or one
                of another version, or no node of it has room for a pack.
        """
        _require_answer(self._address)
        self._ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
        if self._gpus is None:
            self._gpus = float(self._ray.cluster_resources().get("GPU", 0) >= 1)
        self._task = self._ray.remote(events).options(
            num_returns="streaming",
            num_cpus=self._threads,
            num_gpus=self._gpus,
            max_retries=TRIES - 1,
            name="peftport pack",
        )
        if self._workers is None and self._room() == 0:
            gpus = f" and {self._gpus:g} GPUs" if self._gpus else ""
            raise BadInput(
                f"no node of the cluster at {self._address} has {self._threads} CPUs{gpus}, which "
                "a pack needs. Give fewer, or --workers N to wait for nodes that come later."
            )

    def free(self) -> int:
        """How many packs it would take now."""
        most = self._room() if self._workers is None else self._workers
        return max(0, most - len(self._packs))

    def submit(self, work: Work) -> None:
        """Hand a pack to Ray, which decides when and where it runs."""
        self._packs[self._task.remote(self._entry, work, self._threads)] = work.number

    def poll(self, seconds: float) -> Iterator[Event]:
        """What has happened; waits for at most `seconds` when nothing has."""
        if not self._packs:
            time.sleep(seconds)
            return
        ready, _ = self._ray.wait(list(self._packs), num_returns=1, timeout=seconds)
        for stream in ready:
            event = self._next(stream)
            if isinstance(event, Finished | Broken):
                del self._packs[stream]
            yield event

    def stop(self) -> None:
        """Leave the cluster, which ends what this driver had it do."""
        self._packs.clear()
        self._ray.shutdown()

    def _next(self, stream: Any) -> Event:
        number = self._packs[stream]
        try:
            event: Event = self._ray.get(next(stream))
            return event
        except self._ray.exceptions.RayError as error:
            return Broken(
                number, f"Ray gave the pack up ({type(error).__name__})", str(error).strip()
            )

    def _room(self) -> int:
        """How many packs the nodes that are alive have room for, asked again now and then."""
        if time.monotonic() - self._asked > _CAPACITY_HOLDS:
            nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
            self._capacity = sum(self._room_on(node) for node in nodes)
            self._asked = time.monotonic()
        return self._capacity

    def _room_on(self, node: dict[str, float]) -> int:
        found = int(node.get("CPU", 0) // self._threads)
        return min(found, int(node.get("GPU", 0) // self._gpus)) if self._gpus else found


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise BadInput(
            "--executor ray needs Ray, which is not installed: pip install 'peftport[ray]'."
        ) from error
    return ray


def _require_answer(address: str) -> None:
    """Raise BadInput unless there is a cluster at `address` that this process can join.

    Left to itself, Ray tries for two minutes and then ends the process; so another process joins
    first.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or "/" in host:
        raise BadInput(
            f"--address {address}: expected HOST:PORT, where a cluster's head listens, such as "
            "10.0.0.5:6379. Run the study on a machine of the cluster."
        )
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK).close()
    except (OSError, OverflowError) as error:
        raise BadInput(f"--address {address} does not answer: {error}.") from error
    command = [sys.executable, "-c", JOINING, address]
    try:
        joined = subprocess.run(command, capture_output=True, text=True, timeout=JOIN)
    except subprocess.TimeoutExpired as error:
        raise BadInput(
            f"--address {address} answers, but not as the head of a Ray cluster does."
        ) from error
    if joined.returncode:
        why = (joined.stderr.strip() or f"exit code {joined.returncode}").splitlines()[-1]
        raise BadInput(f"--address {address}: the Ray cluster cannot be joined: {why}")

"""Packs worked on by processes of this machine."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from typing import Any

from peftport.errors import BadInput
from peftport.studies.executors import ExecutorOptions
from peftport.studies.executors.packs import ENTRY, events, load
from peftport.studies.processes import ended, started
from peftport.studies.work import Broken, Event, Finished, Lost, Work

_GRACE = 2.0
_KILLED = (
    ", as Linux does when memory runs out: go on with fewer --workers, end what else is running, "
    "or begin anew with --set lanes=N or --set training.batch_size=N"
)


class LocalExecutor:
    """Worker processes with an equal share of the machine's threads each.

    A worker that dies is replaced when the next pack needs it. Workers write nothing: whatever
    happens to one, only its current pack has to be done again.

    Args:
        workers: number of processes, all in this machine's memory.
        threads: threads of each; None divides what the machine (or OMP_NUM_THREADS) gives.
        entry: see `peftport.studies.executors.packs`; imported by the workers.
        start: how processes are started: "forkserver", "spawn" or "fork". A fork server, taken
            where there is one, imports torch once for all workers and replaces a dead one at once.
    """

    def __init__(
        self,
        workers: int = 1,
        threads: int | None = None,
        entry: str = ENTRY,
        start: str | None = None,
    ) -> None:
        self.workers = workers
        self.threads = threads or max(1, available_threads() // workers)
        self._entry = entry
        self._workers: list[_Worker] = []
        self._lost: list[Lost] = []
        known = multiprocessing.get_all_start_methods()
        start = start or ("forkserver" if "forkserver" in known else "spawn")
        self._context: Any = multiprocessing.get_context(start)

    @classmethod
    def from_options(cls, options: ExecutorOptions) -> LocalExecutor:
        """The executor that a user asks for; BadInput for what only a cluster has."""
        for name, given in (("--address", options.address), ("--gpus", options.gpus)):
            if given is not None:
                raise BadInput(f"{name} belongs to --executor ray.")
        return cls(options.workers or 1, options.threads)

    def warm(self) -> None:
        """Begin to import what workers need, while the driver does something else."""
        if self._context.get_start_method() != "forkserver":
            return
        from multiprocessing import forkserver

        first, entry = "peftport.studies.executors.preload", self._entry.split(":")[0]
        self._context.set_forkserver_preload([first, entry])
        with _for_workers(self.threads):
            forkserver.ensure_running()

    def free(self) -> int:
        """How many packs it would take now."""
        return self.workers - sum(worker.busy for worker in self._workers)

    def submit(self, work: Work) -> None:
        """Give a pack to an idle worker, if possible one that has the host at hand."""
        idle = [worker for worker in self._workers if not worker.busy]
        idle.sort(key=lambda worker: worker.host != work.host)
        if idle and (idle[0].host == work.host or len(self._workers) == self.workers):
            worker = idle[0]
        else:
            worker = started(self._new_worker)
            self._workers.append(worker)
        if not worker.give(work):
            self._remove(worker)

    def _new_worker(self) -> _Worker:
        self.warm()
        with _for_workers(self.threads):
            return _Worker(self._context, self.threads, self._entry)

    def poll(self, seconds: float) -> Iterator[Event]:
        """What has happened; waits for at most `seconds` when nothing has."""
        if not self._lost:
            sources = [s for w in self._workers for s in (w.pipe, w.process.sentinel)]
            connection.wait(sources, seconds) if sources else time.sleep(seconds)
        for worker in list(self._workers):
            yield from worker.read()
            if worker.dead:
                self._remove(worker)
        lost, self._lost = self._lost, []
        yield from lost

    def stop(self) -> None:
        """End all workers at once. They own nothing that would have to be finished."""
        for worker in self._workers:
            worker.process.terminate()
        until = time.monotonic() + _GRACE
        for worker in self._workers:
            worker.process.join(max(0.0, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
            worker.ended()
        self._workers.clear()

    def pids(self) -> list[int]:
        """The processes that are alive."""
        return [w.process.pid for w in self._workers if w.process.is_alive()]

    def _remove(self, worker: _Worker) -> None:
        how = worker.ended()
        self._workers.remove(worker)
        how += _KILLED if worker.process.exitcode == -signal.SIGKILL else ""
        if worker.number is not None:
            self._lost.append(Lost(worker.number, f"the worker process was {how}"))


class _Worker:
    """A process, the pipe to it, and the pack that it has."""

    def __init__(self, context: Any, threads: int, entry: str) -> None:
        self._by_server = context.get_start_method() == "forkserver"
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(theirs, threads, entry), name="peftport worker", daemon=True
        )
        self.process.start()
        theirs.close()
        self.number: int | None = None
        self.host = ""
        self.dead = False

    @property
    def busy(self) -> bool:
        return self.number is not None

    def give(self, work: Work) -> bool:
        """Hand over a pack; False when the process is gone."""
        self.number, self.host = work.number, work.host
        try:
            self.pipe.send(work)
        except OSError:
            self.dead = True
        return not self.dead

    def read(self) -> Iterator[Event]:
        """Everything that the process has sent; sets `dead` when nothing more can come."""
        try:
            while self.pipe.poll():
                event = self.pipe.recv()
                if isinstance(event, Finished | Broken):
                    self.number = None
                yield event
        except (EOFError, OSError):
            self.dead = True
        # Looked at last: what a process sent before it died has been read by then.
        if not self.process.is_alive() and not self.pipe.closed and not self.pipe.poll():
            self.dead = True

    def ended(self) -> str:
        """Wait for the end of the process, which has begun, and say how it ended."""
        self.process.join()
        self.pipe.close()
        return ended(self.process.exitcode, self._by_server)


def available_threads() -> int:
    """Threads that this machine gives us: its cores, or fewer if OMP_NUM_THREADS says so."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    wished = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(wished)) if wished.isdigit() and int(wished) > 0 else cores


@contextmanager
def _for_workers(threads: int) -> Iterator[None]:
    """Processes started here read their thread budget, and are born with Ctrl-C blocked: it
    reaches every process of a terminal, and stopping is the driver's decision."""
    # It unblocks Ctrl-C when it is started, and so it must run before Ctrl-C is blocked.
    resource_tracker.ensure_running()
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(dict.fromkeys(names, str(threads)))
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _work(pipe: Connection, threads: int, entry: str) -> None:
    """A worker's life: take packs from the pipe and send back what they give."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    load(entry)
    gc.freeze()  # what is imported is never garbage
    while True:
        try:
            work: Work = pipe.recv()
        except EOFError:
            return
        for event in events(entry, work, threads):
            pipe.send(event)


def die_with_parent() -> None:
    """End this process when the driver's ends, however that happens."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

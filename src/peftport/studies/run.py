"""Runs a study, from its specification to rows in its store."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peftport.errors import BadInput
from peftport.places import require_writable, writing
from peftport.studies.driver import Driver
from peftport.studies.fit import require_memory
from peftport.studies.going_on import become_larger, require_same
from peftport.studies.identity import Identity
from peftport.studies.lanes import with_lanes
from peftport.studies.lock import NAME as LOCK
from peftport.studies.lock import driver_lock, require_free
from peftport.studies.plan import Plan
from peftport.studies.precision import with_precision
from peftport.studies.progress import Progress, Silent
from peftport.studies.resolve import Facts, as_begun, resolve
from peftport.studies.schedule import Schedule
from peftport.studies.spec import Spec
from peftport.studies.store import NAME, Store, create, is_study, open_store, read_store
from peftport.studies.work import Executor


@dataclass(frozen=True)
class Outcome:
    """How a study stands after it was run.

    Attributes:
        total, done, failed: runs of the study; what is neither done nor failed is missing.
        ran: runs that were recorded this time.
    """

    total: int
    done: int
    failed: int
    ran: int
    seconds: float
    interrupted: bool


def run_study(
    spec: Spec,
    folder: Path,
    executor: Executor,
    *,
    retry_failed: bool = False,
    extend: bool = False,
    ignore_memory: bool = False,
    progress: Progress | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Outcome:
    """Run what is missing of a study; begin it if `folder` holds none.

    Ctrl-C ends it within seconds with everything that was read off so far; running it again
    continues. A run that fails is recorded with its reason and stops nothing.

    Args:
        folder: of the store; made if need be.
        retry_failed: also do again what has failed.
        extend: where `folder` holds a smaller study, go on with it as this one.
        ignore_memory: try it though its workers should not fit into memory.
        meanwhile: called while the workers import what they need, which takes seconds.

    Raises:
        BadInput: the specification names what cannot be found or combined, `folder` holds
            another study, another process is running this one, or its workers do not fit into
            memory.
        RunFailed: the store cannot be written.
    """
    require_writable(folder / NAME)
    executor.warm()
    try:
        facts = _as_begun(resolve(spec, fetch=True), folder)
        spec = with_lanes(with_precision(spec, folder, facts), folder, facts)
        plan = Plan(spec)
        identity = Identity(plan, *facts.marks())
        identity.check_unique()
        if not ignore_memory:
            workers = getattr(executor, "workers", 0)
            require_memory(plan, facts, identity, folder, workers, retry_failed)
        _make_folder(folder)
        if meanwhile is not None:
            meanwhile()

        def accept(store: Store) -> None:
            if extend:
                become_larger(store, facts, plan, identity)
            else:
                require_same(store, facts, spec)

        with (
            _interrupts() as interrupted,
            driver_lock(folder),
            _open(folder, spec, facts, accept) as store,
        ):
            schedule = Schedule(
                plan, identity, store.statuses(), store.donor_statuses(), retry_failed
            )
            driver = Driver(plan, facts, identity, store, schedule, executor)
            driver.drive(interrupted, progress or Silent())
            return _outcome(plan, store, driver, interrupted.is_set())
    finally:
        executor.stop()


def _outcome(plan: Plan, store: Store, driver: Driver, interrupted: bool) -> Outcome:
    statuses = list(store.statuses().values())
    return Outcome(
        total=sum(plan.count().values()),
        done=statuses.count("done"),
        failed=statuses.count("failed"),
        ran=driver.recorded,
        seconds=driver.seconds,
        interrupted=interrupted,
    )


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that nothing is torn out of a transaction."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: event.set()) for number in signals}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _make_folder(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # A driver that was killed while it began leaves its lock and hidden files, and no study.
    others = [p.name for p in folder.iterdir() if p.name != LOCK and not p.name.startswith(".")]
    if others and not is_study(folder):
        raise BadInput(
            f"{folder} holds no study and is not empty ({others[0]}); give another --out."
        )


def _as_begun(facts: Facts, folder: Path) -> Facts:
    if not is_study(folder):
        return facts
    require_free(folder)
    with read_store(folder) as store:
        return as_begun(facts, store.facts["hosts"])


def _open(folder: Path, spec: Spec, facts: Facts, accept: Callable[[Store], None]) -> Store:
    """Begin the study, or open the one in `folder` if it is accepted."""
    if not is_study(folder):
        return create(folder, spec.model_dump(mode="json"), facts.record(), facts.gold)
    store = open_store(folder)
    try:
        accept(store)
    except BaseException:
        store.close()
        raise
    return store

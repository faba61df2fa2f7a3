"""Runs a study, from its specification to rows in its store."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.places import require_writable, writing
from peftport.studies.driver import Driver
from peftport.studies.identity import Identity
from peftport.studies.lanes import with_lanes
from peftport.studies.lock import NAME as LOCK
from peftport.studies.lock import driver_lock, require_free
from peftport.studies.plan import Plan
from peftport.studies.progress import Progress, Silent
from peftport.studies.resolve import Facts, as_begun, resolve
from peftport.studies.schedule import Schedule
from peftport.studies.spec import Spec, parse_spec
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
    progress: Progress | None = None,
    meanwhile: Callable[[], object] | None = None,
) -> Outcome:
    """Run what is missing of a study; begin it if `folder` holds none.

    Ctrl-C ends it within seconds with everything that was read off so far; running it again
    continues. A run that fails is recorded with its reason and stops nothing.

    Args:
        folder: of the store; made if need be.
        retry_failed: also do again what has failed.
        meanwhile: called while the workers import what they need, which takes seconds.

    Raises:
        BadInput: the specification names what cannot be found or combined, `folder` holds
            another study, or another process is running this one.
        RunFailed: the store cannot be written.
    """
    require_writable(folder / NAME)
    executor.warm()
    try:
        facts = _as_begun(resolve(spec, fetch=True), folder)
        spec = with_lanes(spec, folder, facts)
        plan = Plan(spec)
        identity = Identity(plan, *facts.marks())
        identity.check_unique()
        _make_folder(folder)
        if meanwhile is not None:
            meanwhile()
        with _interrupts() as interrupted, driver_lock(folder), _open(folder, spec, facts) as store:
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


def _open(folder: Path, spec: Spec, facts: Facts) -> Store:
    """Begin the study, or open it if it is the same one."""
    if not is_study(folder):
        return create(folder, spec.model_dump(mode="json"), facts.record(), facts.gold)
    store = open_store(folder)
    try:
        _refuse_another(folder, store, spec, facts)
    except BaseException:
        store.close()
        raise
    return store


def _refuse_another(folder: Path, store: Store, spec: Spec, facts: Facts) -> None:
    """A study goes on as it was begun: same specification, hosts and rows, wherever they lie."""
    apart = ("about", "hosts", "tasks", "continued", "texts")
    # Read again, so that keys which are new since it was begun have their defaults.
    begun = parse_spec(store.spec, str(folder)).model_dump(mode="json")
    now = spec.model_dump(mode="json")
    for key in now:
        if key not in apart and begun.get(key) != now[key]:
            raise BadInput(
                f"{folder} holds study {begun['name']!r} with another {key!r}: "
                f"{_short(begun.get(key))} there, {_short(now[key])} here. Give another --out."
            )
    for kind in ("hosts", "tasks"):
        before, after = store.facts[kind], facts.record()[kind]
        for label in after:
            if before[label].get("fingerprint") != after[label].get("fingerprint"):
                raise BadInput(
                    f"{kind[:-1]} {label} has changed since study {folder} was begun. Put the "
                    "former one back, or begin anew with another --out."
                )
    for label, host in facts.hosts.items():
        # Stores of older packages do not say.
        begun_with = store.facts["hosts"][label].get("tokenizer", host["tokenizer"])
        if begun_with != host["tokenizer"]:
            raise BadInput(
                f"the tokenizer of host {label} has changed since study {folder} was begun: texts "
                "would be other tokens. Put the former one back, or begin anew with another --out."
            )
    if store.facts.get("texts") != facts.record()["texts"]:
        raise BadInput(
            f"the texts have changed since study {folder} was begun. Put the former ones back, or "
            "begin anew with another --out."
        )
    for key, what, found in (
        ("techniques", "techniques", facts.techniques),
        ("ways", "port methods", facts.ways),
    ):
        before = store.facts[key]
        if any(before.get(name, options) != options for name, options in found.items()):
            raise BadInput(
                f"the {what}' defaults have changed since study {folder} was begun; begin anew "
                "with another --out."
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

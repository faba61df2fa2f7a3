"""A study whose processes are killed or stopped finds what an undisturbed one finds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from peftport.studies.spec import Spec
from study_nursery import Driver
from study_specs import figures, tiny_spec

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc"),
]
SECONDS = 120


@pytest.fixture(scope="module")
def study(tiny_host, tiny_continuation, tiny_task) -> Spec:
    return tiny_spec(
        {"a": tiny_host("t5"), "b": tiny_continuation("t5")},
        tiny_task,
        pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}],
        techniques={"lora": {}},
        budgets=[0, 4],
        donor_steps=40,
        native_steps=8,
        lanes=1,
    )


@pytest.fixture(scope="module")
def undisturbed(nursery, study, tmp_path_factory) -> list:
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    assert nursery.run(study, folder) == 0
    return figures(folder)


def children(pid: int, named: str = "") -> list[int]:
    """The processes that one has started and whose command has a name in it."""
    try:
        all_of_it = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(n) for n in all_of_it if named in Path(f"/proc/{n}/cmdline").read_text()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def wait_for(driver: Driver, look: Callable[[], list[int]], other: int = 0) -> int:
    """A process that is not `other`; 0 when the driver ends before there is one."""
    until = time.monotonic() + SECONDS
    while not driver.ended(within=0.005):
        assert time.monotonic() < until
        if new := [pid for pid in look() if pid != other]:
            return new[0]
    return 0


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    if pid:
        os.kill(pid, how)


def server(driver: Driver, other: int = 0) -> int:
    """The driver's fork server."""
    return wait_for(driver, lambda: children(driver.pid, "forkserver"), other)


def worker(driver: Driver, other: int = 0) -> int:
    """One of its workers."""
    servers = lambda: children(driver.pid, "forkserver")  # noqa: E731
    return wait_for(driver, lambda: [w for s in servers() for w in children(s)], other)


def before_the_first_worker(driver: Driver) -> None:
    kill(server(driver))


def while_workers_run(driver: Driver) -> None:
    worker(driver)
    kill(server(driver))


def twice_in_a_row(driver: Driver) -> None:
    worker(driver)
    first = server(driver)
    kill(first)
    kill(server(driver, first))


def while_a_worker_is_started_anew(driver: Driver) -> None:
    kill(worker(driver))
    kill(server(driver))


def the_resource_tracker(driver: Driver) -> None:
    first = worker(driver)
    kill(wait_for(driver, lambda: children(driver.pid, "resource_tracker")))
    kill(first)


def a_worker_is_stopped(driver: Driver) -> None:
    stopped = worker(driver)
    kill(stopped, signal.SIGSTOP)
    time.sleep(1.0)
    kill(stopped, signal.SIGCONT)


@pytest.mark.parametrize(
    "fault",
    [
        before_the_first_worker,
        while_workers_run,
        twice_in_a_row,
        while_a_worker_is_started_anew,
        the_resource_tracker,
        a_worker_is_stopped,
    ],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_changes_no_row(fault, nursery, study, undisturbed, tmp_path):
    driver = nursery.start(study, tmp_path / "s", workers=2, start="forkserver")
    fault(driver)
    code = driver.wait()
    said = driver.said()
    assert "Traceback" not in said, said
    if code:
        assert "error: " in said, said
        assert nursery.run(study, tmp_path / "s") == 0
    assert figures(tmp_path / "s") == undisturbed

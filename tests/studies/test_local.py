"""The local executor: real processes, with faults on demand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from multiprocessing import resource_tracker

import pytest

from peftport.errors import BadInput, RunFailed
from peftport.studies.executors import ExecutorOptions
from peftport.studies.executors.local import LocalExecutor, available_threads
from peftport.studies.work import Broken, Finished, Lost, PackReading
from study_entries import work

ENTRY = "study_entries:obey"


@pytest.fixture
def executor():
    made = LocalExecutor(2, threads=1, entry=ENTRY)
    yield made
    made.stop()


def events(executor: LocalExecutor, until: int = 1, seconds: float = 60) -> list:
    """Everything that is said until so many packs have ended."""
    found = []
    limit = time.monotonic() + seconds
    while sum(isinstance(e, Finished | Broken | Lost) for e in found) < until:
        assert time.monotonic() < limit, found
        found += executor.poll(0.2)
    return found


def ended(found: list) -> list:
    return [event for event in found if not isinstance(event, PackReading)]


def test_a_pack_gives_its_readings_in_order_and_ends(executor):
    executor.submit(work(3))
    assert executor.free() == 1
    found = events(executor)
    assert [(e.number, e.budget) for e in found[:-1]] == [(3, 0), (3, 5)]
    assert found[-1] == Finished(3)
    assert executor.free() == 2


def test_a_worker_is_another_process_and_has_its_share_of_threads():
    executor = LocalExecutor(2, threads=3, entry=ENTRY)
    try:
        executor.submit(work())
        facts = events(executor)[0].lanes[0].figures
    finally:
        executor.stop()
    assert facts["pid"] != os.getpid()
    assert facts["threads"] == 3


def test_threads_are_shared_fairly(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert available_threads() == 8
    assert [LocalExecutor(n).threads for n in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert LocalExecutor(2).threads == 1


def test_two_packs_are_worked_on_at_the_same_time(executor):
    for number in (0, 1):
        executor.submit(work(number, order="sleep", seconds=0.5))
    assert executor.free() == 0
    found = events(executor, until=2)
    assert {e.number for e in ended(found)} == {0, 1}
    assert len({e.lanes[0].figures["pid"] for e in found if isinstance(e, PackReading)}) == 2


def test_a_pack_goes_to_the_worker_that_has_its_host(executor):
    for number, host in enumerate(("x", "y")):
        executor.submit(work(number, order="sleep", seconds=0.3, host=host))
    first = {
        e.number: e.lanes[0].figures["pid"] for e in events(executor, 2) if hasattr(e, "lanes")
    }
    executor.submit(work(2, host="y"))
    executor.submit(work(3, host="x"))
    again = {
        e.number: e.lanes[0].figures["pid"] for e in events(executor, 2) if hasattr(e, "lanes")
    }
    assert again == {2: first[1], 3: first[0]}


@pytest.mark.parametrize(
    ("order", "error", "log"),
    [
        ("bad input", "the host is gone", ""),
        ("error", "ZeroDivisionError: some reason", "Traceback"),
        ("no memory", "out of memory: 3 GB wanted", "Traceback"),
    ],
)
def test_an_error_of_the_pack_is_told_and_the_worker_lives_on(executor, order, error, log):
    executor.submit(work(0, order=order))
    found = events(executor)
    (broken,) = ended(found)
    assert (broken.number, broken.error) == (0, error)
    assert broken.log.startswith(log)
    executor.submit(work(1))
    again = events(executor)
    assert ended(again) == [Finished(1)]
    assert again[0].lanes[0].figures["pid"] == found[0].lanes[0].figures["pid"]


@pytest.mark.parametrize(
    ("order", "how"),
    [("die", r"killed by signal 9, .* memory .* --workers"), ("exit", "ended with exit code 7$")],
)
def test_a_worker_that_dies_is_told_after_what_it_said_and_is_replaced(executor, order, how):
    executor.submit(work(0, order=order))
    found = events(executor)
    assert [type(event) for event in found] == [PackReading, Lost]
    assert found[-1].number == 0
    assert re.search(how, found[-1].reason)
    assert executor.free() == 2
    executor.submit(work(1))
    assert ended(events(executor)) == [Finished(1)]


def test_a_worker_that_dies_while_idle_costs_nothing(executor):
    executor.submit(work(0))
    events(executor)
    (pid,) = executor.pids()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    executor.submit(work(1))
    found = events(executor)
    if isinstance(found[-1], Lost):  # it was given the pack before its death was seen
        executor.submit(work(1))
        found = events(executor)
    assert ended(found) == [Finished(1)]


def test_a_reading_larger_than_a_pipe_arrives(executor):
    executor.submit(work(0, order="send much"))
    found = events(executor)
    said = [e.lanes[0].answers for e in found[:-1]]
    assert [len(answers.predictions) if answers else 0 for answers in said] == [0, 10**7, 0]


def test_stopping_takes_no_time_and_leaves_no_process(executor):
    executor.submit(work(0, order="sleep", seconds=60))
    while not list(executor.poll(0.2)):
        pass
    (pid,) = executor.pids()
    begun = time.monotonic()
    executor.stop()
    assert time.monotonic() - begun < 3
    assert not _alive(pid)


DRIVER = """
import sys, time
sys.path[:0] = {path!r}
from peftport.studies.executors.local import LocalExecutor
from study_entries import work
if __name__ == "__main__":
    executor = LocalExecutor(1, threads=1, entry="study_entries:obey")
    executor.submit(work(0, order="sleep", seconds=60))
    while not (found := list(executor.poll(0.2))):
        pass
    print(found[0].lanes[0].figures["pid"], flush=True)
    time.sleep(60)
"""


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER.format(path=sys.path))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    pid = int(process.stdout.readline())
    assert _alive(pid)
    process.kill()
    process.communicate()
    limit = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_a_ctrl_c_of_the_terminal_does_not_reach_workers(executor):
    executor.submit(work(0, order="sleep", seconds=0.5))
    while not (found := list(executor.poll(0.2))):
        pass
    os.kill(found[0].lanes[0].figures["pid"], signal.SIGINT)
    assert ended(events(executor)) == [Finished(0)]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:  # a process that nobody has collected yet is not alive
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_only_a_cluster_has_is_refused():
    assert LocalExecutor.from_options(ExecutorOptions()).free() == 1
    for options in (ExecutorOptions(address="10.0.0.1:6379"), ExecutorOptions(gpus=0.5)):
        with pytest.raises(BadInput, match="belongs to --executor ray"):
            LocalExecutor.from_options(options)


def fork_server() -> int:
    from multiprocessing import forkserver

    return forkserver._forkserver._forkserver_pid


def test_a_fork_server_that_is_killed_is_replaced_like_a_worker(executor):
    """Before the first worker, between two, and while both are at work."""
    executor.warm()
    os.kill(fork_server(), signal.SIGKILL)
    executor.submit(work(0))
    assert ended(events(executor)) == [Finished(0)]
    os.kill(fork_server(), signal.SIGKILL)
    found: list = []
    for number in (1, 2, 3, 4):
        while not executor.free():
            found += executor.poll(0.1)
        executor.submit(work(number, order="sleep", seconds=0.2))
        os.kill(fork_server(), signal.SIGKILL)
    found += events(executor, until=4 - len(ended(found)))
    assert {event.number for event in ended(found)} == {1, 2, 3, 4}
    assert all(isinstance(event, Finished | Lost) for event in ended(found))


@pytest.mark.parametrize("told", [True, False])
def test_no_worker_goes_on_whose_fork_server_was_killed(executor, told):
    """What it would say is asked of another."""
    executor.submit(work(0, order="sleep", seconds=60))
    while not (found := list(executor.poll(0.2))):
        pass
    pid = found[0].lanes[0].figures["pid"]
    os.kill(fork_server(), signal.SIGKILL)
    found = events(executor) if told else executor.stop()
    limit = time.monotonic() + 5
    while _alive(pid):
        assert time.monotonic() < limit
        time.sleep(0.05)
    if told:
        why = "the worker process was lost with the fork server that had started it"
        assert found == [Lost(0, why)]


def test_a_resource_tracker_that_is_killed_is_replaced(executor):
    executor.submit(work(0))
    found = events(executor)
    os.kill(resource_tracker._resource_tracker._pid, signal.SIGKILL)
    (pid,) = executor.pids()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    list(executor.poll(0.1))
    with pytest.warns(UserWarning, match="resource_tracker: process died unexpectedly"):
        executor.submit(work(1))
    found = events(executor)
    assert ended(found) == [Finished(1)]


def test_a_worker_that_is_stopped_for_a_while_goes_on(executor):
    executor.submit(work(0, order="sleep", seconds=0.5))
    while not (found := list(executor.poll(0.2))):
        pass
    pid = found[0].lanes[0].figures["pid"]
    os.kill(pid, signal.SIGSTOP)
    assert list(executor.poll(1.0)) == []
    os.kill(pid, signal.SIGCONT)
    assert ended(events(executor)) == [Finished(0)]


def test_a_worker_that_is_stopped_is_ended_all_the_same(executor):
    executor.submit(work(0, order="sleep", seconds=60))
    while not (found := list(executor.poll(0.2))):
        pass
    pid = found[0].lanes[0].figures["pid"]
    os.kill(pid, signal.SIGSTOP)
    executor.stop()
    assert not _alive(pid)


def test_a_fork_server_that_ends_while_it_is_asked_is_asked_again(executor, monkeypatch):
    from multiprocessing import forkserver

    whole, asked = forkserver.connect_to_new_process, []

    def once(fds):
        asked.append(fds)
        if len(asked) < 3:
            raise [EOFError, ConnectionRefusedError][len(asked) % 2]
        return whole(fds)

    monkeypatch.setattr("multiprocessing.popen_forkserver.forkserver.connect_to_new_process", once)
    executor.submit(work(0))
    assert ended(events(executor)) == [Finished(0)]
    assert len(asked) == 3


def test_where_no_process_can_be_started_the_study_says_so(executor, monkeypatch):
    def never(fds):
        raise EOFError

    monkeypatch.setattr("multiprocessing.popen_forkserver.forkserver.connect_to_new_process", never)
    monkeypatch.setattr("peftport.studies.processes.PAUSE", 0.0)
    with pytest.raises(RunFailed, match=r"no worker process can be started .EOFError.; run the"):
        executor.submit(work(0))

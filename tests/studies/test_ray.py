"""The Ray executor: a real cluster of two nodes, and addresses where there is none."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from inline_executor import Inline
from peftport.errors import BadInput
from peftport.studies.executors import EXECUTORS, ExecutorOptions
from peftport.studies.executors.ray import RayExecutor
from peftport.studies.run import run_study
from peftport.studies.spec import Spec
from peftport.studies.work import Broken, Finished, PackReading
from ray_nodes import Cluster, free_port
from study_entries import work
from study_specs import figures, tiny_spec

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: peftport[ray]"
    ),
]


@pytest.fixture
def study(tiny_host, tiny_continuation, tiny_task) -> Spec:
    return tiny_spec(
        {"a": tiny_host("t5"), "b": tiny_continuation("t5")},
        tiny_task,
        pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}],
        budgets=[0, 4, 20],
        donor_steps=30,
        native_steps=30,
        limit_train=48,
        limit_test=16,
        seeds=4,
        lanes=2,
    )


def recorded(folder: Path) -> int:
    """How many runs a study has, also while it is being run."""
    try:
        with closing(sqlite3.connect(f"file:{folder / 'study.sqlite'}?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT count(*) FROM runs").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


@pytest.fixture(scope="module")
def nodes():
    # Ray's sockets have paths of at most 107 letters, which pytest's folders are too long for.
    folder = Path(tempfile.mkdtemp(prefix="ray"))
    made = Cluster(folder)
    yield made
    made.end()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(nodes):
    """A cluster of two nodes, the second of which may be killed."""
    nodes.mend()
    return nodes


def wait_for_both(executor: RayExecutor) -> None:
    """Return when both nodes take packs: the second one joins in its own time."""
    limit = time.monotonic() + 30
    while executor.free() != 2:
        assert time.monotonic() < limit, "the second node has not joined"
        time.sleep(0.1)


@pytest.fixture
def executor(cluster):
    made = RayExecutor(cluster.address, entry="study_entries:obey")
    made.warm()
    yield made
    made.stop()


def events(executor: RayExecutor, until: int = 1, seconds: float = 60) -> list:
    """Everything that is said until so many packs have ended."""
    found = []
    limit = time.monotonic() + seconds
    while sum(isinstance(event, Finished | Broken) for event in found) < until:
        assert time.monotonic() < limit, found
        found += executor.poll(0.2)
    return found


def test_the_cluster_takes_a_pack_for_every_cpu_and_gives_readings_in_order(executor):
    wait_for_both(executor)
    for number in (0, 1):
        executor.submit(work(number, order="sleep", seconds=1))
    assert executor.free() == 0
    found = events(executor, until=2)
    for number in (0, 1):
        mine = [event for event in found if event.number == number]
        assert [e.budget for e in mine[:-1]] == [0, 5]
        assert mine[-1] == Finished(number)
        assert mine[0].lanes[0].figures["threads"] == 1
    assert len({e.lanes[0].figures["pid"] for e in found if isinstance(e, PackReading)}) == 2
    assert executor.free() == 2


def test_a_pack_whose_worker_dies_is_done_again_and_no_reading_comes_twice(executor, tmp_path):
    executor.submit(work(0, order="die once", mark=str(tmp_path / "mark")))
    found = events(executor)
    assert [event.budget for event in found[:-1]] == [0, 5]
    assert found[-1] == Finished(0)
    assert (tmp_path / "mark").exists()


def test_a_pack_that_kills_every_worker_is_given_up_with_its_reason(executor):
    executor.submit(work(0, order="die"))
    *_, broken = events(executor)
    assert isinstance(broken, Broken)
    assert broken.error == "Ray gave the pack up (WorkerCrashedError)"
    assert broken.log
    assert executor.free() == 2


def test_an_error_of_the_pack_is_told_and_not_tried_again(executor):
    executor.submit(work(0, order="bad input"))
    assert events(executor)[-1] == Broken(0, "the host is gone", "")


def refused(address: str, within: float = 5, **options: object) -> str:
    begun = time.monotonic()
    with pytest.raises(BadInput) as caught:
        EXECUTORS.get("ray").from_options(ExecutorOptions(address=address, **options)).warm()
    assert time.monotonic() - begun < within
    return str(caught.value)


def test_an_address_where_nobody_listens_is_refused_within_seconds():
    assert "does not answer: " in refused(f"127.0.0.1:{free_port()}")


def test_an_address_where_somebody_else_listens_is_refused_soon(monkeypatch):
    monkeypatch.setattr("peftport.studies.executors.ray.JOIN", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert "not as the head of a Ray cluster" in refused(address)


def test_a_cluster_that_cannot_be_joined_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr("peftport.studies.executors.ray.JOINING", "raise RuntimeError('too old')")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert refused(address).endswith("cannot be joined: RuntimeError: too old")


@pytest.mark.parametrize("address", ["here", "ray://10.0.0.1:10001", ":6379", "a:b", "127.0.0.1:0"])
def test_what_is_no_address_is_refused(address):
    assert f"--address {address}" in refused(address)


def test_an_address_is_needed(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(BadInput, match="needs --address HOST:PORT"):
        RayExecutor.from_options(ExecutorOptions())


def test_a_pack_for_which_no_node_has_room_is_refused(cluster):
    try:
        message = refused(cluster.address, within=20, threads=64)
    finally:
        RayExecutor(cluster.address).stop()
    assert "no node of the cluster at" in message
    assert "has 64 CPUs" in message


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"pip install 'peftport\[ray\]'"):
        RayExecutor("10.0.0.1:6379")


def test_a_node_killed_in_the_middle_changes_nothing(study, tmp_path, cluster):
    executor = RayExecutor(cluster.address)
    executor.warm()
    wait_for_both(executor)
    executor.stop()
    spec = tmp_path / "study.yaml"
    spec.write_text(yaml.safe_dump(study.model_dump(mode="json", exclude_none=True)))
    command = [sys.executable, "-c", "from peftport.cli import main; main()", "study", "run"]
    there = ("--executor", "ray", "--address", cluster.address)
    driver = subprocess.Popen(
        [*command, spec, "--out", tmp_path / "ray", *there],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        # A node's worker can take so long to start that the other one has done most by then.
        while not (recorded(tmp_path / "ray") >= 10 and cluster.other.busy()):
            assert driver.poll() is None, driver.communicate()[0]
            time.sleep(0.005)
        cluster.other.kill()
        assert recorded(tmp_path / "ray") < 84
        run_study(study, tmp_path / "local", Inline())
        said, _ = driver.communicate(timeout=100)
    finally:
        driver.kill()
    assert driver.returncode == 0, said
    assert "84 of 84 runs done, 0 failed." in said
    assert figures(tmp_path / "ray") == figures(tmp_path / "local")

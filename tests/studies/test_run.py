"""Studies run for real, and killed: the same figures whatever happens to them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from peftport.studies.lock import driver_lock
from peftport.studies.salvage import seal_meta
from peftport.studies.spec import Spec
from peftport.studies.store import open_store, read_store
from study_specs import figures, other_tokenizer, tiny_spec

pytestmark = pytest.mark.long

KILLS = 24


@pytest.fixture(scope="module")
def study(tiny_host, tiny_continuation, tiny_task) -> Spec:
    return tiny_spec(
        {"a": tiny_host("t5"), "b": tiny_continuation("t5")},
        tiny_task,
        pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}],
        budgets=[0, 4, 8],
        donor_steps=12,
        native_steps=12,
        lanes=2,
    )


@pytest.fixture(scope="module")
def whole(nursery, study, tmp_path_factory) -> Path:
    """The study, run to its end by one worker."""
    folder = tmp_path_factory.mktemp("undisturbed") / "study"
    assert nursery.run(study, folder) == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(whole) -> list:
    return figures(whole)


@pytest.fixture
def finished(whole, tmp_path) -> Path:
    """A copy of the study that was run to its end."""
    return shutil.copytree(whole, tmp_path / "finished")


def test_a_study_runs_to_its_end_and_says_how_far_it_is(nursery, study, undisturbed, tmp_path):
    driver = nursery.start(study, tmp_path / "s")
    assert driver.wait() == 0
    lines = driver.said().splitlines()
    assert lines[0] == "0/42 runs"
    assert lines[-1].startswith("42/42 runs, ")
    assert "a minute" in lines[-1]
    assert not {"\r", "\x1b"} & set(driver.said())


def test_several_workers_find_what_one_finds(nursery, study, undisturbed, tmp_path):
    assert nursery.run(study, tmp_path / "s", workers=3) == 0
    assert figures(tmp_path / "s") == undisturbed


def test_a_study_killed_at_any_moment_finds_what_an_undisturbed_one_finds(
    nursery, study, whole, undisturbed, tmp_path
):
    with read_store(whole) as store:
        ((_, seconds, _),) = store.sittings()
    longest = max(0.6, seconds / 4)  # on a slow machine, too, something is done between two kills
    rng = random.Random(7)
    killed = {"driver": 0, "worker": 0}
    studies = interrupted = 0
    while sum(killed.values()) < KILLS or not all(killed.values()):
        folder = tmp_path / f"s{studies}"
        studies += 1
        while not _run_and_kill(nursery, study, folder, rng, longest, killed):
            interrupted += 1
        assert figures(folder) == undisturbed
    assert interrupted >= 8
    assert min(killed.values()) >= 6


def test_a_study_that_writes_is_killed_and_goes_on_to_the_same_figures_and_texts(
    nursery, study, tmp_path
):
    writes = study.model_copy(
        update={
            **{"kind": "completion", "max_answer": 2, "techniques": {"lora": {}}},
            **{"limit_train": 24, "limit_test": 8, "seeds": (0,)},
        }
    )
    assert nursery.run(writes, tmp_path / "whole") == 0
    driver = nursery.start(writes, tmp_path / "killed")
    while not (tmp_path / "killed" / "study.sqlite").exists() or not _recorded(tmp_path):
        assert not driver.ended(within=0.01), driver.said()
    driver.kill(signal.SIGKILL)
    driver.wait()
    assert nursery.run(writes, tmp_path / "killed") == 0
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


def _recorded(folder: Path) -> int:
    """How many runs there are of a study that is being run."""
    with read_store(folder / "killed") as store:
        return len(store.statuses())


def _run_and_kill(nursery, study, folder, rng, longest, killed) -> bool:
    """Run the study while killing its processes; whether it came to its end."""
    driver = nursery.start(study, folder, workers=2)
    deaths = 0  # of workers: a pack that kills three is given up
    while not driver.ended(within=rng.uniform(0.0, longest)):
        workers = driver.workers()
        if workers and deaths < 2 and rng.random() < 0.5:
            os.kill(rng.choice(workers), signal.SIGKILL)
            killed["worker"] += 1
            deaths += 1
        elif rng.random() < 0.5:
            driver.kill(signal.SIGKILL)
            if driver.wait() == 0:
                return True  # it was faster than the signal
            killed["driver"] += 1
            return False
    assert driver.wait() == 0, driver.said()
    return True


def test_an_interrupt_ends_a_study_soon_and_it_goes_on_afterwards(
    nursery, study, undisturbed, tmp_path
):
    codes, folder = [], tmp_path / "s"
    for delay in (0.05, 0.4, 0.8, 1.2):
        driver = nursery.start(study, folder, workers=2)
        if not driver.ended(within=0.1 + delay):
            driver.kill(signal.SIGINT)
            begun = time.monotonic()
            assert driver.ended(within=5)
            assert time.monotonic() - begun < 5
        codes.append(driver.wait())
        if codes[-1] == 0 and 130 in codes:
            break
        if codes[-1] == 0:  # it was done before it was interrupted
            folder = tmp_path / f"s-{len(codes)}"
    assert 130 in codes
    assert set(codes) <= {0, 130}
    assert nursery.run(study, folder) == 0
    assert figures(folder) == undisturbed


def test_a_second_driver_is_refused_while_the_first_goes_on(nursery, study, undisturbed, tmp_path):
    first = nursery.start(study, tmp_path / "s")
    while not (tmp_path / "s" / "study.sqlite").exists():
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)  # so that it cannot end before the second one tries
    try:
        second = nursery.start(study, tmp_path / "s")
        assert second.wait() == 2
        assert f"is being run by process {first.pid} on " in second.said()
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert first.wait() == 0
    assert figures(tmp_path / "s") == undisturbed


def test_a_second_driver_is_refused_while_the_first_changes_the_store(nursery, study, finished):
    with (
        driver_lock(finished),
        closing(sqlite3.connect(finished / "study.sqlite", isolation_level=None)) as db,
    ):
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")  # as while a store is begun: nobody can read it
        second = nursery.start(study, finished)
        assert second.wait() == 2
        assert f"is being run by process {os.getpid()} on " in second.said()


def test_a_full_disk_ends_a_study_clearly_and_it_goes_on_when_there_is_room(
    nursery, study, undisturbed
):
    with small_disk("220k") as disk:
        driver = nursery.start(study, disk / "s")
        assert driver.wait() == 1
        assert "error: " in driver.said()
        assert "cannot be written" in driver.said()
        with read_store(disk / "s") as store:
            assert len(store.statuses()) < 42
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        assert nursery.run(study, disk / "s") == 0
        assert figures(disk / "s") == undisturbed


@contextmanager
def small_disk(size: str):
    """A file system that is soon full; skips where none can be mounted."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("a small file system cannot be mounted here")
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=True)


def test_a_loss_that_is_no_number_fails_its_run_alone(nursery, study, undisturbed, tmp_path):
    # No learning rate is certain to diverge; a weight decay of 1e30 is.
    sick = study.model_copy(
        update={"training": study.training.model_copy(update={"weight_decay": 1e30})}
    )
    assert nursery.run(sick, tmp_path / "s") == 1
    with read_store(tmp_path / "s") as store:
        rows = list(store.rows())
    done = {row["budget"] for row in rows if row["status"] == "done"}
    assert len(rows) == 42
    assert done == {0}


def test_another_study_is_not_mixed_into_a_folder(nursery, study, finished):
    other = nursery.start(study.model_copy(update={"seeds": (0, 5)}), finished)
    assert other.wait() == 2
    assert "holds study 'tiny' with another 'seeds': [0, 1] there, [0, 5] here" in other.said()


def test_a_host_that_changed_is_refused(nursery, study, finished, tmp_path, tiny_host):
    moved = tmp_path / "b"
    shutil.copytree(study.hosts["b"], moved)
    elsewhere = study.model_copy(update={"hosts": {**study.hosts, "b": str(moved)}})
    assert nursery.run(elsewhere, finished) == 0  # the same weights in another place
    shutil.copytree(tiny_host("t5"), moved, dirs_exist_ok=True)
    renamed = nursery.start(elsewhere, finished)
    assert renamed.wait() == 2
    assert "both hosts have the same weights" in renamed.said() or "host b has changed" in (
        renamed.said()
    )


def test_a_folder_with_something_else_in_it_is_left_alone(nursery, study, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("x")
    driver = nursery.start(study, tmp_path / "s")
    assert driver.wait() == 2
    assert "not empty (thesis.tex)" in driver.said()
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["thesis.tex"]


def test_a_host_whose_tokenizer_changed_is_refused(nursery, study, finished, tmp_path):
    moved = tmp_path / "b"
    shutil.copytree(study.hosts["b"], moved)
    elsewhere = study.model_copy(update={"hosts": {**study.hosts, "b": str(moved)}})
    other_tokenizer(moved)
    driver = nursery.start(elsewhere, finished)
    assert driver.wait() == 2
    assert "the tokenizer of host b has changed since study" in driver.said()


def test_a_study_that_does_not_say_which_tokenizer_it_was_begun_with_goes_on(
    nursery, study, finished
):
    with open_store(finished) as store:
        facts = store.facts
        for host in facts["hosts"].values():
            del host["tokenizer"]
        store.db.execute("UPDATE meta SET value = ? WHERE key = 'facts'", (json.dumps(facts),))
        seal_meta(store.db)
    assert nursery.run(study, finished) == 0

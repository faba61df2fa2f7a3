"""The store: whole transactions or none, one schema, and errors that leave it usable."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from peftport.errors import BadInput, RunFailed
from peftport.studies import store as store_file
from peftport.studies.plan import Plan
from peftport.studies.schema import COLUMNS, FIGURES, VERSION
from peftport.studies.store import NAME, Donor, Row, Store, create, open_store, read_store
from peftport.studies.work import Answers, Kept
from study_specs import spec

MEASURED = dict.fromkeys(FIGURES, 0.5) | {"n_test": 3}
RUNS = list(Plan(spec()).runs())


def row(i: int, **changes) -> Row:
    answers = Answers(bytes([0, 1, i % 2]), b"scores", b"unlabelled")
    made = {"figures": MEASURED, "answers": answers}
    if changes.get("error"):
        made = {"figures": {}, "log": "what was seen"}
    return Row(f"run{i:04d}", RUNS[i % len(RUNS)].columns(), f'{{"i":{i}}}', **{**made, **changes})


def donor(i: int, **changes) -> Donor:
    made = {"module": Kept('{"a": 1}', b"tensors", b"answers")} if "error" not in changes else {}
    return Donor(f"donor{i}", "lora", "a", "films", 20, i, "{}", **{**made, **changes})


def begin(folder: Path) -> Store:
    return create(folder, {"name": "tiny"}, {"hosts": {}}, {"films": bytes([0, 1, 1])})


@pytest.fixture
def store(tmp_path):
    with begin(tmp_path) as made:
        yield made


def test_a_new_store_is_durable_and_knows_what_it_is_for(store):
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert store.spec == {"name": "tiny"}
    assert store.facts == {"hosts": {}}
    assert store.gold() == {"films": bytes([0, 1, 1])}
    assert store.statuses() == {}


def test_what_is_recorded_is_read_back(store):
    store.record([row(0), row(1, error="the loss was not finite")], [donor(0)])
    assert store.statuses() == {"run0000": "done", "run0001": "failed"}
    whole = Answers(bytes([0, 1, 0]), b"scores", b"unlabelled")
    assert dict(store.answers()) == {"run0000": whole}
    assert store.donor("donor0") == (Kept('{"a": 1}', b"tensors", b"answers"), "")
    assert store.config("run0000") == {"i": 0}
    (failure,) = store.failures()
    assert failure["error"] == "the loss was not finite"
    assert failure["log"] == "what was seen"


def test_rows_have_the_columns_of_the_contract_in_order(store):
    store.record([row(0), row(1, error="it failed")])
    done, failed = sorted(store.rows(), key=lambda found: found["run_id"])
    assert tuple(done) == COLUMNS == (
        "run_id", "study", "status", "technique", "condition", "method", "control", "origin",
        "receiver", "relation", "origin_task", "task", "budget", "seed", "n_test", "accuracy",
        "corrected_accuracy", "macro_f1", "auroc", "log_loss", "agreement", "train_seconds",
        "error",
    )  # fmt: skip
    assert done["study"] == "tiny"
    assert done["accuracy"] == 0.5
    assert failed["accuracy"] is None
    assert failed["error"] == "it failed"


def test_a_done_row_stays_and_a_failed_one_gives_way(store):
    store.record([row(0), row(1, error="it failed")], [donor(0), donor(1, error="it failed")])
    store.record(
        [row(0, figures={**MEASURED, "accuracy": 0.1}), row(1)],
        [donor(0, module=Kept("{}", b"other")), donor(1)],
    )
    accuracy = {found["run_id"]: found["accuracy"] for found in store.rows()}
    assert accuracy == {"run0000": 0.5, "run0001": 0.5}
    assert store.donor("donor0")[0] == Kept('{"a": 1}', b"tensors", b"answers")
    assert store.donor("donor1")[0] == Kept('{"a": 1}', b"tensors", b"answers")
    store.record([row(0, error="too late")])
    assert store.statuses()["run0000"] == "done"


def test_a_transaction_with_an_impossible_row_leaves_nothing(store):
    with pytest.raises(sqlite3.IntegrityError):
        store.record([row(0), row(1, answers=None)], [donor(0)])
    assert store.statuses() == {}
    assert store.donor_statuses() == {}
    store.record([row(0)])
    assert store.statuses() == {"run0000": "done"}


def test_a_missing_donor_or_run_is_a_key_error(store):
    with pytest.raises(KeyError):
        store.donor("none")
    with pytest.raises(KeyError):
        store.config("none")


def test_a_reader_sees_whole_readings_while_the_driver_writes(store):
    with read_store(store.folder) as reader:
        store.record([row(0), row(1)])
        assert len(reader.statuses()) == 2
        with pytest.raises(RunFailed):
            reader.record([row(2)])


def test_a_store_is_read_from_a_folder_that_cannot_be_written(store, tmp_path, monkeypatch):
    store.record([row(0)])
    store.close()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with read_store(tmp_path) as reader:
        assert len(reader.statuses()) == 1
    assert not (tmp_path / f"{NAME}-shm").exists()


def test_reading_leaves_nothing_beside_the_store(store, tmp_path):
    store.record([row(0)])
    store.close()
    with read_store(tmp_path) as reader:
        reader.statuses()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_a_sitting_keeps_its_runs_and_its_time(store):
    assert store.sittings() == []
    store.begin_sitting()
    store.record([row(0), row(1)])
    store.record([row(2)])
    store.begin_sitting()
    first, second = store.sittings()
    assert (first[2], second[2]) == (3, 0)
    assert first[1] > 0
    assert second[1] == 0


def test_a_folder_with_a_study_takes_no_second_one(store):
    with pytest.raises(BadInput, match="holds a study already"):
        begin(store.folder)


@pytest.mark.parametrize("opener", [open_store, read_store])
def test_what_is_no_store_is_refused_by_name(tmp_path, opener):
    with pytest.raises(BadInput, match="holds no study"):
        opener(tmp_path)
    (tmp_path / NAME).write_bytes(b"no database at all, and long enough to be one" * 30)
    with pytest.raises(BadInput, match=r"study\.sqlite cannot be read"):
        opener(tmp_path)
    (tmp_path / NAME).unlink()
    sqlite3.connect(tmp_path / NAME).execute("CREATE TABLE t (x)").connection.close()
    with pytest.raises(BadInput, match="is a database, but not a study's store"):
        opener(tmp_path)


@pytest.mark.parametrize("opener", [open_store, read_store])
def test_a_store_of_another_schema_is_refused_and_left_alone(tmp_path, opener):
    begin(tmp_path).close()
    db = sqlite3.connect(tmp_path / NAME)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(
        BadInput, match=f"has schema {VERSION + 1}, and this peftport reads schemas up to {VERSION}"
    ):
        opener(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


def test_a_log_torn_at_any_place_gives_whole_readings(tmp_path):
    """Power loss: the write-ahead log ends anywhere, or with rubbish."""
    rng = random.Random(1)
    source = tmp_path / "source"
    source.mkdir()
    with begin(source) as made:
        for i in range(12):
            made.record([row(3 * i), row(3 * i + 1), row(3 * i + 2)], [donor(i)])
        log = (source / f"{NAME}-wal").read_bytes()
        main = (source / NAME).read_bytes()
    seen = set()
    for trial in range(60):
        torn = tmp_path / f"torn{trial}"
        torn.mkdir()
        (torn / NAME).write_bytes(main)
        end = rng.randrange(len(log) + 1)
        (torn / f"{NAME}-wal").write_bytes(log[:end] + rng.randbytes(rng.choice([0, 40, 5000])))
        with open_store(torn) as store:
            assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            known = store.statuses()
            readings = len(known) // 3
            assert set(known) == {f"run{i:04d}" for i in range(3 * readings)}
            assert set(store.donor_statuses()) == {f"donor{i}" for i in range(readings)}
            seen.add(readings)
            store.record([row(100)])
        with open_store(torn) as store:
            assert len(store.statuses()) == 3 * readings + 1
        shutil.rmtree(torn)
    assert len(seen) > 5  # the log was torn at different readings indeed


WRITER = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import importlib.util
spec = importlib.util.spec_from_file_location("test_store", {file!r})
tests = importlib.util.module_from_spec(spec); spec.loader.exec_module(tests)
store = tests.open_store(Path({folder!r}))
for i in range(10 ** 6):
    store.record([tests.row(3 * i + j) for j in range(3)], [tests.donor(i)])
    print(i, flush=True)
"""


def test_what_a_killed_writer_had_committed_is_there_and_nothing_by_halves(tmp_path):
    begin(tmp_path).close()
    code = WRITER.format(path=sys.path, file=__file__, folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        committed = [int(process.stdout.readline()) for _ in range(40)][-1]
    finally:
        process.kill()
        committed = max([committed, *map(int, process.communicate()[0].split()[:-1])])
    with open_store(tmp_path) as store:
        readings = len(store.statuses()) / 3
        assert readings == len(store.donor_statuses())
        assert readings >= committed + 1
        store.record([row(9_999_999)])


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


def fill(store: Store) -> int:
    """Record until nothing fits any more; the number of readings that were committed."""
    for i in range(10**5):
        try:
            store.record([row(3 * i + j, log="x" * 500) for j in range(3)])
        except RunFailed as error:
            assert "cannot be written" in str(error)
            assert "safe" in str(error)
            return i
    raise AssertionError("the disk never was full")


def test_a_full_disk_is_said_and_the_store_goes_on_when_there_is_room(tmp_path):
    with small_disk("600k") as folder:
        with begin(folder) as store:
            committed = fill(store)
            assert len(store.statuses()) == 3 * committed
            with pytest.raises(RunFailed):
                store.record([row(90_000 + j, log="x" * 5000) for j in range(30)])
        with open_store(folder) as store:
            assert store._db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert len(store.statuses()) == 3 * committed
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        with open_store(folder) as store:
            store.record([row(10**6 + j, log="x" * 500) for j in range(300)])
            assert len(store.statuses()) == 3 * committed + 300


def test_a_database_at_its_limit_says_so_and_goes_on_when_it_may(store):
    """The same without a file system of its own: SQLite's own report of a full disk."""
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages + 8}")
    committed = fill(store)
    assert len(store.statuses()) == 3 * committed
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.record([row(90_000)])
    assert len(store.statuses()) == 3 * committed + 1


def test_a_store_is_begun_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_file, "write_atomic", full)
    with pytest.raises(RunFailed, match="No space left"):
        begin(tmp_path)
    assert list(tmp_path.iterdir()) == []

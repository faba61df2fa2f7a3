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
from peftport.studies.rescue import rescue
from peftport.studies.rows import Donor, Row
from peftport.studies.schema import COLUMNS, FIGURES, VERSION
from peftport.studies.store import NAME, Store, create, open_store, read_store
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
    assert store.db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store.db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
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
            assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
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
            assert store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert len(store.statuses()) == 3 * committed
        subprocess.run(["mount", "-o", "remount,size=4m", str(folder)], check=True)
        with open_store(folder) as store:
            store.record([row(10**6 + j, log="x" * 500) for j in range(300)])
            assert len(store.statuses()) == 3 * committed + 300


def test_a_disk_that_is_full_from_the_start_is_not_called_damage():
    """At which step there is no room hangs on its size: a file, its log, the log's index."""
    said = []
    for size in range(20, 120, 4):
        with small_disk(f"{size}k") as folder:
            try:
                with begin(folder) as store:
                    fill(store)
            except RunFailed as error:
                said.append(str(error))
    assert all("damaged" not in each and "rescue" not in each for each in said)
    assert all("free some space" in each for each in said)
    assert any("study.sqlite cannot be read or written: " in each for each in said)


def test_a_database_at_its_limit_says_so_and_goes_on_when_it_may(store):
    """The same without a file system of its own: SQLite's own report of a full disk."""
    (pages,) = store.db.execute("PRAGMA page_count").fetchone()
    store.db.execute(f"PRAGMA max_page_count = {pages + 8}")
    committed = fill(store)
    assert len(store.statuses()) == 3 * committed
    store.db.execute("PRAGMA max_page_count = 1000000")
    store.record([row(90_000)])
    assert len(store.statuses()) == 3 * committed + 1


def test_a_store_is_begun_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_file, "write_atomic", full)
    with pytest.raises(RunFailed, match="No space left"):
        begin(tmp_path)
    assert list(tmp_path.iterdir()) == []


# What is not what was stored


BLOB = b"a donor's tensors, of which some bytes are overwritten" * 400


@pytest.fixture
def filled(tmp_path) -> Path:
    """A study of 40 runs, one of them failed, and 20 donors, closed."""
    folder = tmp_path / "filled"
    folder.mkdir()
    with begin(folder) as made:
        for i in range(20):
            kept = Kept('{"a": 1}', bytes([i]) * 9 + BLOB, b"answers")
            error = "it failed" if i == 3 else ""
            made.record([row(2 * i, error=error), row(2 * i + 1)], [donor(i, module=kept)])
    return folder


def overwrite(folder: Path, find: bytes, with_: bytes) -> None:
    """Change bytes of the file behind SQLite's back."""
    data = (folder / NAME).read_bytes()
    assert find in data
    (folder / NAME).write_bytes(data.replace(find, with_, 1))


def test_a_donor_whose_bytes_have_changed_is_not_given(filled, tmp_path):
    overwrite(filled, bytes([7]) * 9 + BLOB[:200], bytes([7]) * 9 + bytes(200))
    with open_store(filled) as store:
        assert store.donor("donor6")[0] is not None
        with pytest.raises(BadInput, match=r"donor donor7 is not what was stored.* 40 of its "):
            store.donor("donor7")
    found = rescue(filled, tmp_path / "new")
    assert (found.runs, found.donors) == (40, 19)
    with open_store(tmp_path / "new") as new, open_store(filled) as old:
        assert (new.spec, new.facts, new.gold()) == (old.spec, old.facts, old.gold())
        assert list(new.rows()) == list(old.rows())
        assert set(old.donor_statuses()) - set(new.donor_statuses()) == {"donor7"}
        assert new.donor("donor6") == old.donor("donor6")


@pytest.mark.parametrize(
    ("find", "with_"),
    [
        (b'{"i":5}', b'{"i":6}'),
        (b'"accuracy": 0.5', b'"accuracy": 0.9'),
        (b"it failed", b"it worked"),
    ],
)
def test_a_run_whose_bytes_have_changed_is_in_no_table(filled, find, with_):
    overwrite(filled, find, with_)
    with read_store(filled) as store:
        with pytest.raises(BadInput, match=r"run run.* is not what was stored.* 39 of its runs "):
            list(store.rows())
        with pytest.raises(BadInput, match="is not what was stored"):
            list(store.answers()) and store.failures()


@pytest.mark.parametrize("opener", [open_store, read_store])
@pytest.mark.parametrize("find", [b'{"name": "tiny"}', b'{"hosts": {}}'])
def test_a_study_that_no_longer_knows_what_it_is_for_is_refused(filled, opener, find, tmp_path):
    overwrite(filled, find, find.replace(b'"', b"'", 1))
    with pytest.raises(BadInput, match="what the study is for is not what was stored"):
        opener(filled)
    with pytest.raises(BadInput, match="run it anew"):
        rescue(filled, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_malformed_file_is_refused_with_what_can_be_rescued(filled, tmp_path):
    """Pages are filled with rubbish, one after another."""
    rng = random.Random(5)
    whole = (filled / NAME).read_bytes()
    told, size = 0, 4096
    for page in range(2, len(whole) // size):
        (filled / NAME).write_bytes(
            whole[: page * size] + rng.randbytes(size) + whole[(page + 1) * size :]
        )
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
        try:
            with open_store(filled) as store:
                list(store.rows())
                for name in store.donor_statuses():
                    store.donor(name)
        except BadInput as error:
            told += 1
            if "`peftport study rescue" in str(error):
                found = rescue(filled, tmp_path / "new")
                assert f"{found.runs} of its runs and {found.donors} of its donors" in str(error)
                with open_store(tmp_path / "new") as new:
                    assert len(list(new.rows())) == found.runs
    assert told > 0.9 * (len(whole) // size - 2)


def test_a_cut_file_is_refused(filled):
    whole = (filled / NAME).read_bytes()
    (filled / NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="is damaged"):
        open_store(filled)
    with pytest.raises(BadInput, match="`peftport study rescue"), read_store(filled) as store:
        list(store.rows())
    found = rescue(filled, filled.parent / "new")
    assert 0 < found.donors < 20


def test_a_copy_of_the_file_alone_has_everything_once_a_sitting_has_ended(tmp_path):
    (tmp_path / "a").mkdir()
    with begin(tmp_path / "a") as made, read_store(tmp_path / "a") as looking:
        made.begin_sitting()
        made.record([row(0), row(1)])
        made.close()
        shutil.copyfile(tmp_path / "a" / NAME, tmp_path / NAME)
        assert len(looking.statuses()) == 2
    with read_store(tmp_path) as copied:
        assert len(copied.statuses()) == 2


def test_a_store_that_others_write_is_read_as_it_stood_at_one_moment(tmp_path, monkeypatch):
    """In a folder that may not be written, its log is read with it."""
    with begin(tmp_path) as made:
        made.record([row(0)])
        made.record([row(1)])
        beside = sorted(tmp_path.iterdir())
        monkeypatch.setattr(os, "access", lambda *_: False)
        with read_store(tmp_path) as looking:
            made.record([row(2)])
            assert len(looking.statuses()) == 2
        with read_store(tmp_path) as looking:
            assert len(looking.statuses()) == 3
        assert sorted(tmp_path.iterdir()) == beside

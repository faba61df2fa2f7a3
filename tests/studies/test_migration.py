"""A store of an older package opens, reports, and goes on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pytest

from peftport.reports import analyse, markdown, write_report
from peftport.reports.stored import read_results
from peftport.studies.identity import Identity
from peftport.studies.load import parse_spec
from peftport.studies.plan import Plan
from peftport.studies.resolve import as_begun, resolve
from peftport.studies.schema import VERSION
from peftport.studies.store import NAME, open_store, read_store
from real_data import require_shared

GOLDEN = Path(__file__).parents[1] / "golden" / "store-v1"
STUDIES = sorted((Path(__file__).parents[2] / "results").glob("*/runs.parquet"))


@pytest.fixture
def old(tmp_path) -> Path:
    """A study that was begun with schema 1 and interrupted after 12 of its 20 runs."""
    folder = tmp_path / "old"
    shutil.copytree(GOLDEN, folder)
    return folder


def locate(folder: Path, place: Path) -> None:
    """Write where hosts and data are into the store, as it would stand in one begun here."""
    with sqlite3.connect(folder / NAME) as db:
        for table, column in (("meta", "value"), ("donors", "record")):
            db.execute(
                f"UPDATE {table} SET {column} = replace({column}, 'SHARED', ?)", (str(place),)
            )
    db.close()


def test_reading_gives_its_figures_and_changes_no_byte(old):
    before = (old / NAME).read_bytes()
    with read_store(old) as store:
        rows = list(store.rows())
    assert len(rows) == 12
    assert all(0 <= row["accuracy"] <= 1 and row["n_test"] == 60 for row in rows)
    assert all(row["corrected_accuracy"] is None for row in rows)
    assert (old / NAME).read_bytes() == before
    assert [path.name for path in old.iterdir()] == [NAME]


def test_opening_it_to_go_on_migrates_it_once_and_keeps_every_figure(old):
    with read_store(old) as store:
        before = list(store.rows())
    with open_store(old) as store:
        assert list(store.rows()) == before
        assert {how: way[0]["method"] for how, way in store.facts["ways"].items()} == {
            "copy": "copy",
            "gaussian": "gaussian",
            "procrustes:places=64": "procrustes",
        }
        assert store.spec["training"]["precision"] == "fp32"
        assert all(answers.scores is None for _, answers in store.answers())
        assert all(store.donor(donor)[0].answers is None for donor in store.donor_statuses())
        (version,) = store.db.execute("PRAGMA user_version").fetchone()
        assert version == VERSION
    with open_store(old) as store:
        assert list(store.rows()) == before


def test_a_kill_while_it_is_migrated_leaves_it_as_it_was(old, monkeypatch):
    from peftport.studies import migration, store

    def killed(db):
        migration.migrate(db)
        raise KeyboardInterrupt

    before = list(read_store(old).rows())
    monkeypatch.setattr(store, "migrate", killed)
    with pytest.raises(KeyboardInterrupt):
        open_store(old)
    monkeypatch.undo()
    with open_store(old) as again:
        assert list(again.rows()) == before


def test_its_report_says_that_nothing_is_corrected(old):
    results = read_results(old)
    assert not results.is_corrected
    assert write_report(analyse(results), old).is_file()
    assert "Accuracy as answered: not all of these runs kept the scores" in markdown(results)


def test_it_goes_on_where_it_was_interrupted(old, call):
    locate(old, require_shared())
    with read_store(old) as store:
        begun = {row["run_id"]: row["accuracy"] for row in store.rows()}
        spec = parse_spec(store.spec, "old")
        facts = as_begun(resolve(spec, fetch=True), store.facts["hosts"])
    identity = Identity(Plan(spec), *facts.marks())
    planned = {identity.run(run)[0] for run in Plan(spec).runs()}
    assert set(begun) < planned, "the old runs bear the names that a study which goes on gives"
    code, _, error = call("study", "run", old)
    assert code == 0, error
    with read_store(old) as store:
        rows = {row["run_id"]: row for row in store.rows()}
    assert set(rows) == planned
    assert {run: rows[run]["accuracy"] for run in begun} == begun
    new = [row for run, row in rows.items() if run not in begun]
    assert len(new) == 8
    assert all(row["corrected_accuracy"] is not None for row in new)


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.parent.name)
def test_committed_rows_can_be_reported_again(file, call, tmp_path):
    code, text, error = call("study", "report", file, "--out", tmp_path / "again", "--json")
    assert code == 0, error
    found = json.loads(text)
    assert found["runs"]["done"] == (pd.read_parquet(file)["status"] == "done").sum()
    assert os.path.exists(found["report"])

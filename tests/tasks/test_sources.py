"""A task's name leads to its rows, or to a message that says where it was looked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from peftport.errors import BadInput
from peftport.tasks import load_task
from peftport.tasks.forms import Columns
from peftport.tasks.sources import FileSource, HubSource, LabSource, find_source

USUAL = Columns()


def test_a_folder_is_called_by_its_name_and_reads_its_splits(tiny_task: Path) -> None:
    source = find_source(str(tiny_task), USUAL)
    assert isinstance(source, FileSource)
    assert source.name == "opinions"
    assert set(source.splits()) == {"train", "validation", "test"}
    (table,) = source.read("test")
    assert len(table.texts) == 48


@pytest.mark.parametrize(
    ("name", "path", "subset", "revision"),
    [
        ("sst2", "sst2", None, None),
        ("stanfordnlp/sst2", "stanfordnlp/sst2", None, None),
        ("nyu-mll/glue:sst2", "nyu-mll/glue", "sst2", None),
        ("hub:glue:sst2@main", "glue", "sst2", "main"),
        ("sst2@v1", "sst2", None, "v1"),
    ],
)
def test_a_hub_name_may_have_a_subset_and_a_revision(
    name: str, path: str, subset: str | None, revision: str | None
) -> None:
    source = find_source(name, USUAL)
    assert isinstance(source, HubSource)
    assert (source.path, source.subset, source.revision) == (path, subset, revision)
    assert source.name == (f"{path}:{subset}" if subset else path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nothing", "was not found: .* does not exist. Name a folder"),
        ("/nothing/at/all", "was not found: .* does not exist. Name a folder"),
        ("data/sets/sst2", "was not found: .* does not exist. Name a folder"),
        ("nothing.csv", "data file nothing.csv does not exist"),
    ],
)
def test_a_path_without_data_is_not_asked_of_the_hub(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        find_source(name, USUAL)


def test_a_file_of_another_kind_is_named_with_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "reviews.xlsx"
    path.write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"reviews.xlsx.* \.parquet, \.csv"):
        find_source(str(path), USUAL)


def test_a_lab_task_has_words_of_its_own_and_three_splits() -> None:
    source = find_source("lab:films", USUAL)
    assert isinstance(source, LabSource)
    assert source.name == "lab:films"
    assert source.splits() == ("train", "validation", "test")
    (table,) = source.read("test")
    assert set(table.labels) == set(range(len(source.words() or ())))
    assert len(table.texts) == len(table.labels)


def test_an_unknown_lab_task_is_named_with_the_nearest() -> None:
    with pytest.raises(
        BadInput, match=r"no task 'flims'. Did you mean 'films'\? Known: .*lab:food"
    ):
        find_source("lab:flims", USUAL)


READ_FROM_HUB = """
import json, sys
from peftport.errors import BadInput
from peftport.tasks import load_task
try:
    task = load_task(sys.argv[1])
    rows = task.split("test")
    print(json.dumps([task.name, task.labels, task.label_words, task.splits, rows.texts]))
except BadInput as error:
    print(error)
"""


def read_from_hub(name: str, cache: Path) -> str:
    """What a process without the hub, with a cache of its own, says of a data set."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(cache), "HF_DATASETS_CACHE": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", READ_FROM_HUB, name],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_datasets_library_reads_a_data_set_with_its_class_names(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    folder = tmp_path / "films"
    folder.mkdir()
    for split, labels in {"train": [0, 1] * 20, "validation": [1, 0], "test": [-1, -1]}.items():
        texts = [f"{split} text {i}" for i in range(len(labels))]
        rows = datasets.Dataset.from_dict({"sentence": texts, "label": labels}, features=features)
        rows.to_parquet(folder / f"{split}.parquet")
    said = read_from_hub(f"hub:{folder}", tmp_path / "cache")
    # The test rows have no labels, as on GLUE: validation is the test, and a tenth of train is
    # validation.
    assert said == (
        f'["{folder}", [0, 1], ["bad", "good"], {{"train": "90% of train", '
        '"validation": "10% of train", "test": "validation"}, '
        '["validation text 0", "validation text 1"]]'
    )


def test_a_data_set_that_the_hub_does_not_give_is_named_with_what_to_do(tmp_path: Path) -> None:
    said = read_from_hub("nobody/nothing-of-the-kind", tmp_path / "cache")
    assert "task 'nobody/nothing-of-the-kind' was not found: " in said
    assert "; the hub was not asked (HF_HUB_OFFLINE is set), and its cache" in said
    assert said.endswith("lab:NAME, or a data set on the hub (NAME:SUBSET).")
    assert "\n" not in said


def test_without_the_datasets_library_its_package_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInput, match=r"pip install 'peftport\[hub\]'"):
        find_source("nobody/not-installed", USUAL).splits()


class FakeDatasets:
    """Stands for the library where only names of splits matter."""

    @staticmethod
    def load_dataset(path: str, subset: str | None, revision: str | None) -> dict[str, Any]:
        return {"train": None, "validation_matched": None, "dev": None, "test": None}


def test_hub_splits_go_by_their_usual_names_or_by_those_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", FakeDatasets)
    assert set(HubSource("fake/a", USUAL).splits()) == {"train", "validation", "test"}
    renamed = HubSource("fake/a", USUAL, renamed={"test": "validation_matched"})
    assert renamed.splits() == ("test",)
    wrong = HubSource("fake/a", USUAL, renamed={"test": "validation_matchd"})
    with pytest.raises(
        BadInput, match=r"no split 'validation_matchd'\. Did you mean 'validation_m"
    ):
        wrong.splits()


@pytest.mark.parametrize("name", ["text", "csv", "json", "parquet", "hub:text"])
def test_the_working_folder_is_no_data_set(name, tmp_path, monkeypatch):
    (tmp_path / "rows.txt").write_text("one\ntwo\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"not found.*whatever files lie in the working folder"):
        load_task(name)

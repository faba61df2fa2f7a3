"""A task YAML says what the data cannot, and a wrong key in it is named with the right one."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftport.errors import BadInput
from peftport.tasks.sources import FileSource, HubSource, LabSource
from peftport.tasks.taskfile import TaskFile, read_taskfile, source_of

WHOLE = """
name: films
source: data
version: 1.0
text: body
label: stars
labels: {0: bad, 1: true}
template: {decoder: "{text} Verdict:"}
max_tokens: 64
splits: {train: a.csv, test: [b.csv, c.csv]}
"""


def written(folder: Path, content: str) -> Path:
    path = folder / "films.yaml"
    path.write_text(content)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    file = read_taskfile(written(tmp_path, WHOLE))
    assert file == TaskFile(
        name="films",
        source="data",
        version="1.0",
        text="body",
        label="stars",
        labels={0: "bad", 1: "true"},
        template={"decoder": "{text} Verdict:"},
        max_tokens=64,
        splits={"train": "a.csv", "test": ["b.csv", "c.csv"]},
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("lables: {0: bad}", "unknown key 'lables'. Did you mean 'labels'\\? Known keys: name, so"),
        ("splits: {tran: a.csv}", "unknown split 'tran'. Did you mean 'train'\\? Known: train"),
        ("labels: {0: bad, '0': good}", "'labels': a label stands here twice"),
        ("labels: {0.5: bad, 1: good}", "'labels': the label 0.5, which is not a whole number"),
        ("labels: [bad, good]", "'labels': Input should be a valid dictionary"),
        ("max_tokens: 0", "'max_tokens': Input should be greater than 0"),
        ("- a list", "is not a task YAML"),
        ("", "is not a task YAML"),
        ("labels: {0: bad", "is not valid YAML"),
    ],
)
def test_a_wrong_yaml_is_named_with_its_fault(content: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(BadInput, match=message) as error:
        read_taskfile(path)
    assert str(path) in str(error.value)


def test_a_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"none\.yaml does not exist"):
        read_taskfile(tmp_path / "none.yaml")


def test_paths_are_relative_to_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("a.csv", "b.csv"):
        (tmp_path / "data" / name).write_text("text,label\na,1\n")
    splits = {"train": "a.csv", "test": ["a.csv", "b.csv"]}
    source = source_of(TaskFile(source="data", splits=splits), tmp_path / "t.yaml")
    assert isinstance(source, FileSource)
    assert source.files["test"] == (tmp_path / "data" / "a.csv", tmp_path / "data" / "b.csv")
    beside = source_of(TaskFile(splits={"test": "data/a.csv"}), tmp_path / "t.yaml")
    assert isinstance(beside, FileSource)
    assert beside.files == {"test": (tmp_path / "data" / "a.csv",)}


def test_hub_and_lab_are_sources_too(tmp_path: Path) -> None:
    hub = source_of(
        TaskFile(source="glue", subset="mnli", version="main", splits={"test": "matched"}),
        tmp_path / "t.yaml",
    )
    assert isinstance(hub, HubSource)
    assert (hub.name, hub.revision) == ("glue:mnli", "main")
    assert hub.renamed == {"test": "matched"}
    assert isinstance(source_of(TaskFile(source="lab:films"), tmp_path / "t.yaml"), LabSource)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (TaskFile(name="films"), "says neither `source` nor `splits`"),
        (TaskFile(splits={"test": "none.csv"}), "none.csv does not exist"),
        (TaskFile(source="none.csv"), "/none.csv does not exist"),
        (TaskFile(source="./none"), "/none' was not found: .*/none does not exist"),
        (TaskFile(source="here"), "its source .*/here does not exist"),
        (TaskFile(source="one.csv", subset="x"), "`subset` is for data sets of the hub"),
        (TaskFile(source="one.csv", splits={"test": "one.csv"}), "`splits` is for folders"),
        (TaskFile(source="glue", splits={"test": ["a", "b"]}), "has one name, not a list"),
    ],
)
def test_a_source_that_does_not_fit_is_refused(
    file: TaskFile, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "one.csv").write_text("text,label\na,1\n")
    (tmp_path / "elsewhere" / "here").mkdir(parents=True)
    (tmp_path / "elsewhere" / "here" / "test.csv").write_text("text,label\na,1\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=message):
        source_of(file, tmp_path / "t.yaml")

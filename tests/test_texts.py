"""Texts come out of files of all kinds."""

from __future__ import annotations

import hashlib
import json

import pandas as pd
import pytest

from peftport import texts
from peftport.errors import BadInput
from peftport.texts import read_texts

TEXTS = ["the film was good", "the plot was not dull"]


def written(folder, ending: str):
    path = folder / f"some{ending}"
    if ending == ".txt":
        path.write_text("\n\n" + "\n \n\n".join(TEXTS) + "\n")
    elif ending == ".parquet":
        pd.DataFrame({"text": [None, *TEXTS, "  "]}).to_parquet(path)
    elif ending == ".csv":
        pd.DataFrame({"n": [1, 2], "sentence": TEXTS}).to_csv(path, index=False)
    else:
        path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    return path


@pytest.mark.parametrize("ending", [".txt", ".parquet", ".csv", ".jsonl"])
def test_a_file_of_any_kind_gives_its_texts(ending, tmp_path):
    path = written(tmp_path, ending)
    (file,) = read_texts(path)
    assert file.texts == TEXTS
    assert file.record() == {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "texts": 2,
    }


def test_lines_without_a_blank_one_between_are_one_text(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree")
    assert read_texts(tmp_path / "a.txt")[0].texts == ["one\ntwo", "three"]


def test_the_limit_of_a_text_is_one_of_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "LONGEST", 1000)
    path, letters = tmp_path / "a.txt", "\u4e2d" * 111
    path.write_text("\n".join([letters] * 3))
    assert len(read_texts(path)[0].texts) == 1
    path.write_text("\n".join([letters] * 4))
    with pytest.raises(BadInput, match="more than 1,000 bytes"):
        read_texts(path)


def test_a_folder_gives_its_files_by_name_and_no_others(tmp_path):
    for ending in (".txt", ".csv", ".parquet"):
        written(tmp_path, ending)
    (tmp_path / "README.md").write_text("not for training")
    assert [file.path.name for file in read_texts(tmp_path)] == [
        "some.csv",
        "some.parquet",
        "some.txt",
    ]


def test_the_column_of_the_texts_can_be_named(tmp_path):
    path = tmp_path / "a.csv"
    pd.DataFrame({"text": ["x"], "body": ["y"]}).to_csv(path, index=False)
    assert read_texts(path, "body")[0].texts == ["y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", None, r"data file .*a\.txt does not exist"),
        ("a.txt", b"", r"data file .*a\.txt is empty"),
        ("a.txt", b" \n\n ", r"a\.txt has no text: every row of it is empty"),
        ("a.txt", b"\xff\xfe\xfd", r"a\.txt is not UTF-8 text"),
        ("a.doc", b"x", r"a\.doc is no data file: its name must end in \.txt, \.parquet"),
        ("a.csv", b"review\nfine\n", r"its columns are: review\. .* with --text-column"),
        ("a.parquet", b"PAR1", r"a\.parquet is not a whole Parquet file"),
        ("a.jsonl", b'{"text": 3}', r"column 'text' of .*a\.jsonl holds int64, not text"),
    ],
)
def test_what_is_no_text_is_refused(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_texts(tmp_path / name)


def test_a_folder_without_data_files_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"has no file that ends in \.txt"):
        read_texts(tmp_path)

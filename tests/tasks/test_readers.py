"""Every format gives back the rows that were written, and every broken file is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import csv

from peftport.errors import BadInput
from peftport.tasks.forms import Columns, read_file
from peftport.tasks.readers import find_splits

Writer = Callable[[Path, list[str], list[int]], None]


def write_parquet(path: Path, texts: list[str], labels: list[int]) -> None:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()), "label": labels}), path)


def write_csv(path: Path, texts: list[str], labels: list[int]) -> None:
    delimiter = "\t" if path.suffix == ".tsv" else ","
    options = csv.WriteOptions(delimiter=delimiter, quoting_style="all_valid")
    table = pa.table({"text": pa.array(texts, pa.string()), "label": labels})
    csv.write_csv(table, path, options)


def write_jsonl(path: Path, texts: list[str], labels: list[int]) -> None:
    rows = zip(texts, labels, strict=True)
    lines = [json.dumps({"text": t, "label": i}, ensure_ascii=False) for t, i in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")


def write_json(path: Path, texts: list[str], labels: list[int]) -> None:
    rows = [{"text": t, "label": i} for t, i in zip(texts, labels, strict=True)]
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


WRITERS: dict[str, Writer] = {
    "x.parquet": write_parquet,
    "x.csv": write_csv,
    "x.tsv": write_csv,
    "x.jsonl": write_jsonl,
    "x.json": write_json,
}
# Control characters that CSV cannot hold are left out; line breaks, quotes and commas are not.
readable = st.text(
    st.characters(codec="utf-8", exclude_characters="\x00\r", exclude_categories=["Cs"]),
    max_size=30,
)
rows_of_text = st.lists(st.tuples(readable, st.integers(-5, 5)), min_size=1, max_size=8)


@pytest.mark.parametrize("name", WRITERS)
@given(rows=rows_of_text)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_back_as_they_were_written(
    name: str, rows: list[tuple[str, int]], tmp_path: Path
) -> None:
    texts, labels = [text for text, _ in rows], [label for _, label in rows]
    WRITERS[name](tmp_path / name, texts, labels)
    table = read_file(tmp_path / name)
    assert (table.texts, table.labels) == (texts, labels)
    assert table.origin == str(tmp_path / name)


def test_columns_are_found_by_their_usual_or_their_given_names(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("stars,sentence,label,body\n5,short,1,long\n")
    assert read_file(path).texts == ["short"]
    asked = read_file(path, Columns("body", "stars"))
    assert (asked.texts, asked.labels) == (["long"], [5])


def test_words_that_look_like_missing_values_are_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text('text,label\nNA,1\nnull,0\n"",1\nnan,0\n')
    assert read_file(path).texts == ["NA", "null", "", "nan"]


def test_a_byte_order_mark_and_foreign_line_ends_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbftext,label\r\nfine,1\r\n")
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "fine", "label": 1}\r\n\r\n')
    assert read_file(tmp_path / "x.csv").texts == ["fine"]
    assert read_file(tmp_path / "x.jsonl").texts == ["fine"]


def test_a_text_longer_than_a_block_of_the_csv_reader_is_read(tmp_path: Path) -> None:
    long = "word, and\n" * 300_000
    write_csv(tmp_path / "x.csv", [long, "short"], [0, 1])
    assert read_file(tmp_path / "x.csv").texts == [long, "short"]


def test_labels_of_mixed_types_agree(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "b", "label": "0"}\n')
    assert read_file(path).labels == [1, 0]


def test_booleans_dictionaries_and_class_names_of_parquet_are_understood(tmp_path: Path) -> None:
    feature = {"label": {"names": ["bad", "good"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    texts = pa.array(["a", "b"]).dictionary_encode()
    table = pa.table({"text": texts, "label": [1, 0]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "named.parquet")
    named = read_file(tmp_path / "named.parquet")
    assert (named.texts, named.names) == (["a", "b"], ("bad", "good"))
    pq.write_table(pa.table({"text": ["a"], "label": [True]}), tmp_path / "bool.parquet")
    assert read_file(tmp_path / "bool.parquet").labels == ["true"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_and_an_empty_file_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(BadInput, match=f"data file {path} does not exist"):
        read_file(path)
    path.touch()
    with pytest.raises(BadInput, match=f"data file {path} is empty"):
        read_file(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"PAR1 this is no Parquet PAR1", "is not a whole Parquet file"),
        ("x.csv", b"text,label\n", "has no rows"),
        ("x.csv", b"text,label\na,1\nb,c,0\n", "Row #3: Expected 2 columns, got 3"),
        ("x.csv", b'text,label\nfine,1\n"not ended,0\n', "cannot be read as CSV"),
        ("x.csv", b"text,label\n\xff\xfe,1\n", "is not UTF-8 text: line 2"),
        ("x.csv", "text,label\nfine,1\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("x.csv", b"text;label\nfine;1\n", "separated by semicolons: save it with commas"),
        ("x.csv", b"\xfftext,label\nfine,1\n", "is not UTF-8 text: line 1"),
        ("x.tsv", b"text,label\nfine,1\n", "has no column 'text' or 'sentence' for the text"),
        ("x.csv", b"fine film,1\nbad film,0\n", "its columns are: fine film, 1"),
        ("x.csv", b"text,text,label\na,b,1\n", "has the column 'text' more than once"),
        ("x.csv", b"text,stars\na,1\n", "has no column 'label' for the label"),
        ("x.csv", b"text,label\na,1\n,0\n", "row 2 of .* has no text in column 'text'"),
        ("x.csv", b"text,label\na,1\nb,\n", "row 2 of .* has no label"),
        ("x.csv", b'text,label\na,1\nb," "\n', "row 2 of .* has no label"),
        ("x.jsonl", b'{"text": "a", "label": 1}\n{"text": "b', "line 2 of .* is not valid JSON"),
        ("x.jsonl", b'{"text": "a", "label": 1}\n["b", 0]\n', "line 2 of .* is not an object"),
        ("x.jsonl", b'{"text": "a", "label": 1}\n{"label": 0}\n', "row 2 of .* has no text"),
        ("x.jsonl", b'{"text": null, "label": 1}\n', "row 1 of .* has no text"),
        (
            "x.jsonl",
            b'{"text": "a", "label": 0.5}\n',
            "row 1 of .* label 0.5, which is not a whole",
        ),
        ("x.jsonl", b'{"text": "a", "label": [1]}\n', "row 1 of .* label of type list"),
        ("x.jsonl", b'{"text": 5, "label": 1}\n', "column 'text' of .* holds int64, not text"),
        ("x.jsonl", b'{"text": "\xff", "label": 1}\n', "is not UTF-8 text"),
        ("x.jsonl", b"\n\n", "has no column"),
        ("x.json", b'[{"text": "a", "label": 1}', "is not valid JSON"),
        ("x.json", b"[]", "has no column"),
        ("x.xlsx", b"PK", "its name must end in .parquet, .csv"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message) as error:
        read_file(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)


@given(kept=st.integers(1, 400))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_parquet_file_is_never_read(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(path, ["some text"] * 50, [1, 0] * 25)
    whole = path.read_bytes()
    path.write_bytes(whole[: min(kept, len(whole) - 1)])
    with pytest.raises(BadInput, match="is not a whole Parquet file"):
        read_file(path)


def test_the_splits_of_a_folder_are_found_by_their_usual_names(tmp_path: Path) -> None:
    names = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "dev.jsonl")
    for name in (*names, "test.csv", "README.md", "extra.csv"):
        (tmp_path / name).touch()
    found = find_splits(tmp_path)
    assert {split: [f.name for f in files] for split, files in found.items()} == {
        "train": ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        "validation": ["dev.jsonl"],
        "test": ["test.csv"],
    }


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "has no train, validation or test file .* it has no data file"),
        (("reviews.csv",), "it has reviews.csv"),
        (("train.csv", "train.jsonl"), "more than one train split: train.csv, train.jsonl"),
        (("dev.csv", "validation.csv"), "more than one validation split"),
        (
            ("test-00000-of-00003.parquet", "test-00002-of-00003.parquet"),
            "has 2 of 3 files of its test split; missing: 00001",
        ),
    ],
)
def test_a_folder_with_doubtful_splits_is_refused(
    names: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(BadInput, match=message):
        find_splits(tmp_path)

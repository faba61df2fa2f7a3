"""Rows come out of JSON files one at a time, and are what the whole file says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftport import records
from peftport.errors import BadInput
from peftport.records import lines, of_lines, of_list

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=8)


@settings(max_examples=50)
@given(
    rows=ROWS, at_once=st.integers(1, 40), indent=st.sampled_from((None, 1)), ascii=st.booleans()
)
def test_a_list_gives_its_objects_wherever_it_is_cut(
    tmp_path_factory, rows, at_once, indent, ascii
):
    path = tmp_path_factory.mktemp("list") / "a.json"
    path.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii), errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "AT_ONCE", at_once)
        found = list(of_list(path))
    assert [record.value for record in found] == rows
    assert [record.where for record in found] == [
        f"row {number} of {path}" for number in range(1, len(rows) + 1)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{}", "no ',' and no ']' follows its row 1"),
        ("[{},]", "row 2 of .* is not valid JSON: Expecting value"),
        ("[{} {}]", "no ',' and no ']' follows its row 1"),
        ("[{}] {}", "something follows its list"),
        ("[1]", "row 1 of .* is not an object"),
        ('[{"a": 1, "a": 2}]', "'a' stands in one object twice"),
        ('[{"a": "', "row 1 of .* is not valid JSON: Unterminated string"),
        ("[", "row 1 of .* is not valid JSON"),
        ('[{"a": ' + "[" * 100 + "]" * 100 + "}]", "nested deeper"),
    ],
)
def test_what_is_no_list_of_objects_is_named(text, message, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        list(of_list(tmp_path / "a.json"))


def test_a_row_that_is_too_long_is_told_without_the_rest_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "LONGEST", 1000)
    monkeypatch.setattr(records, "AT_ONCE", 100)
    (tmp_path / "a.json").write_text('[{"a": 1}, {"a": "' + "x" * 10_000 + '"}]')
    with pytest.raises(BadInput, match=r"row 2 of .* more than 1,000 bytes"):
        list(of_list(tmp_path / "a.json"))
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": "' + "x" * 10_000 + '"}')
    with pytest.raises(BadInput, match=r"line 3 of .* more than 1,000 bytes"):
        list(of_lines(tmp_path / "a.jsonl"))


def test_a_row_of_a_large_list_is_as_long_as_a_row_of_a_small_one(tmp_path, monkeypatch):
    """However much of the file was read at a time; and what is wrong in it is said."""
    monkeypatch.setattr(records, "LONGEST", 1000)
    monkeypatch.setattr(records, "AT_ONCE", 100)
    path, rest = tmp_path / "a.json", ', {"a": 1}' * 200 + "]"
    path.write_text('[{"a": "' + "x" * 1500 + '"}' + rest)
    with pytest.raises(BadInput, match=r"row 1 of .* more than 1,000 bytes"):
        list(of_list(path))
    path.write_text("[{'a': 1}" + rest)
    with pytest.raises(BadInput, match=r"row 1 of .* Expecting property name"):
        list(of_list(path))


@pytest.mark.parametrize("ending", ["json", "jsonl"])
def test_the_limit_of_a_row_is_one_of_bytes(ending, tmp_path, monkeypatch):
    """So that a file has the same limit whichever way it is written."""
    path, read = tmp_path / f"a.{ending}", {"json": of_list, "jsonl": of_lines}[ending]

    def write(letters: int) -> None:
        row = json.dumps({"a": "\u4e2d" * letters}, ensure_ascii=False)
        path.write_text(f"[{row}]" if ending == "json" else row)

    monkeypatch.setattr(records, "LONGEST", 1000)
    write(330)  # three bytes each, and nine of the object
    (record,) = read(path)
    assert record.size == 999
    write(331)
    with pytest.raises(BadInput, match="more than 1,000 bytes"):
        list(read(path))


def test_lines_keep_what_ends_them_and_begin_without_a_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\ntwo")
    assert list(lines(tmp_path / "a.txt")) == [(1, "one\r\n"), (2, "\n"), (3, "two")]

"""Tables of objects are the same whatever the batches that they are made in."""

from __future__ import annotations

import json

import pytest

from peftport import tables
from peftport.tables import read_table

ROWS = {
    "numbers": [{"a": 1}, {"a": 2.5}, {"a": None}, {}],
    "numbers and text": [{"a": 1}, {"a": 2}, {"a": "x"}, {"a": [1]}],
    "text that is a number's": [{"a": True}, {"a": 1}, {"a": None}],
    "columns that come later": [{"a": 1}, {"b": "x"}, {"b": None, "c": [1]}],
    "large numbers and small ones": [{"a": 2**60 + 1}, {"a": 0.5}],
    "the same within": [{"a": {"b": 2**60 + 1}}, {"a": {"b": 0.5}}],
    "lists": [{"a": []}, {"a": ["x"]}, {"a": None}],
    "turns": [{"a": [{"role": "user"}]}, {"a": [{"content": "x"}]}],
    "half a character": [{"a": "x"}, {"a": "\ud800"}],
}


@pytest.mark.parametrize("name", ROWS)
def test_a_column_has_one_type_over_all_batches(name, tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS[name])))
    whole = read_table(path)
    monkeypatch.setattr(tables, "BATCH", 1)
    found = read_table(path)
    assert found.schema == whole.schema
    assert found.to_pylist() == whole.to_pylist()

"""Rows of every form are told by their columns and read alike from every format; a row that is of
no form is named, with what was expected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.tasks.forms import Columns, from_arrow, kind_of, read_file
from peftport.tasks.readers import Table
from written_rows import chats, choices, pairs, texts

Rows = Sequence[dict[str, Any]]


def write_jsonl(folder: Path, rows: Rows) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def write_json(folder: Path, rows: Rows) -> Path:
    path = folder / "rows.json"
    path.write_text(json.dumps(list(rows)))
    return path


def write_parquet(folder: Path, rows: Rows) -> Path:
    path = folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def write_pandas(folder: Path, rows: Rows) -> Path:
    """As pandas writes it, whose text is Arrow's large strings."""
    import pandas as pd

    path = folder / "pandas.parquet"
    pd.DataFrame(list(rows)).to_parquet(path)
    return path


def write_csv(folder: Path, rows: Rows) -> Path:
    """What is no text as JSON, which is all that CSV leaves."""
    import csv

    path = folder / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: v if isinstance(v, str | int) else json.dumps(v) for k, v in row.items()}
            )
    return path


WRITERS = (write_jsonl, write_json, write_parquet, write_pandas, write_csv)


def from_hub(rows: Rows, columns: Columns = Columns()) -> Table:  # noqa: B008
    """As `datasets` gives rows of the hub."""
    datasets = pytest.importorskip("datasets", reason="no datasets")
    table = datasets.Dataset.from_list(list(rows)).with_format("arrow")[:]
    return from_arrow(table, "hub", columns)


def prompts_as_chats() -> list[dict[str, Any]]:
    """Prompt and completion that are messages."""
    return [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in chats()]


FORMS = {
    "chats": (chats(), "messages", "completion"),
    "prompt and completion as chats": (prompts_as_chats(), "messages", "completion"),
    "prompt and completion": (pairs(), "pairs", "completion"),
    "choices": (choices(), "choices", "choice"),
    "text alone": (texts(), "texts", "language"),
    "text and label": (
        [{"text": row["text"], "label": n % 2} for n, row in enumerate(texts())],
        "labelled",
        "classification",
    ),
}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[6:])
@pytest.mark.parametrize("case", FORMS)
def test_rows_are_read_alike_from_every_format(case, write, tmp_path):
    rows, form, kind = FORMS[case]
    found, expected = read_file(write(tmp_path, rows)), from_hub(rows)
    assert (found.form, kind_of(list(rows[0]))) == (form, kind)
    for name in ("form", "texts", "labels", "answers"):
        assert getattr(found, name) == getattr(expected, name)
    assert len(found.texts) == len(rows)


def test_chats_are_turns_before_an_answer(tmp_path):
    rows = chats()
    for written in (rows, prompts_as_chats()):
        found = read_file(write_jsonl(tmp_path, written))
        assert [json.loads(text) for text in found.texts] == [r["messages"][:-1] for r in rows]
        assert found.labels == [row["messages"][-1]["content"] for row in rows]


def test_a_content_in_parts_is_their_text(tmp_path):
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    turns = [{"role": "user", "content": parts}, {"role": "assistant", "content": "three"}]
    found = read_file(write_jsonl(tmp_path, [{"messages": turns}]))
    assert json.loads(found.texts[0]) == [{"role": "user", "content": "one two"}]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__[6:])
@pytest.mark.parametrize(
    ("labels", "form"),
    [
        (["good film", "bad", "7"], "pairs"),
        ([0, 1, 1], "labelled"),
        (["0", "1", "1"], "labelled"),
        (["true", "false", "true"], "labelled"),
    ],
)
def test_a_completion_s_label_is_its_answer_where_it_is_text(labels, form, write, tmp_path):
    rows = [{"text": f"the film {n}", "label": label} for n, label in enumerate(labels)]
    found = read_file(write(tmp_path, rows), Columns(kind="completion"))
    assert found.form == form
    if form == "pairs":
        assert found.labels == labels


def test_columns_of_another_name_are_prompt_and_completion(tmp_path):
    rows = [{"question": row["prompt"], "answer": row["completion"]} for row in pairs()]
    path = write_jsonl(tmp_path, rows)
    found = read_file(path, Columns("question", "answer", "completion"))
    assert (found.form, found.texts[0]) == ("pairs", rows[0]["question"])
    rows = [{"talk": row["messages"]} for row in chats()]
    found = read_file(write_jsonl(tmp_path, rows), Columns(text="talk", kind="completion"))
    assert found.form == "messages"


def test_texts_need_no_label(tmp_path):
    found = read_file(write_jsonl(tmp_path, texts()), Columns(kind="language"))
    assert (found.form, found.labels) == ("texts", [0] * len(texts()))


@pytest.mark.parametrize(
    ("label", "right"), [(1, 1), ("b", 1), ("1", 1), (1.0, 1), ("c", 2), (0, 0)]
)
def test_the_right_choice_is_its_number_or_its_text(label, right, tmp_path):
    path = write_jsonl(tmp_path, [{"text": "x", "choices": ["a", "b", "c"], "label": label}])
    assert read_file(path).labels == [right]


CHAT = {"role": "user", "content": "hello"}
REPLY = {"role": "assistant", "content": "yes"}
BAD = [
    ({"messages": None}, "its messages are no list of turns"),
    ({"messages": [REPLY]}, "its chat has 1 turns"),
    ({"messages": []}, "its chat has 0 turns"),
    ({"messages": [REPLY, CHAT]}, "its last turn is the user's; expected the assistant's"),
    ({"messages": [{"role": "robot", "content": "x"}, REPLY]}, "a turn of role 'robot'; known are"),
    ({"messages": [{"content": "x"}, REPLY]}, "a turn of role None"),
    ({"messages": [{"role": "user"}, REPLY]}, "the user's turn has no text as its content"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}, REPLY]}, "no text as its"),
    ({"messages": "hello"}, "the messages in row 2 of .* JSON"),
    ({"text": "x", "choices": ["a"], "label": 0}, "its choices are no list of two texts or more"),
    ({"text": "x", "choices": ["a", ""], "label": 0}, "no list of two texts"),
    ({"text": "x", "choices": ["a", "b"], "label": 2}, "is none of its 2 choices"),
    ({"text": "x", "choices": ["a", "b"], "label": -1}, "is none of its 2 choices"),
    ({"text": "x", "choices": ["a", "b"], "label": True}, "is none of its 2 choices"),
    ({"text": "x", "choices": ["a", "b"], "label": None}, "is none of its 2 choices"),
    ({"text": "x", "choices": ["1", "2"], "label": "1"}, "one of its choices and the number of an"),
    ({"prompt": "x", "completion": None}, "has no text in column 'completion'"),
    ({"prompt": [CHAT], "completion": None}, "its messages are no list of turns"),
    ({"prompt": [CHAT], "completion": [CHAT]}, "its last turn is the user's"),
]
GOOD = {
    "messages": {"messages": [CHAT, REPLY]},
    "choices": {"text": "x", "choices": ["a", "b"], "label": 1},
    "prompt": {"prompt": "x", "completion": "y"},
    "chats": {"prompt": [CHAT], "completion": [REPLY]},
}


@pytest.mark.parametrize(("row", "why"), BAD)
def test_a_bad_row_is_named_with_what_was_expected(row, why, tmp_path):
    form = next(name for name in ("messages", "choices", "prompt") if name in row)
    form = "chats" if isinstance(row.get("prompt"), list) else form
    path = write_jsonl(tmp_path, [GOOD[form], row])
    with pytest.raises(BadInput, match=f"row 2 of .*{why}|{why}") as told:
        read_file(path)
    assert "row 2 of" in str(told.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "text", "type", "a"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
columns = st.sampled_from(["messages", "prompt", "completion", "text", "label", "choices"])


@given(
    st.lists(st.dictionaries(columns, anything, max_size=4), min_size=1, max_size=3),
    st.sampled_from([None, "completion", "choice", "language", "classification"]),
)
@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_whatever_a_file_holds_is_read_or_refused(tmp_path, rows, kind):
    path = write_jsonl(tmp_path, rows)
    try:
        found = read_file(path, Columns(kind=kind))
    except BadInput:
        return
    assert len(found.texts) == len(found.labels) == len(rows)
    assert all(isinstance(text, str) for text in found.texts)
    if found.form == "messages":
        assert all(json.loads(text) for text in found.texts)

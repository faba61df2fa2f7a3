"""A task is loaded by name, reads the same everywhere, and refuses what it cannot use."""

from __future__ import annotations

import json
import logging
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.tasks import load_task
from real_data import require_shared

HEADER = "text,label\n"


def folder_with(folder: Path, **splits: str) -> str:
    for split, rows in splits.items():
        (folder / f"{split}.csv").write_text(HEADER + rows)
    return str(folder)


def yaml_with(folder: Path, content: str) -> str:
    (folder / "task.yaml").write_text(content)
    return str(folder / "task.yaml")


def many(labels: tuple[object, ...], count: int = 60) -> str:
    return "".join(f"text {i},{labels[i % len(labels)]}\n" for i in range(count))


def test_a_folder_is_a_task_with_the_usual_templates(tiny_task: Path) -> None:
    task = load_task(str(tiny_task))
    assert (task.name, task.source) == ("opinions", str(tiny_task))
    assert (task.labels, task.classes) == ((0, 1), 2)
    assert task.label_words == ("terrible", "great")
    assert task.templates == {
        "encoder": "{text}",
        "encoder-decoder": "{text}",
        "decoder": "{text} it was",
    }
    assert task.max_tokens == 128
    assert [len(task.split(s)) for s in ("train", "validation", "test")] == [96, 32, 48]
    assert task.split("test") is task.split("test")


def test_a_yaml_says_words_columns_templates_and_files(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("body,stars\n" + many((1, 5)))
    path = yaml_with(
        tmp_path,
        "name: stars\ntext: body\nlabel: stars\nlabels: {5: good, 1: bad}\nmax_tokens: 32\n"
        'template: {decoder: "Review: {text} Verdict: "}\nsplits: {train: a.csv, test: a.csv}\n',
    )
    task = load_task(path)
    assert (task.name, task.labels, task.label_words) == ("stars", (1, 5), ("bad", "good"))
    assert task.templates["decoder"] == "Review: {text} Verdict:"
    assert task.templates["encoder"] == "{text}"
    assert task.max_tokens == 32
    assert task.splits["validation"] == "10% of train"
    assert task.split("test").labels[:3] == [0, 1, 0]


def test_arguments_complete_a_yaml_and_do_not_override_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder_with(tmp_path, train=many((0, 1)), test=many((0, 1)))
    path = yaml_with(tmp_path, "source: .\nlabels: {0: bad, 1: good}\nmax_tokens: 32\n")
    task = load_task(
        path, label_words=("no", "yes"), max_tokens=64, template="{text} So:", text="text"
    )
    assert (task.label_words, task.max_tokens) == (("bad", "good"), 32)
    assert set(task.templates.values()) == {"{text} So:"}
    assert "says its label words itself" in caplog.text
    assert "says `max_tokens` itself" in caplog.text


def test_agreeing_with_a_yaml_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    files = {s: many((0, 1)) for s in ("train", "validation", "test")}
    folder_with(tmp_path, **files)
    path = yaml_with(tmp_path, "source: .\nlabels: {0: bad, 1: good}\nmax_tokens: 32\n")
    load_task(path, label_words=("bad", "good"), max_tokens=32)
    assert not caplog.records


def test_words_can_be_given_for_data_that_have_none(tmp_path: Path) -> None:
    name = folder_with(tmp_path, train=many((1, 2, 3)), test=many((1, 2, 3)))
    assert load_task(name).label_words is None
    assert load_task(name, label_words=("a", "b", "c")).label_words == ("a", "b", "c")


def test_a_single_file_is_a_task(tmp_path: Path) -> None:
    (tmp_path / "reviews.csv").write_text(HEADER + many(("sad", "glad")))
    task = load_task(str(tmp_path / "reviews.csv"))
    assert (task.name, task.label_words) == ("reviews", ("glad", "sad"))
    assert sum(len(task.split(s)) for s in task.splits) == 60


def test_data_to_test_on_alone_are_enough_to_load(tmp_path: Path) -> None:
    task = load_task(folder_with(tmp_path, test=many((0, 1))))
    assert list(task.splits) == ["test"]
    with pytest.raises(BadInput, match="has no train split"):
        task.split("train")


@given(limit=st.integers(1, 120))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_limits_cap_each_split_by_itself(limit: int, tiny_task: Path) -> None:
    whole, task = load_task(str(tiny_task)), load_task(str(tiny_task), limit_test=limit)
    assert task.limits == {"test": limit}
    assert len(task.split("test")) == min(limit, 48)
    assert set(task.split("test").texts) <= set(whole.split("test").texts)
    assert task.split("train") == whole.split("train")


def test_the_fingerprint_is_of_the_rows_and_the_reading_and_not_of_the_place(
    tiny_task: Path, tmp_path: Path
) -> None:
    task = load_task(str(tiny_task))
    moved = load_task(str(shutil.copytree(tiny_task, tmp_path / "moved")))
    assert moved.name != task.name
    assert moved.fingerprint == task.fingerprint
    others = [
        load_task(str(tiny_task), label_words=("bad", "good")),
        load_task(str(tiny_task), template="{text} So:"),
        load_task(str(tiny_task), max_tokens=16),
        load_task(str(tiny_task), limit_train=90),
        load_task(str(tiny_task), limit_test=40),
    ]
    assert len({task.fingerprint, *(other.fingerprint for other in others)}) == 6


def test_the_fingerprint_notices_one_changed_label(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = folder_with(tmp_path / "a", train=many((0, 1)), test="fine,1\nbad,0\n")
    second = folder_with(tmp_path / "b", train=many((0, 1)), test="fine,0\nbad,0\n")
    assert load_task(first).fingerprint != load_task(second).fingerprint


def test_the_record_is_plain_json_with_the_hash_of_each_split(tiny_task: Path) -> None:
    task = load_task(str(tiny_task), limit_test=10)
    record = task.record()
    assert json.loads(json.dumps(record)) == record
    assert record["fingerprint"] == task.fingerprint
    assert {split: said["rows"] for split, said in record["data"].items()} == {
        "train": 96,
        "validation": 32,
        "test": 10,
    }
    assert all(len(said["sha256"]) == 64 for said in record["data"].values())


def test_a_task_can_be_sent_to_another_process(tiny_task: Path) -> None:
    task = load_task(str(tiny_task), limit_train=20)
    sent = pickle.loads(pickle.dumps(task))
    assert sent.record() == task.record()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit_test": 0}, "limit_test is 0; it must be at least 1"),
        ({"limit_train": -5}, "limit_train is -5"),
        ({"template": "no place"}, r"template 'no place' must have \{text\} once"),
        ({"template": "{text} {text}"}, "once, where the text goes"),
        ({"template": {"decodr": "{text}"}}, "unknown kind of host 'decodr'.*'decoder'"),
        ({"max_tokens": 0}, "'max_tokens': Input should be greater than 0"),
        ({"text": "body"}, "has no column 'body' for the text; its columns are: text, label"),
        ({"label": "stars"}, "has no column 'stars' for the label"),
        ({"label_words": ("one",)}, r"1 label words \(one\) for the 2 labels"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    arguments: dict[str, object], message: str, tiny_task: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        load_task(str(tiny_task), **arguments)  # type: ignore[arg-type]


def test_a_template_s_other_fields_are_said_to_stand_as_they_are(
    tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    task = load_task(str(tiny_task), template='{title}: {"review": "{text}"} {0}')
    assert task.templates["decoder"] == '{title}: {"review": "{text}"} {0}'
    (said,) = [record.message for record in caplog.records if "stands there" in record.message]
    assert "{title} in the template" in said


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (many((0, 1)), "", r"test\.csv has no rows"),
        (many((1,)), many((1,)), r"two labels; .*train\.csv has only the label 1"),
        (many((0, 1)), "fine,1\nodd,7\n", r"row 2 of .*test\.csv has the label 7"),
        (many((0, 1)), "fine,1\n,0\n", r"row 2 of .*test\.csv has no text"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    train: str, test: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        load_task(folder_with(tmp_path, train=train, test=test)).split("test")


def test_a_label_outside_of_the_mapping_is_named_with_file_and_mapping(tmp_path: Path) -> None:
    folder_with(tmp_path, train=many((0, 1, 2)), test=many((0, 1)))
    path = yaml_with(tmp_path, "source: .\nlabels: {0: bad, 1: good}\n")
    task = load_task(path)
    with pytest.raises(BadInput) as error:
        task.split("train")
    assert str(error.value).startswith(
        f"row 3 of {tmp_path / 'train.csv'} has the label 2, which has no label word: {path} has "
        "the labels 0, 1."
    )


def test_loading_tasks_imports_no_torch_and_no_transformers(tiny_task: Path) -> None:
    code = (
        "import sys; from peftport.tasks import load_task; "
        "load_task(sys.argv[1]).fingerprint; "
        "assert not {'torch', 'transformers', 'pandas', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tiny_task)], check=True, timeout=120)


def test_real_reviews_load_as_they_are_described() -> None:
    data = require_shared() / "data"
    task = load_task(str(data / "sst2"), limit_train=2000)
    assert [len(task.split(s)) for s in ("train", "validation", "test")] == [2000, 872, 872]
    assert 0.45 < sum(task.split("train").labels) / 2000 < 0.65
    assert task.split("test").texts[0] == "one long string of cliches ."
    assert not set(task.split("train").texts) & set(task.split("test").texts)


def test_it_says_how_many_rows_a_limit_leaves_out(tiny_task: Path) -> None:
    assert load_task(str(tiny_task)).left_out("test") == 0
    assert load_task(str(tiny_task), limit_test=40).left_out("test") == 8
    assert load_task(str(tiny_task), limit_test=400).left_out("test") == 0

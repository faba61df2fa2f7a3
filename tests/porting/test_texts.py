"""Texts for calibration: drawn from files and tasks, each once, and never those of a test split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from peftport.errors import BadInput
from peftport.porting.texts import FEWEST, calibration_texts
from peftport.tasks import load_task


def words(count: int, what: str = "text") -> list[str]:
    return [f"{what} number {i}" for i in range(count)]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(words(40)))
    return path


def test_texts_of_a_file_are_drawn_each_once_and_the_same_again(texts):
    texts.write_text("\n\n".join([*words(40), *words(40), " "]))
    drawn = calibration_texts(str(texts), 20, seed=1)
    assert len(drawn) == len(set(drawn)) == 20
    assert drawn == calibration_texts(str(texts), 20, seed=1)
    assert drawn != calibration_texts(str(texts), 20, seed=2)
    assert set(drawn) < set(words(40))


def test_a_smaller_draw_is_part_of_a_larger_one(texts):
    assert calibration_texts(str(texts), 30)[:20] == calibration_texts(str(texts), 20)


def test_all_are_taken_where_there_are_fewer(texts):
    assert sorted(calibration_texts(str(texts), 100)) == sorted(words(40))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_column_of_a_table_is_named(ending, tmp_path):
    table, path = pd.DataFrame({"body": words(20), "n": 1}), tmp_path / f"data.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    elif ending == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_json(path, orient="records", lines=True)
    assert set(calibration_texts(str(path), 20, column="body")) == set(words(20))
    with pytest.raises(BadInput, match=r"has no column 'text' or 'sentence'.*body, n.*--text-col"):
        calibration_texts(str(path), 20)


def test_a_task_gives_its_training_texts():
    drawn = calibration_texts("lab:books", 50)
    assert set(drawn) <= set(load_task("lab:books").split("train").texts)


def test_a_folder_s_test_texts_are_not_looked_at(tiny_task):
    train = set(load_task(str(tiny_task)).split("train").texts)
    assert set(calibration_texts(str(tiny_task), 1000)) == train


def test_a_folder_of_tests_alone_is_refused(tmp_path):
    pd.DataFrame({"text": words(20)}).to_parquet(tmp_path / "test.parquet")
    with pytest.raises(BadInput, match="no training file"):
        calibration_texts(str(tmp_path), 20)


def chats(count: int) -> list[dict[str, object]]:
    turn = {"role": "assistant", "content": "yes"}
    return [{"messages": [{"role": "user", "content": each}, turn]} for each in words(count)]


@pytest.mark.parametrize(
    "rows", [chats(20), [{"prompt": each, "completion": "yes"} for each in words(20)]]
)
def test_what_comes_before_an_answer_is_a_text(rows, tmp_path):
    for split in ("train", "validation", "test"):
        pd.DataFrame(rows).to_json(tmp_path / f"{split}.jsonl", orient="records", lines=True)
    train = set(load_task(str(tmp_path)).split("train").texts)
    assert set(calibration_texts(str(tmp_path), 20)) == train
    assert set(calibration_texts(str(tmp_path / "train.jsonl"), 20)) == train


def test_a_folder_of_other_files_is_read_whole(texts):
    (texts.parent / "more.txt").write_text("\n\n".join(words(9, "other")))
    assert len(calibration_texts(str(texts.parent), 100)) == 49


def test_too_few_texts_are_counted(texts):
    texts.write_text("\n\n".join(words(3)))
    with pytest.raises(BadInput, match=rf"has 3 different texts; at least {FEWEST} are needed"):
        calibration_texts(str(texts), 100)
    with pytest.raises(BadInput, match="5 texts are too few"):
        calibration_texts(str(texts), 5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("lab:boks", "the lab has no task 'boks'. Did you mean 'books'"),
        ("/nowhere/texts.txt", "does not exist"),
        ("/nowhere/texts", "was not found: .* does not exist"),
    ],
)
def test_what_is_not_there_is_named(source, message):
    with pytest.raises(BadInput, match=message):
        calibration_texts(source, 100)

"""Splits are what the source has, and else parts of it that never mix training and testing."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.tasks.labels import Classes
from peftport.tasks.readers import Table
from peftport.tasks.sources import WHOLE
from peftport.tasks.splits import Reader

CLASSES = Classes((0, 1), None, "the test")


@dataclass
class ListSource:
    """A source whose rows are lists; `labels` is the label of every row, or None to alternate."""

    texts: dict[str, list[str]]
    labels: dict[str, int] | None = None
    name: str = "listed"

    def splits(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def read(self, split: str) -> list[Table]:
        texts = self.texts[split]
        every = (self.labels or {}).get(split)
        labels = [i % 2 if every is None else every for i in range(len(texts))]
        half = len(texts) // 2
        return [
            Table(f"{split} one", texts[:half], [*labels[:half]]),
            Table(f"{split} two", texts[half:], [*labels[half:]]),
        ]

    def words(self) -> None:
        return None


def numbered(split: str, count: int = 200) -> list[str]:
    return [f"{split} {i}" for i in range(count)]


def test_a_source_with_all_splits_is_read_as_it_is() -> None:
    reader = Reader(ListSource({s: numbered(s) for s in ("test", "train", "validation")}))
    assert list(reader.parts) == ["train", "validation", "test"]
    for split in reader.parts:
        rows = reader.rows(split, CLASSES, None)
        assert rows.texts == numbered(split)
        assert rows.labels == [0, 1] * 100


def test_a_missing_validation_is_cut_from_train_with_a_notice(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = Reader(ListSource({"train": numbered("train"), "test": numbered("test")}))
    assert "listed: 10% of train is set apart as validation" in caplog.text
    train = reader.rows("train", CLASSES, None).texts
    validation = reader.rows("validation", CLASSES, None).texts
    assert sorted(train + validation) == sorted(numbered("train"))
    assert 5 <= len(validation) <= 40
    assert reader.rows("test", CLASSES, None).texts == numbered("test")


def test_test_rows_without_labels_give_way_to_validation(caplog: pytest.LogCaptureFixture) -> None:
    texts = {s: numbered(s) for s in ("train", "validation", "test")}
    reader = Reader(ListSource(texts, {"test": -1}))
    assert "test rows have no labels; its validation is the test" in caplog.text
    assert reader.rows("test", CLASSES, None).texts == numbered("validation")
    assert set(reader.rows("validation", CLASSES, None).texts) < set(numbered("train"))


@given(st.lists(st.sampled_from(numbered("row")), max_size=200))
def test_a_single_file_is_split_so_that_no_text_is_on_two_sides(again: list[str]) -> None:
    texts = numbered("row") + again
    reader = Reader(ListSource({WHOLE: texts}))
    parts = {s: reader.rows(s, CLASSES, None).texts for s in ("train", "validation", "test")}
    assert sorted(text for part in parts.values() for text in part) == sorted(texts)
    assert not set(parts["train"]) & set(parts["test"])
    assert not set(parts["train"]) & set(parts["validation"])
    assert not set(parts["validation"]) & set(parts["test"])
    assert len(parts["train"]) > len(texts) / 2


def test_a_single_file_says_that_it_is_split(caplog: pytest.LogCaptureFixture) -> None:
    Reader(ListSource({WHOLE: numbered("row")}))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith("80% of it is train, 10% validation, 10% test")


@given(st.integers(1, 250))
def test_a_limit_is_kept_and_drawn_from_the_split(limit: int) -> None:
    reader = Reader(ListSource({"train": numbered("train"), "test": numbered("test")}))
    rows = reader.rows("train", CLASSES, limit)
    every = reader.rows("train", CLASSES, None)
    assert len(rows) == min(limit, len(every))
    labels = dict(zip(every.texts, every.labels, strict=True))
    assert rows.labels == [labels[text] for text in rows.texts]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (ListSource({"train": ["a", "b"]}), "listed has no test split; it has: train. Add a test"),
        (ListSource({}), "has no test split; it has: none"),
        (
            ListSource({"train": ["a"], "test": ["b", "c"]}, {"test": -1}),
            r"test rows of task listed have no labels \(all are -1\)",
        ),
    ],
)
def test_a_source_that_cannot_be_tested_on_is_refused(source: ListSource, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Reader(source)


def test_a_split_that_is_not_there_is_named() -> None:
    reader = Reader(ListSource({"test": numbered("test")}))
    with pytest.raises(BadInput, match="task listed has no train split; it has: test"):
        reader.rows("train", CLASSES, None)


def test_a_file_too_small_to_be_split_is_named() -> None:
    reader = Reader(ListSource({WHOLE: ["the same", "the same", "the same"]}))
    empty = 0
    for split in ("train", "validation", "test"):
        try:
            reader.rows(split, CLASSES, None)
        except BadInput as error:
            empty += 1
            assert f"all one has 3 rows, of which none falls to the {split} split" in str(error)
    assert empty == 2


def test_a_label_without_a_class_is_named_with_the_file_it_stands_in() -> None:
    reader = Reader(ListSource({"test": ["a", "b", "c", "d"]}, {"test": 4}))
    with pytest.raises(BadInput, match="row 1 of test one has the label 4"):
        reader.rows("test", CLASSES, None)

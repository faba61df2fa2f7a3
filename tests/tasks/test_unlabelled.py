"""The texts of the correction: training texts without their labels, and never a test text."""

from __future__ import annotations

import pandas as pd
import pytest

from families import ONE_OF_EACH_KIND
from peftport.correction import TEXTS
from peftport.tasks import encode_unlabelled, load_task, unlabelled_texts
from tiny_runs import host_in


def folder_of(tmp_path, **splits: list[str]):
    for split, texts in splits.items():
        rows = {"text": texts, "label": [i % 2 for i in range(len(texts))]}
        pd.DataFrame(rows).to_parquet(tmp_path / f"{split}.parquet")
    return str(tmp_path)


def test_they_are_training_texts_each_once_and_none_of_them_is_tested(tmp_path):
    train = [f"text {i % 700}" for i in range(1400)]
    task = load_task(folder_of(tmp_path, train=train, test=["text 1", "text 2", "another"]))
    found = unlabelled_texts(task)
    assert len(found) == len(set(found)) == TEXTS
    assert set(found) <= set(train) - {"text 1", "text 2"}


def test_labels_change_nothing(tmp_path):
    texts = [f"text {i}" for i in range(60)]
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    first = load_task(folder_of(tmp_path / "a", train=texts, test=["x", "y"]))
    rows = {"text": texts, "label": [1 - i % 2 for i in range(60)]}
    folder = folder_of(tmp_path / "b", test=["x", "y"])
    pd.DataFrame(rows).to_parquet(tmp_path / "b" / "train.parquet")
    assert unlabelled_texts(first) == unlabelled_texts(load_task(folder))


@pytest.mark.parametrize("train", [None, ["one text"] * 40])
def test_without_enough_of_them_there_is_no_correction(tmp_path, train, tiny_host):
    splits = {"train": train} if train else {}
    splits["validation"] = ["a", "b"]
    task = load_task(folder_of(tmp_path, test=["x", "y"], **splits))
    assert unlabelled_texts(task) == []
    host = host_in(tiny_host("t5"))
    assert encode_unlabelled(host.tokenizer, task, host.geometry.kind) is None


@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_every_kind_of_host_reads_them(family, tiny_host, tiny_task):
    host, task = host_in(tiny_host(family)), load_task(str(tiny_task))
    encoded = encode_unlabelled(host.tokenizer, task, host.geometry.kind)
    assert len(encoded) == len(unlabelled_texts(task))

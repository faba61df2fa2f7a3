"""Tokens of large data sets are made once and mapped by every process that asks afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from peftport.tasks import Encoded, Task, encode, load_task
from peftport.tasks.tokens import tokens_hash
from tiny_tokenizers import build_tokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, in which every split is worth keeping."""
    monkeypatch.setenv("PEFTPORT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("peftport.tasks.batches.WORTH_KEEPING", 1)
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def task(tiny_task: Path) -> Task:
    return load_task(str(tiny_task))


def same(one: Encoded, other: Encoded) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("tokens", "offsets", "labels")
    )


def refuse(*_: object) -> None:
    raise AssertionError("tokenised again")


def test_what_was_tokenised_once_is_mapped_and_equal(task, cache, monkeypatch):
    tokenizer = build_tokenizer("llama")
    first = encode(tokenizer, task, "test", "decoder")
    monkeypatch.setattr(type(tokenizer), "__call__", refuse)
    again = encode(tokenizer, task, "test", "decoder")
    assert isinstance(again.tokens, np.memmap)
    assert same(first, again)
    monkeypatch.undo()  # now the split is smaller than what is worth keeping
    assert same(encode(tokenizer, task, "test", "decoder"), again)


def test_small_splits_are_not_kept(task, cache, monkeypatch):
    monkeypatch.setattr("peftport.tasks.batches.WORTH_KEEPING", 10**6)
    encode(build_tokenizer("llama"), task, "test", "decoder")
    assert not cache.exists()


def test_whatever_tokens_depend_on_gives_another_name(task, tiny_task):
    texts = task.split("test").texts
    tokenizer = build_tokenizer("llama")
    shorter = build_tokenizer("llama")
    shorter.model_max_length = 7
    other = load_task(str(tiny_task), max_tokens=9)
    names = [
        tokens_hash(tokenizer, task, texts, "decoder"),
        tokens_hash(tokenizer, task, texts, "encoder"),
        tokens_hash(tokenizer, task, texts[:-1], "decoder"),
        tokens_hash(tokenizer, task, ["".join(texts)], "decoder"),
        tokens_hash(tokenizer, other, texts, "decoder"),
        tokens_hash(shorter, task, texts, "decoder"),
        tokens_hash(build_tokenizer("bert"), task, texts, "decoder"),
    ]
    assert len(set(names)) == len(names)
    assert tokens_hash(build_tokenizer("llama"), task, texts, "decoder") == names[0]


@pytest.mark.parametrize("keep", [0, 10, 140, -4])
def test_a_torn_file_is_made_again(task, cache, monkeypatch, keep):
    tokenizer = build_tokenizer("llama")
    monkeypatch.setattr("peftport.tasks.batches.WORTH_KEEPING", 10**6)
    unkept = encode(tokenizer, task, "test", "decoder")
    monkeypatch.setattr("peftport.tasks.batches.WORTH_KEEPING", 1)
    encode(tokenizer, task, "test", "decoder")
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:keep])
    assert same(encode(tokenizer, task, "test", "decoder"), unkept)
    assert [f.name for f in cache.iterdir()] == [file.name]
    assert isinstance(encode(tokenizer, task, "test", "decoder").tokens, np.memmap)


def test_where_nothing_can_be_kept_nothing_is(task, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PEFTPORT_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("peftport.tasks.batches.WORTH_KEEPING", 1)
    tokenizer = build_tokenizer("llama")
    assert same(
        encode(tokenizer, task, "test", "decoder"), encode(tokenizer, task, "test", "decoder")
    )


SCRIPT = """
import sys
from peftport.tasks import encode, load_task
import peftport.tasks.batches as batches
batches.WORTH_KEEPING = 1
from tiny_tokenizers import build_tokenizer
print(encode(build_tokenizer("llama"), load_task(sys.argv[1]), "test", "decoder").tokens.sum())
"""


def test_processes_that_begin_together_leave_one_file(tiny_task, cache):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(tiny_task)]
    several = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = {process.communicate()[0] for process in several}
    assert len(said) == 1
    assert len(list(cache.iterdir())) == 1

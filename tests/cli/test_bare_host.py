"""`peftport test` without MODULE: the bare host, read and corrected as under a module."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import peftport as pp
from modules.formats.modules import made, silenced
from peftport.modules import formats
from tiny_runs import host_in

WORDS = ("--label-words", "terrible,great", "--template", "{text} it was")


@pytest.fixture
def asked(call, tiny_host, tiny_task):
    """A function that tests on a family's tiny host: what comes before and after its options."""

    def run(family: str, *more: object, module: object = None):
        first = ("test", *([module] if module else []))
        return call(*first, "--host", tiny_host(family), "--task", tiny_task, *more)

    return run


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_it_has_the_figures_of_a_module_that_does_nothing(family, asked, tiny_host, tmp_path):
    nothing = silenced(made(host_in(tiny_host(family)), "lora"))
    formats.save(nothing, tmp_path / "m")
    code, text, error = asked(family, "--json", *WORDS)
    assert code == 0, error
    bare = json.loads(text)
    _, text, _ = asked(family, "--json", *WORDS, module=tmp_path / "m")
    under = json.loads(text)
    assert [bare.pop(key) for key in ("module", "technique", "made_for_this_host")] == [None] * 3
    assert bare == {key: under[key] for key in bare}
    low, high = bare["intervals"]["corrected_accuracy"]
    assert 0 <= low <= bare["corrected_accuracy"] <= high <= 1


def test_it_is_called_so_and_a_template_that_nobody_says_is_told(asked):
    code, text, error = asked("llama")
    assert code == 0, error
    assert text.startswith("bare host ")
    assert re.search(r"\ncorrected accuracy +0\.\d{3} \(0\.\d{3} to \d\.\d{3}\)\n", text), text
    assert "notice: texts are put into the template '{text} it was'" in error
    assert "terrible, great" in error
    _, _, error = asked("llama", *WORDS)
    assert "template" not in error


def test_what_cannot_be_corrected_is_told(call, tiny_host, tiny_task, tmp_path):
    shutil.copy(next(Path(tiny_task).glob("test*")), tmp_path)
    asked = ("test", "--host", tiny_host("llama"), "--task", tmp_path, *WORDS)
    code, text, error = call(*asked)
    assert code == 0, error
    assert "corrected accuracy" not in text
    assert "notice: nothing is corrected: that takes 16 training texts or more" in error


@pytest.mark.parametrize("kind", ["classification", "choice", "completion"])
def test_it_is_told_how_far_a_test_is(kind, tiny_host, tiny_task):
    told: list[tuple[float, str]] = []
    pp.test(
        None,
        str(tiny_host("llama")),
        str(tiny_task),
        limit_test=16,
        kind=kind,
        label_words="terrible,great",
        portion=lambda share, what: told.append((share, what)),
    )
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert told[-1][1].endswith(" rows tested")
    if kind == "completion":  # rows are read, and an answer is written to each
        assert told[-1][1] == "32 of 32 rows tested"


def test_a_folder_of_lm_eval_s_tasks_is_for_its_tasks(call, tiny_host, tiny_task, tmp_path):
    more = ("--task", tiny_task, "--lm-eval-path", tmp_path)
    code, _, error = call("test", "--host", tiny_host("llama"), *more, *WORDS)
    assert code == 2
    assert "--lm-eval-path: " in error


def test_an_encoder_tells_no_classes_apart_by_itself(asked):
    code, _, error = asked("bert")
    assert code == 2
    assert "is an encoder and tells no classes apart without a head" in error
    assert "peftport assess" in error


@pytest.mark.parametrize(
    "more", [("--to-card",), ("--from-host", "lab:small"), ("--no-pickle",), ("--lm-eval", "x")]
)
def test_what_is_of_a_module_is_refused(more, asked):
    code, _, error = asked("llama", *more)
    assert (code, f"{more[0]}: not without MODULE" in error) == (2, True)

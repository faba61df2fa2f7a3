"""A begun study goes on as a larger one, and keeps every run that it has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from inline_executor import Inline
from peftport.errors import BadInput
from peftport.studies.run import run_study
from peftport.studies.spec import Spec
from peftport.studies.store import read_store
from study_specs import figures, other_tokenizer, tiny_spec

LARGER = {
    "seeds": {"seeds": 2},
    "techniques": {"techniques": {"lora": {}, "adapter": {}}},
    "budgets": {"budgets": [0, 2, 4]},
    "pairs": {
        "pairs": [
            {"origin": "a", "receiver": "b", "relation": "continuation"},
            {"origin": "b", "receiver": "a", "relation": "continuation"},
        ]
    },
    "tasks": {"settings": [{"origin_task": "films", "task": name} for name in ("films", "more")]},
    "conditions": {"conditions": ["ported", "sampled", "scratch", "native", "host"]},
}


@pytest.fixture(scope="module")
def made(tiny_host, tiny_continuation, tiny_task, tmp_path_factory):
    """Makes the smallest study, with changes."""
    more = tmp_path_factory.mktemp("more") / "more"
    more.mkdir()
    for file in tiny_task.iterdir():  # other rows make another task
        pd.read_parquet(file).iloc[1:].to_parquet(more / file.name)

    def spec(**changes) -> Spec:
        hosts = changes.pop("hosts", {"a": tiny_host("t5"), "b": tiny_continuation("t5")})
        usual = {
            "tasks": {"films": str(tiny_task), "more": str(more)},
            "techniques": {"lora": {}},
            "pairs": [{"origin": "a", "receiver": "b", "relation": "continuation"}],
            "budgets": [0, 4],
            "seeds": 1,
            "conditions": ["ported", "scratch", "native", "host"],
            "donor_steps": 4,
            "native_steps": 4,
            "limit_train": 24,
            "limit_test": 8,
            "lanes": 1,
        }
        return tiny_spec(hosts, tiny_task, **{**usual, **changes})

    return spec


@pytest.fixture(scope="module")
def small(made, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "study"
    assert run_study(made(), folder, Inline()).failed == 0
    return folder


@pytest.fixture
def begun(small, tmp_path) -> Path:
    return shutil.copytree(small, tmp_path / "study")


@pytest.mark.parametrize("what", LARGER)
def test_a_study_that_grows_finds_what_the_larger_one_finds_at_once(what, made, begun, tmp_path):
    larger, before = made(**LARGER[what]), figures(begun)
    at_once = run_study(larger, tmp_path / "whole", Inline())
    grown = run_study(larger, begun, Inline(), extend=True)
    runs_before = sum(row[1] == "done" and len(row) > 7 for row in before)
    assert grown.done == grown.total == at_once.total > runs_before
    assert figures(begun) == figures(tmp_path / "whole")
    assert set(before) <= set(figures(begun))
    with read_store(begun) as store:
        assert store.spec == larger.model_dump(mode="json")
    assert run_study(larger, begun, Inline()).ran == 0  # it is the larger study from now on


def refused(spec, folder) -> str:
    """Why a study is not gone on with; nothing of it changes."""
    before = figures(folder)
    with read_store(folder) as store:
        told = store.spec, store.facts
    with pytest.raises(BadInput) as error:
        run_study(spec, folder, Inline(), extend=True)
    assert figures(folder) == before
    with read_store(folder) as store:
        assert (store.spec, store.facts) == told
    return str(error.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1, 2]},
        {"budgets": [0, 2]},
        {"donor_steps": 5},
        {"limit_test": 4},
        {"conditions": ["ported", "scratch", "host"]},
    ],
    ids=str,
)
def test_a_study_that_lacks_a_recorded_run_is_refused(changes, made, begun):
    told = refused(made(**changes), begun)
    assert f"{begun} cannot go on as this study" in told
    assert "does not ask for a run that is recorded there: " in told
    assert "receiver b" in told


def test_other_names_for_the_same_hosts_are_refused(made, begun):
    spec = made()
    hosts = {"old": spec.hosts["a"], "b": spec.hosts["b"]}
    pairs = [{"origin": "old", "receiver": "b", "relation": "continuation"}]
    told = refused(made(hosts=hosts, pairs=pairs), begun)
    assert "origin 'a' there and 'old' here" in told


def test_a_host_with_another_tokenizer_is_refused(made, begun, tmp_path):
    spec, moved = made(), tmp_path / "b"
    shutil.copytree(spec.hosts["b"], moved)
    other_tokenizer(moved)
    told = refused(made(hosts={**spec.hosts, "b": str(moved)}, seeds=2), begun)
    assert "the tokenizer of host b has changed since study" in told


def test_a_task_with_another_scorer_is_refused(made, begun):
    with read_store(begun) as store:
        assert store.facts["tasks"]["films"].get("scorer") is None
    told = refused(made(scorer="some.module:function", seeds=2), begun)
    assert "was begun with the scorer None for task films, and is given some.module" in told


def test_without_being_asked_a_study_does_not_grow_and_the_refusal_says_how(made, begun):
    with pytest.raises(BadInput, match="--extend where this study is the one there and more"):
        run_study(made(seeds=2), begun, Inline())


def test_a_study_that_is_not_there_is_begun(made, tmp_path):
    assert run_study(made(), tmp_path / "new", Inline(), extend=True).failed == 0

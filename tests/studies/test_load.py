"""Specifications by name and file, with parameters and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from peftport.errors import BadInput
from peftport.studies.load import load_spec, preset_names
from study_specs import data


@pytest.fixture
def written(tmp_path: Path):
    def write(**changes) -> str:
        path = tmp_path / "some.yaml"
        path.write_text(yaml.safe_dump(data(**changes)))
        return str(path)

    return write


def test_a_preset_is_found_by_name():
    assert load_spec("quick").name == "quick"


def test_an_unknown_preset_gets_a_hint_and_the_list():
    with pytest.raises(BadInput, match=r"Did you mean 'founding'\?") as caught:
        load_spec("fonding")
    assert all(name in str(caught.value) for name in preset_names())


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"none\.yaml is not a file"):
        load_spec(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize("content", ["a: [", "- a", "", "3"])
def test_a_file_that_is_no_specification_is_named(tmp_path, content):
    path = tmp_path / "some.yaml"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"some\.yaml"):
        load_spec(str(path))


def test_overrides_reach_into_the_file(written):
    spec = load_spec(
        written(),
        ["seeds=[4, 5]", "training.batch_size=2", "techniques.lora.rank=3", "pairs.1.receiver=z"],
    )
    assert spec.seeds == (4, 5)
    assert spec.training.batch_size == 2
    assert spec.techniques["lora"] == {"rank": 3}
    assert spec.pairs[1].receiver == "z"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seeds", "expected key=value"),
        ("=3", "expected key=value"),
        ("seds=3", "unknown key 'seds'. Did you mean 'seeds'"),
        ("training.batch=3", "unknown key 'training.batch'"),
        ("pairs.2.receiver=z", "there is nothing at '2'"),
        ("budgets.9=3", "'9' is not a position"),
        ("seeds=[1", "not valid YAML"),
    ],
)
def test_an_override_that_fits_nowhere_is_refused(written, setting, words):
    with pytest.raises(BadInput) as caught:
        load_spec(written(), [setting])
    assert words in str(caught.value)


def test_parameters_are_filled_in_wherever_they_stand(written):
    path = written(
        parameters={"hosts": "the folder with hosts a, b and c.", "task": "the task."},
        hosts={"a": "${hosts}/one", "b": "${hosts}/two"},
        tasks={"films": "${task}"},
    )
    spec = load_spec(path, ["hosts=/somewhere", "task=lab:films"])
    assert spec.hosts == {"a": "/somewhere/one", "b": "/somewhere/two", "c": "c"}
    assert spec.tasks == {"films": "lab:films"}


def test_a_parameter_without_value_is_asked_for_by_name_and_meaning(written):
    path = written(parameters={"hosts": "the folder with hosts."}, hosts={"a": "${hosts}/one"})
    with pytest.raises(BadInput, match=r"needs --set hosts=VALUE, the folder with hosts\."):
        load_spec(path)


def test_a_parameter_may_have_a_default(written):
    path = written(
        parameters={"task": {"about": "the task.", "default": "lab:films"}},
        tasks={"films": "${task}"},
    )
    assert load_spec(path).tasks == {"films": "lab:films"}
    assert load_spec(path, ["task=lab:food"]).tasks == {"films": "lab:food"}


def test_a_parameter_with_other_keys_is_refused(written):
    with pytest.raises(BadInput, match=r"parameters\.task has other keys than about and default"):
        load_spec(written(parameters={"task": {"about": "the task."}}))


def test_a_reference_to_no_parameter_is_refused(written):
    with pytest.raises(BadInput, match="declares no such parameter"):
        load_spec(written(hosts={"a": "${hosts}/one"}))


def test_names_that_are_paths_become_independent_of_the_current_folder(
    written, tmp_path, monkeypatch
):
    path = written(hosts={"a": "here"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = load_spec(path)
    assert spec.hosts == {"a": str(tmp_path / "here"), "b": "b", "c": "c"}

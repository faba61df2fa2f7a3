"""Options may be called as in peft and adapters, wherever options are given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from families import FAMILIES
from peftport.errors import BadInput
from peftport.hosts import geometry_by_name
from peftport.options import described
from peftport.studies.resolve import resolve
from peftport.techniques import TECHNIQUES, technique
from peftport.techniques.lora import LoraConfig, targets
from study_specs import tiny_spec
from tiny_runs import host_in

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    (
        "lora",
        {"r": 4, "lora_alpha": 6, "use_rslora": True},
        {"rank": 4, "alpha": 6, "rslora": True},
    ),
    ("lora", {"target_modules": ["q", "v"]}, {"targets": ["q", "v"]}),
    ("prefix", {"num_virtual_tokens": 7}, {"length": 7}),
    ("adapter", {"reduction_factor": 8}, {"reduction": 8}),
    ("compacter", {"reduction_factor": 8, "phm_dim": 2}, {"reduction": 8, "n": 2}),
]


@pytest.mark.parametrize(("name", "theirs", "ours"), NAMES)
def test_an_option_is_the_same_by_both_names(name, theirs, ours):
    made = technique(name)
    assert made.configure(theirs) == made.configure(ours)


def test_both_names_at_once_are_refused():
    with pytest.raises(BadInput, match="technique lora: option 'rank' is given twice: r is"):
        technique("lora").configure({"rank": 4, "r": 8})


def test_a_misspelt_one_is_understood_and_the_own_names_are_listed():
    with pytest.raises(BadInput, match=r"Did you mean 'lora_alpha'\? Known: rank, alpha"):
        technique("lora").configure({"lora_alhpa": 8})


def test_other_names_are_listed_with_their_option():
    for name in TECHNIQUES:
        kind = technique(name).Config
        listed = {each["name"]: each.get("also", []) for each in described(kind)}
        assert {other: own for own, others in listed.items() for other in others} == kind.also


@pytest.mark.parametrize("name", list(TECHNIQUES))
def test_other_names_are_on_the_page_of_techniques_beside_their_option(name):
    page = (ROOT / "docs" / "techniques.md").read_text()
    for other, own in technique(name).Config.also.items():
        assert f"| `{own}` | `{other}` |" in page


def test_a_study_by_either_name_is_the_same_study(tiny_host, tiny_task):
    pair = {"origin": "a", "receiver": "a", "relation": "same"}

    def configuration(options):
        more = {"techniques": {"lora": options}, "training": {"learning_rates": {"lora": 0.01}}}
        asked = tiny_spec({"a": tiny_host("llama")}, tiny_task, pairs=[pair], **more)
        return resolve(asked, fetch=False).techniques["lora"]

    found = configuration({"r": 2, "lora_alpha": 4})
    assert found == configuration({"rank": 2, "alpha": 4})
    assert (found["rank"], found["alpha"]) == (2, 4)


def test_targets_may_be_called_as_in_the_model():
    llama = geometry_by_name("lab:small")  # a T5: wi and wo
    config = technique("lora").configure({"target_modules": ["wo", "SelfAttention.q"]})
    chosen = {point.split(".", 2)[2] for point in targets(config, llama)}
    assert chosen == {"self.q", "ffn.down"}


@pytest.mark.parametrize("family", FAMILIES)
def test_all_linear_is_all(family, tiny_host):
    geometry = host_in(tiny_host(family)).geometry
    made = technique("lora")
    one, other = (made.configure({"target_modules": n}) for n in ("all-linear", ["all"]))
    assert targets(one, geometry) == targets(other, geometry)
    assert made.fold(one, geometry, {})[0].targets == ("all",)


def test_a_saved_module_has_names_that_all_families_share(tiny_host):
    geometry, made = host_in(tiny_host("llama")).geometry, technique("lora")
    config, _ = made.fold(made.configure({"target_modules": ["q_proj", "up_proj"]}), geometry, {})
    assert config == LoraConfig(targets=("ffn.up", "self.q"))
    usual = LoraConfig(targets=("q", "v"))
    assert made.fold(usual, geometry, {})[0] is usual


def test_the_command_line_takes_them(call, tiny_host, tiny_task, tmp_path):
    asked = ("train", "--host", tiny_host("llama"), "--task", tiny_task, "--technique", "lora")
    more = ("--set", "r=2", "--set", "lora_alpha=4", "--set", "target_modules=[q_proj]")
    code, text, error = call(*asked, *more, "--steps", 1, "--out", tmp_path / "m", "--json")
    assert code == 0, error
    config = json.loads(text)["config"]
    assert (config["rank"], config["alpha"], config["targets"]) == (2, 4.0, ["self.q"])

"""The specifications that come with the package."""

from __future__ import annotations

from itertools import permutations

import pytest
import yaml

from peftport.errors import BadInput
from peftport.studies.load import PRESETS, load_spec, preset_names
from peftport.studies.plan import Plan
from peftport.studies.resolve import resolve
from peftport.studies.spec import AUTO, Spec, parse_spec

FOUNDING = [name for name in preset_names() if name.startswith("founding")]


def load(name: str) -> Spec:
    """A preset with something for each of its parameters."""
    declared = yaml.safe_load((PRESETS / f"{name}.yaml").read_text()).get("parameters", {})
    return load_spec(name, [f"{key}=/given/{key}" for key in declared])


def is_all_of_the_lab(spec: Spec) -> bool:
    places = [*spec.hosts_used().values(), *spec.tasks_used().values()]
    return all(place.startswith("lab:") for place in places)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_planned(name):
    spec = load(name)
    plan = Plan(spec)
    assert spec.name == name
    assert spec.about
    assert sum(plan.count().values()) == sum(1 for _ in plan.runs())
    assert sum(len(pack.lanes) for pack in plan.packs()) == sum(1 for _ in plan.trajectories())


@pytest.mark.parametrize("name", [name for name in preset_names() if is_all_of_the_lab(load(name))])
def test_what_is_all_of_the_lab_is_found_and_every_port_of_it_can_be_done(name):
    facts = resolve(load(name), fetch=False)
    assert not facts.unknown
    assert all("geometry" in host for host in facts.hosts.values())


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_holds_a_path_of_some_machine(name):
    text = (PRESETS / f"{name}.yaml").read_text()
    places = [*load(name).hosts.values(), *load(name).tasks.values()]
    assert all(not place.startswith(("/", "~")) or "/given/" in place for place in places)
    assert "http" not in text


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_leaves_its_precision_to_the_machine(name):
    assert load(name).training.precision == AUTO


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_shows_the_baseline_beside_its_ports(name):
    assert {"ported", "sampled", "scratch", "native", "host"} <= set(load(name).conditions)
    assert 0 in load(name).budgets


def test_the_founding_grids_are_there():
    assert {"founding", "founding-lab", "founding-mini"} <= set(FOUNDING)


@pytest.mark.parametrize("name", FOUNDING)
def test_a_founding_grid_is_1440_runs_and_its_baseline_apart(name):
    spec = load(name)
    runs = list(Plan(spec).runs())
    ported = [run for run in runs if run.condition in ("ported", "sampled")]
    assert len(ported) == 4 * 4 * 2 * 3 * 3 * 5 == 1440
    assert len(set(spec.techniques)) == 4
    assert len(set(spec.pairs)) == 4
    assert {setting.origin_task == setting.task for setting in spec.settings} == {True, False}
    hosts = {run.arm.host for run in runs}
    tasks = {run.arm.task for run in runs}
    baseline = {c: sum(run.condition == c for run in runs) for c in ("scratch", "native", "host")}
    assert baseline == {
        "scratch": 4 * len(hosts) * len(tasks) * 3 * 5,
        "native": 4 * len(hosts) * len(tasks) * 5,
        "host": len(hosts) * len(tasks) * 5,
    }


def test_a_preset_on_other_data_asks_for_where_they_are():
    with pytest.raises(BadInput, match=r"founding-mini needs --set hosts=VALUE, the folder that"):
        load_spec("founding-mini")
    spec = load_spec("founding-mini", ["hosts=/some", "data=/where"])
    assert spec.hosts["mini-b"] == "/some/mini-b"
    assert spec.tasks["sst2"] == "/where/sst2"


def test_the_continuation_preset_follows_one_host_through_its_continuations():
    spec = load_spec("continuation", ["continued=/made"])
    assert [pair.receiver for pair in spec.pairs] == ["base", "x1", "x2", "x4", "x8", "x16"]
    assert {pair.origin for pair in spec.pairs} == {"base"}
    assert [pair.relation for pair in spec.pairs] == ["same", *["continuation"] * 5]
    assert (spec.hosts["base"], spec.hosts["x4"]) == ("lab:small", "/made/x4")
    real = load_spec("continuation", ["continued=/made", "base=/made/mini-a", "task=/data/sst2"])
    assert (real.hosts["base"], real.tasks["task"]) == ("/made/mini-a", "/data/sst2")


def test_unlike_hosts_are_independent_and_ported_in_both_directions():
    spec = load("unlike")
    assert {pair.relation for pair in spec.pairs} == {"independent"}
    ways = {(pair.origin, pair.receiver) for pair in spec.pairs}
    assert ("lab:small", "lab:small-twin") in ways
    assert ("lab:small-twin", "lab:small") in ways


@pytest.mark.parametrize("name", ["unlike-mini", "unlike-minilm"])
def test_unlike_hosts_of_real_text_are_tried_by_maps_beside_samples_of_one(name):
    spec = load(name)
    assert {pair.relation for pair in spec.pairs} == {"independent"}
    assert {"procrustes", "distill"} <= set(spec.methods)
    assert "gaussian of procrustes" in spec.controls
    assert spec.techniques.keys() == load("founding").techniques.keys()


def test_the_minilm_preset_has_the_factors_of_the_founding_grid():
    spec, founding = load("minilm"), load("founding")
    assert spec.techniques.keys() == founding.techniques.keys()
    assert [(s.origin_task, s.task) for s in spec.settings] == [
        (s.origin_task, s.task) for s in founding.settings
    ]
    assert len(spec.budgets) == len(founding.budgets)
    assert spec.conditions == founding.conditions


def test_the_llm_preset_has_the_founding_factors_and_takes_others_by_settings():
    spec, founding = load("llm"), load("founding")
    assert spec.techniques.keys() == founding.techniques.keys()
    kinds = {(pair.origin, pair.receiver): pair.relation for pair in spec.pairs}
    assert kinds == {
        ("smollm2", "continued"): "continuation",
        ("continued", "smollm2"): "continuation",
        ("smollm2", "gemma3"): "independent",
        ("gemma3", "smollm2"): "independent",
    }
    for pair in spec.pairs[2:]:
        assert dict(spec.ways(pair)) == {"ported": "ridge", "sampled": "gaussian of ridge"}
    places = "techniques={lora: {rank: 4, targets: [q, v]}}"
    given = [f"{key}=/given" for key in ("smollm2", "continued", "gemma3", "data")]
    tasks = "[{origin_task: sst2, task: sst2}, {origin_task: sst2, task: other}]"
    larger = load_spec("llm", [*given, "tasks.other=/given/other", f"settings={tasks}"])
    assert {setting.origin_task == setting.task for setting in larger.settings} == {True, False}
    other = load_spec("llm", [*given, places, "donor_steps=20"])
    assert other.techniques == {"lora": {"rank": 4, "targets": ["q", "v"]}}
    assert other.donor_steps == 20


def test_the_llm_pairs_preset_goes_in_every_direction_between_hosts_that_share_nothing():
    spec = load("llm-pairs")
    assert {(pair.origin, pair.receiver) for pair in spec.pairs} == set(permutations(spec.hosts, 2))
    assert {pair.relation for pair in spec.pairs} == {"independent"}
    assert dict(spec.ways(spec.pairs[0])) == {"ported": "ridge", "sampled": "gaussian of ridge"}
    assert {"host", "scratch", "native"} <= set(spec.conditions)
    assert set(spec.techniques) == {"adapter", "compacter", "lora", "prefix"}
    for name in spec.techniques:  # chosen on validation: the wider a host, the lower its rate
        rates = [spec.learning_rate(name, "donor", host) for host in ("qwen2", "gemma3", "smollm2")]
        assert rates == sorted(rates)
        assert rates[0] <= rates[2] / 3
        natives = [spec.learning_rate(name, "native", h) for h in ("qwen2", "gemma3", "smollm2")]
        assert natives == rates
    assert spec.most_lanes == 2  # a port and the sample of it


def test_a_host_s_own_rate_goes_where_its_pairs_go():
    given = [f"{key}=/given" for key in ("smollm2", "gemma3", "qwen2", "data")]
    pair = "{origin: smollm2, receiver: gemma3, relation: independent}"
    spec = load_spec("llm-pairs", [*given, f"pairs=[{pair}]"])
    assert spec.training.learning_rates_on.keys() == {"gemma3"}
    assert parse_spec(spec.model_dump(mode="json"), "stored") == spec

"""Names of runs: one for every configuration, and the same one every time."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.porting.distill import Distill
from peftport.studies.identity import Identity
from peftport.studies.plan import Plan
from peftport.studies.ways import resolved
from study_specs import spec

HOSTS = {"a": "weights of a", "b": "weights of b", "c": "weights of c"}
TASKS = {"films": "rows of films"}
CONFIGS = {"lora": {"rank": 8}, "adapter": {"width": 4}}


def identity(made=None, hosts=HOSTS, tasks=TASKS, configs=CONFIGS, texts=None) -> Identity:
    plan = Plan(made or spec())
    ways = {arm.how: [arm.how] for arm in plan.arms}
    return Identity(plan, hosts, tasks, configs, texts or {}, ways)


def ids(made=None, **facts) -> dict[tuple, str]:
    """Row -> id, for every run of a study."""
    names = identity(made, **facts)
    return {tuple(run.columns().values()): names.run(run)[0] for run in Plan(made or spec()).runs()}


def test_every_run_has_an_id_of_its_own():
    found = ids()
    assert len(set(found.values())) == len(found)
    identity().check_unique()


def test_an_id_is_the_hash_of_the_configuration_that_is_kept():
    names = identity()
    for run in Plan(spec()).runs():
        run_id, config = names.run(run)
        assert hashlib.sha256(config.encode()).hexdigest().startswith(run_id)
        assert json.loads(config)["seed"] == run.seed


def test_an_id_is_the_same_in_every_process_and_version():
    made = spec(techniques={"lora": {}}, conditions=["host"], seeds=1)
    found = identity(made, configs={"lora": {}})
    (run,) = list(Plan(made).runs())[:1]
    text = (
        '{"budget":0,"condition":"host","format":1,"limit_test":null,'
        '"receiver":"weights of b","seed":0,"task":"rows of films"}'
    )
    assert found.run(run) == (hashlib.sha256(text.encode()).hexdigest()[:32], text)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"about": "other words"},
        {"lanes": 3},
        {"hosts": {"a": "/elsewhere"}},
        {"tasks": {"films": "/elsewhere"}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_no_figure_depends_on_changes_no_id(changes):
    assert ids(spec(**changes)) == ids()


def _trained(found: dict[tuple, str]) -> set[str]:
    return {run_id for row, run_id in found.items() if row[1] != "host"}


RATES = {"lora": 0.01, "adapter": 0.01}


@pytest.mark.parametrize(
    "training",
    [
        {"batch_size": 3},
        {"warmup": 1},
        {"clip": 0.5},
        {"weight_decay": 0.1},
        {"learning_rates": {"lora": 0.02, "adapter": 0.02}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_training_changes_the_id_of_every_trained_run(training):
    other = ids(spec(training={"learning_rates": RATES, **training}))
    assert not _trained(other) & _trained(ids())


@pytest.mark.parametrize("host", ["a", "b"])
def test_a_rate_of_a_host_changes_the_ids_of_what_is_trained_on_it_or_comes_from_it(host):
    own = {"learning_rates": RATES, "learning_rates_on": {host: {"lora": 0.02}}}
    for row, before in ids().items():
        named = dict(zip(next(iter(Plan(spec()).runs())).columns(), row, strict=True))
        touched = named["technique"] == "lora" and host in (named["origin"], named["receiver"])
        assert (ids(spec(training=own))[row] != before) == touched, named


def test_another_limit_of_test_rows_changes_every_id():
    assert not set(ids(spec(limit_test=5)).values()) & set(ids().values())


def test_the_split_is_part_of_an_id_where_it_is_not_the_test():
    assert ids(spec(split="test")) == ids()
    assert not set(ids(spec(split="validation")).values()) & set(ids().values())


def test_the_precision_is_part_of_an_id_where_it_is_not_full():
    full, half = (
        ids(spec(training={"learning_rates": RATES, "precision": precision}))
        for precision in ("fp32", "bf16")
    )
    assert full == ids()
    assert not set(half.values()) & set(full.values())


def test_texts_are_part_of_the_ids_of_ports_that_look_at_them_and_of_no_others():
    made = spec(methods=["copy", "looking"])
    plain, seen, others = (
        ids(made, texts=texts) for texts in ({}, {"looking": "some"}, {"looking": "others"})
    )
    for row in plain:
        assert len({plain[row], seen[row], others[row]}) == (3 if row[2] == "looking" else 1)


def test_a_donor_is_the_same_wherever_runs_are_tested():
    names, others = identity(), identity(spec(split="validation", limit_test=5))
    donors = [list(Plan(made).donors()) for made in (spec(), spec(split="validation"))]
    assert [*map(names.donor, donors[0])] == [*map(others.donor, donors[1])]


def test_another_limit_of_training_rows_changes_the_id_of_every_trained_run():
    assert not _trained(ids(spec(limit_train=5))) & _trained(ids())


@pytest.mark.parametrize(
    ("changes", "conditions"),
    [
        ({"donor_steps": 30}, {"ported", "sampled"}),
        ({"native_steps": 30}, {"native"}),
        ({"budgets": [1, 6, 11]}, {"ported", "sampled", "scratch"}),
    ],
    ids=["donor_steps", "native_steps", "budgets"],
)
def test_a_change_reaches_the_runs_that_it_concerns_and_no_others(changes, conditions):
    def of(found: dict[tuple, str], concerned: bool) -> set[str]:
        return {i for row, i in found.items() if (row[1] in conditions) == concerned}

    before, after = ids(), ids(spec(**changes))
    assert not of(before, True) & of(after, True)
    assert of(before, False) == of(after, False)


def test_other_weights_change_every_run_on_that_host_or_from_it():
    before, after = ids(), ids(hosts={**HOSTS, "b": "other weights"})
    for row, run_id in before.items():
        touched = "b" in (row[4], row[5])
        assert (after[row] != run_id) == touched


def test_other_rows_of_a_task_change_every_id():
    assert not set(ids().values()) & set(ids(tasks={"films": "other rows"}).values())


def test_another_option_of_a_technique_changes_its_runs_alone():
    before, after = ids(), ids(configs={**CONFIGS, "lora": {"rank": 4}})
    for row, run_id in before.items():
        assert (after[row] != run_id) == (row[0] == "lora")


def test_another_relation_changes_the_ported_runs():
    other = ids(spec(pairs=[{"origin": "a", "receiver": "b", "relation": "independent"}]))
    one = ids(spec(pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}]))
    assert set(one.values()) & set(other.values()) == {
        run_id for row, run_id in one.items() if row[1] not in ("ported", "sampled")
    }


@settings(max_examples=50)
@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.sampled_from(["rank", "alpha"]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_ids_agree_exactly_when_configurations_do(seed, other_seed, key, value, other_value):
    made = {"techniques": {"lora": {}}, "training": {"learning_rates": {"lora": 0.1}}}
    one = ids(spec(seeds=[seed], **made), configs={"lora": {key: value}})
    other = ids(spec(seeds=[other_seed], **made), configs={"lora": {key: other_value}})
    same = seed == other_seed and value == other_value
    assert (_trained(one) == _trained(other)) == same
    assert bool(_trained(one) & _trained(other)) == same


def test_two_names_for_the_same_run_are_refused():
    with pytest.raises(BadInput, match="receiver 'b' and 'c'"):
        identity(
            spec(
                pairs=[
                    {"origin": "a", "receiver": "b", "relation": "continuation"},
                    {"origin": "a", "receiver": "c", "relation": "continuation"},
                ]
            ),
            hosts={**HOSTS, "c": HOSTS["b"]},
        ).check_unique()


@pytest.mark.parametrize(
    ("written", "same"),
    [
        ("distill", "distill:steps=100"),
        ("distill:steps=7:batch_size=4", "distill:batch_size=4:steps=7"),
        ("gaussian of distill", "gaussian of distill:steps=100"),
    ],
)
def test_a_method_is_named_by_what_it_computes_and_not_by_how_it_is_written(written, same):
    assert resolved(written) == resolved(same)
    assert resolved(written) != resolved(written.replace("distill", "distill:learning_rate=0.5"))


def test_a_changed_default_of_a_method_makes_other_runs(monkeypatch):
    before = resolved("distill")
    changed = type("Options", (Distill.Options,), {"steps": 7, "__annotations__": {"steps": int}})
    monkeypatch.setattr(Distill, "Options", changed)
    after = resolved("distill")
    assert after != before
    assert after == resolved("distill:steps=7")
    made = spec(conditions=["ported"], controls=[], methods=["distill"])
    plan = Plan(made)
    names = [
        Identity(plan, HOSTS, TASKS, CONFIGS, {}, {"distill": ways}) for ways in (before, after)
    ]
    for run in plan.runs():
        first, second = (name.run(run)[0] for name in names)
        assert first != second


def test_one_method_written_in_two_ways_is_refused_as_the_same_run_twice():
    made = spec(conditions=["ported"], controls=[], methods=["distill", "distill:steps=100"])
    plan = Plan(made)
    ways = {how: resolved(how) for how in made.methods}
    with pytest.raises(BadInput, match="the same run by other names"):
        Identity(plan, HOSTS, TASKS, CONFIGS, {}, ways).check_unique()


def test_an_option_that_came_later_leaves_the_names_of_earlier_runs_alone():
    (plain,) = resolved("distill:steps=7")
    assert plain["options"].keys() == {"technique", "steps", "batch_size", "learning_rate"}
    (with_it,) = resolved("distill:steps=7:samples=4")
    assert with_it["options"]["samples"] == 4

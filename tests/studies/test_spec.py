"""Specifications: what is accepted, and what is refused with which words."""

from __future__ import annotations

import subprocess
import sys

import pytest

from peftport.errors import BadInput
from peftport.studies.spec import Spec, parse_spec
from study_specs import data, spec


def test_a_number_of_seeds_stands_for_that_many_and_a_list_for_itself():
    assert spec(seeds=3).seeds == (0, 1, 2)
    assert spec(seeds=[7, 5]).seeds == (7, 5)


def test_budgets_are_put_in_order():
    assert spec(budgets=[30, 0, 10]).budgets == (0, 10, 30)


def test_a_specification_survives_json():
    made = spec(limit_test=12)
    assert Spec.model_validate(made.model_dump(mode="json")) == made


@pytest.mark.parametrize("role", ["donor", "native", "scratch", "ported", "sampled"])
def test_one_rate_serves_every_role(role):
    assert spec().learning_rate("lora", role, "a") == 0.01


def test_rates_can_differ_by_role():
    rates = {"donor": 0.1, "native": 0.2, "scratch": 0.3, "ported": 0.4, "sampled": 0.5}
    made = spec(training={"learning_rates": {"lora": rates, "adapter": 0.01}})
    assert {role: made.learning_rate("lora", role, "a") for role in rates} == rates


def test_a_host_can_have_a_rate_of_its_own_for_whatever_is_trained_on_it():
    made = spec(training={**TRAINING, "learning_rates_on": {"b": {"lora": 0.5}}})
    assert {made.learning_rate("lora", role, "b") for role in made.roles()} == {0.5}
    assert {made.learning_rate("lora", role, "a") for role in made.roles()} == {0.01}
    assert {made.learning_rate("adapter", role, "b") for role in made.roles()} == {0.01}


def test_a_role_that_is_not_trained_needs_no_rate():
    made = spec(
        conditions=["scratch"],
        training={"learning_rates": {"lora": {"scratch": 0.3}, "adapter": 0.01}},
    )
    assert made.roles() == ("scratch",)


TRAINING = {"learning_rates": {"lora": 0.01, "adapter": 0.01}}
PAIR = {"origin": "a", "receiver": "b", "relation": "continuation"}

REFUSED = {
    "unknown key": ({"budget": [0]}, "unknown key 'budget'. Did you mean 'budgets'?"),
    "unknown key in a pair": (
        {"pairs": [{**PAIR, "recever": "b"}]},
        "unknown key 'pairs.0.recever'. Did you mean 'receiver'?",
    ),
    "unknown key in training": (
        {"training": {"learning_rate": 1, "learning_rates": {}}},
        "unknown key 'training.learning_rate'. Did you mean 'learning_rates'?",
    ),
    "rate on an unknown host": (
        {"training": {**TRAINING, "learning_rates_on": {"d": {"lora": 0.1}}}},
        "training.learning_rates_on: 'd' is no host here.",
    ),
    "rate of an unknown technique on a host": (
        {"training": {**TRAINING, "learning_rates_on": {"b": {"lorra": 0.1}}}},
        "training.learning_rates_on.b: unknown technique 'lorra'. Did you mean 'lora'?",
    ),
    "unknown role": (
        {"training": {"learning_rates": {"lora": {"scrtch": 1}, "adapter": 1}}},
        "unknown key 'training.learning_rates.lora.scrtch'. Did you mean 'scratch'?",
    ),
    "missing key": ({"budgets": None}, "'budgets' is missing"),
    "no runs": ({"budgets": []}, "budgets"),
    "negative budget": ({"budgets": [-1]}, "budgets.0"),
    "budget twice": ({"budgets": [3, 3]}, "budgets: 3 stands in it twice"),
    "seed twice": ({"seeds": [1, 1]}, "seeds: 1 stands in it twice"),
    "no seeds": ({"seeds": 0}, "seeds"),
    "pair twice": ({"pairs": [PAIR, PAIR]}, "stands in it twice"),
    "unknown relation": ({"pairs": [{**PAIR, "relation": "cousin"}]}, "pairs.0.relation"),
    "same that is not": ({"pairs": [{**PAIR, "relation": "same"}]}, "'same' is for a host paired"),
    "a host with itself": ({"pairs": [{**PAIR, "receiver": "a"}]}, "'same' is for a host paired"),
    "unknown condition": ({"conditions": ["portd"]}, "conditions.0"),
    "no conditions": ({"conditions": []}, "conditions: "),
    "ported without donors": ({"donor_steps": None}, "'donor_steps' is needed"),
    "native without steps": ({"native_steps": None}, "'native_steps' is needed"),
    "ported without methods": ({"methods": []}, "'methods' is needed"),
    "sampled without controls": ({"controls": []}, "'controls' is needed"),
    "no rate": ({"training": {"learning_rates": {"lora": 1}}}, "adapter has no rate for 'donor'"),
    "rate of no technique": (
        {"training": {"learning_rates": {"lora": 1, "adapter": 1, "lra": 1}}},
        "training.learning_rates: unknown technique 'lra'. Did you mean 'lora'?",
    ),
    "unknown technique": (
        {"techniques": {"adaptor": {}}},
        "techniques: unknown technique 'adaptor'. Did you mean 'adapter'?",
    ),
    "no role's rate": (
        {"training": {"learning_rates": {"lora": {"donor": 1}, "adapter": 1}}},
        "lora has no rate for 'native'",
    ),
    "a rate of zero": ({"training": {"learning_rates": {"lora": 0, "adapter": 1}}}, "lora"),
    "a rate that is a word": (
        {"training": {"learning_rates": {"lora": "fast", "adapter": 1}}},
        "training.learning_rates.lora",
    ),
    "unknown key of a continuation": (
        {"continued": {"b": {"of": "a", "amont": 1}}},
        "unknown key 'continued.b.amont'. Did you mean 'amount'?",
    ),
    "a continuation of what is not there": (
        {"continued": {"b": {"of": "aa"}}},
        "continued.b: 'aa' stands in no pair. Did you mean 'a'?",
    ),
    "a pair twice": (
        {"pairs": [PAIR, {**PAIR, "relation": "independent"}]},
        "pairs: a -> b stands in it twice",
    ),
    "no method for any pair": (
        {"pairs": [{**PAIR, "methods": []}]},
        "'methods' is needed for conditions ported",
    ),
    "a continuation in a circle": (
        {"continued": {"b": {"of": "a"}, "a": {"of": "c"}, "c": {"of": "b"}}},
        "b continues a continues c continues b",
    ),
    "seeds that are a word": ({"seeds": "x"}, "seeds: expected a list, or how many."),
    "budgets that are a text": ({"budgets": "0,10"}, "budgets: expected a list."),
    "a name with a slash": ({"name": "../x"}, "name"),
    "a technique without options": ({"techniques": {"lora": 3}}, "techniques.lora"),
}


@pytest.mark.parametrize(("changes", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_named_with_its_place(changes, words):
    with pytest.raises(BadInput) as caught:
        parse_spec(data(**changes), "some.yaml")
    message = str(caught.value)
    assert message.startswith("some.yaml: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("value", [None, 3, "quick", ["a"]])
def test_what_is_no_mapping_is_refused(value):
    with pytest.raises(BadInput, match=r"some\.yaml: expected keys and values"):
        parse_spec(value, "some.yaml")


def test_reading_and_planning_import_no_torch():
    code = (
        "import sys; from peftport.studies.load import load_spec; "
        "from peftport.studies.plan import Plan; Plan(load_spec('quick')).count(); "
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

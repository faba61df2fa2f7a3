"""Learning rates chosen on validation, on seeds that the study does not use."""

from __future__ import annotations

import pytest

from peftport.errors import BadInput, RunFailed
from peftport.kind import kind_named
from peftport.studies.plan import Plan
from peftport.studies.spec import parse_spec
from peftport.studies.tune import candidates, chosen_rates, record, table_text, tried
from study_specs import spec


def row(rate: float, condition: str, accuracy: float | None, budget: int = 10) -> dict:
    return {
        "technique": "lora",
        "condition": condition,
        "budget": budget,
        "accuracy": None if accuracy is None else 1 - accuracy,
        "corrected_accuracy": accuracy,
        "rate": rate,
        "status": "failed" if accuracy is None else "done",
    }


def rows_of(*rows: dict) -> dict[float, list[dict]]:
    return {rate: [r for r in rows if r["rate"] == rate] for rate in {r["rate"] for r in rows}}


def test_candidates_share_no_seed_with_the_study_and_are_tested_on_validation():
    for candidate in candidates(spec(seeds=[3, 7]), [0.01, 0.001], 2).values():
        assert candidate.seeds == (8, 9)
        assert candidate.split == "validation"


def test_every_candidate_trains_all_conditions_of_a_technique_with_its_rate():
    rates = {"lora": 0.1, "adapter": 0.1}
    made = spec(training={"learning_rates": rates, "learning_rates_on": {"b": rates}})
    for rate, candidate in candidates(made, [0.01, 0.001], 1).items():
        assert {arm.learning_rate for arm in Plan(candidate).arms} == {rate}
        assert set(candidate.conditions) == {"native", "scratch", "ported", "sampled"}


def test_candidates_are_specifications_that_differ_in_their_rates_alone():
    made = candidates(spec(), [0.01, 0.001], 1)
    assert list(made) == [0.001, 0.01]
    for candidate in made.values():
        parse_spec(candidate.model_dump(mode="json"), "test")
    one, other = (c.model_dump(exclude={"name", "training"}) for c in made.values())
    assert one == other


def test_a_rate_that_no_specification_takes_is_refused_before_anything_is_trained():
    with pytest.raises(BadInput, match="less than or equal to 10"):
        candidates(spec(), [0.01, 20.0], 2)


def test_a_candidate_has_the_first_pair_of_each_relation_and_the_first_setting():
    pairs = [
        {"origin": "a", "receiver": "a", "relation": "same"},
        {"origin": "a", "receiver": "b", "relation": "continuation"},
        {"origin": "b", "receiver": "a", "relation": "continuation"},
        {"origin": "a", "receiver": "c", "relation": "independent"},
    ]
    tasks = ["films", "food"]
    settings = [{"origin_task": task, "task": task} for task in tasks]
    candidate = candidates(spec(pairs=pairs, settings=settings), [0.01], 1)[0.01]
    assert [(p.origin, p.receiver) for p in candidate.pairs] == [("a", "b"), ("a", "c")]
    assert [s.task for s in candidate.settings] == ["films"]
    only = candidates(spec(pairs=pairs[:1]), [0.01], 1)[0.01]
    assert [p.relation for p in only.pairs] == ["same"]


def test_a_study_that_trains_nothing_has_no_rates_to_choose():
    with pytest.raises(BadInput, match="needs no rates"):
        candidates(spec(conditions=["scratch"], budgets=[0]), [0.01], 1)


def test_conditions_count_alike_however_many_runs_they_have():
    found = tried(
        rows_of(
            row(0.01, "native", 0.5),
            *[row(0.01, "ported", 0.9)] * 3,
            row(0.1, "native", 0.8),
            *[row(0.1, "ported", 0.7)] * 3,
        )
    )
    assert [each.mean for each in found] == pytest.approx([0.7, 0.75])
    assert chosen_rates(found) == {"lora": 0.1}


def test_zero_shot_runs_do_not_count_and_failed_ones_count_as_nothing():
    found = tried(
        rows_of(
            row(0.01, "ported", 0.6),
            row(0.1, "ported", 0.9),
            row(0.1, "ported", None),
            row(0.1, "ported", 1.0, budget=0),
        )
    )
    assert [each.accuracy for each in found] == [{"ported": 0.6}, {"ported": 0.45}]


def test_no_rate_is_chosen_where_every_run_failed():
    rows = [row(rate, "ported", None) for rate in (0.01, 0.1)]
    other = row(0.1, "ported", 0.9) | {"technique": "prefix"}
    with pytest.raises(RunFailed, match="no module of lora was trained with any of the rates"):
        tried(rows_of(*rows, other))


def test_the_smallest_of_equal_rates_is_chosen():
    assert chosen_rates(tried(rows_of(row(0.1, "ported", 0.9), row(0.01, "ported", 0.9)))) == {
        "lora": 0.01
    }


def test_it_is_said_on_what_rates_were_chosen_and_how_a_specification_has_them():
    made = candidates(spec(), [0.01, 0.1], 1)
    found = tried(rows_of(row(0.01, "ported", 0.6), row(0.1, "ported", 0.9)))
    said = table_text(found, made)
    assert "on validation: a -> b, a -> c; films; seeds 2" in said
    assert "lora             0.1    0.900    0.900  chosen" in said
    assert said.endswith("training:\n  learning_rates: {lora: 0.1}")
    assert record(found, made)["learning_rates"] == {"lora": 0.1}


def test_of_a_loss_the_lowest_is_chosen_and_a_run_that_failed_counts_as_the_worst():
    kind = kind_named("language")

    def rows(loss):
        base = {"technique": "lora", "condition": "native", "budget": 5, "status": "done"}
        return [base | {"bits_per_byte": each, "token_loss": each} for each in loss]

    found = tried({0.1: rows([1.0, 1.2]), 0.2: rows([0.8, 0.9]), 0.3: rows([0.1, None])}, kind)
    assert chosen_rates(found) == {"lora": 0.2}
    told = record(found, {0.1: spec()})["tried"]
    assert [each["mean"] for each in told] == [pytest.approx(1.1), pytest.approx(0.85), None]
    assert told[0]["bits_per_byte"] == {"native": pytest.approx(1.1)}
    assert "bits per byte (lower is better)" in table_text(found, {0.1: spec()})

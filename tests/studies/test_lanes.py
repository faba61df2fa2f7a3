"""The number of lanes is left to the machine: measured once, written down, and kept."""

from __future__ import annotations

import pytest

from peftport.studies import lanes
from peftport.studies.lanes import COUNTS, choose, fastest, lanes_that_fit, with_lanes
from peftport.studies.plan import Plan
from peftport.studies.resolve import resolve
from peftport.studies.store import create
from study_specs import spec, tiny_spec


def test_the_fewest_lanes_near_the_fastest_are_taken():
    assert fastest({1: 10, 2: 18, 4: 30, 8: 31, 16: 30.5}) == 4
    assert fastest({1: 10, 2: 9.8, 4: 9}) == 1
    assert fastest({1: 10, 2: 12, 4: 16, 8: 24}) == 8


def test_a_gpu_is_filled_but_for_a_reserve():
    # 20 of 100 stay free, the first lane takes 30, each other 10.
    assert lanes_that_fit(100, 30, 40) == 6
    assert lanes_that_fit(10, 30, 40) == 1
    assert lanes_that_fit(10**6, 30, 31) == lanes.MOST


def test_a_number_stays_and_a_plan_without_one_takes_a_usual_one():
    given = spec(lanes=3)
    assert with_lanes(given, None, None) is given
    assert spec(lanes="auto").most_lanes == spec().most_lanes == 16
    assert len(list(Plan(spec(lanes="auto")).packs())) == len(list(Plan(spec()).packs()))


@pytest.fixture
def made(tiny_host, tiny_continuation, tiny_task):
    return tiny_spec(
        {"a": tiny_host("t5"), "b": tiny_continuation("t5")},
        tiny_task,
        pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}],
        lanes="auto",
    )


def test_the_choice_is_one_of_those_that_were_measured(made):
    assert choose(made, resolve(made, fetch=False)) in COUNTS


def test_a_study_goes_on_with_the_lanes_that_it_was_begun_with(made, tmp_path, monkeypatch):
    facts, measured = resolve(made, fetch=False), []
    monkeypatch.setattr(lanes, "apart", lambda *_: measured.append(1) or 4)
    begun = with_lanes(made, tmp_path, facts)
    assert begun.lanes == 4
    create(tmp_path, begun.model_dump(mode="json"), facts.record(), facts.gold).close()
    monkeypatch.setattr(lanes, "apart", lambda *_: measured.append(1) or 8)
    assert with_lanes(made, tmp_path, facts) == begun
    assert measured == [1]

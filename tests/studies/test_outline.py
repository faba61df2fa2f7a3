"""What a study comes to, and how far it is."""

from __future__ import annotations

import pytest

from peftport.errors import BadInput
from peftport.studies.identity import Identity
from peftport.studies.lock import driver_lock
from peftport.studies.outline import outline, outline_text, standing, standing_text
from peftport.studies.plan import Plan
from peftport.studies.resolve import Facts
from peftport.studies.rows import Row
from peftport.studies.schema import FIGURES
from peftport.studies.store import create
from peftport.studies.ways import resolved
from peftport.studies.work import Answers
from study_specs import spec

FACTS = Facts(
    {label: {"location": f"/{label}", "fingerprint": label * 64} for label in "ab"}
    | {"c": {"location": "some/hub"}},
    {"films": {"location": "films", "fingerprint": "f" * 64}},
    {"lora": {}, "adapter": {}},
    {how: resolved(how) for how in ("copy", "gaussian")},
    unknown={"c": "on the hub"},
)


def test_an_outline_counts_what_the_specification_asks_for():
    found = outline(Plan(spec()), FACTS)
    assert found["runs"] == 48
    assert found["runs_by_condition"] == {"ported": 24, "sampled": 24}
    assert found["baseline"] == 36
    assert found["baseline_by_condition"] == {"scratch": 24, "native": 8, "host": 4}
    assert found["trajectories"] == 4 + 8 + 16  # donors, scratch with native, ported with sampled
    assert found["donors"] == 4
    assert found["trajectories_from_donors"] == 16
    assert found["donors_that_are_also_baseline"] == 0
    assert found["steps"] == (4 + 8) * 20 + 16 * 10
    # every ported and sampled run with a donor of its own, every scratch run by itself
    assert found["steps_if_nothing_were_shared"] == 48 * 20 + 16 * 15 + 8 * 15 + 8 * 20


def test_donors_that_are_baseline_too_are_counted():
    pairs = [
        {"origin": "a", "receiver": "b", "relation": "continuation"},
        {"origin": "b", "receiver": "a", "relation": "continuation"},
    ]
    found = outline(Plan(spec(pairs=pairs)), FACTS)
    assert found["donors"] == found["donors_that_are_also_baseline"] == 8


def test_an_outline_is_told_in_words():
    text = outline_text(outline(Plan(spec()), FACTS))
    assert "tiny: 48 runs (ported 24, sampled 24)" in text
    assert "baseline beside them: 36 (scratch 24, native 8, host 4)" in text
    assert "c at some/hub (no fingerprint yet: on the hub)" in text
    assert "a at /a (aaaaaaaaaaaa)" in text


@pytest.fixture
def begun(tmp_path):
    """A study of which some rows are done and one has failed."""
    made = spec()
    plan = Plan(made)
    names = Identity(plan, *FACTS.marks())
    films = {**FACTS.tasks["films"], "labels": [0], "data": {"test": {"rows": 1}}}
    facts = {"hosts": FACTS.hosts, "tasks": {"films": films}, "versions": {}}
    gold = {"films": b"\0"}
    with create(tmp_path, made.model_dump(mode="json"), facts, gold) as store:
        figures = {**dict.fromkeys(FIGURES, 0.5), "n_test": 1}
        rows = []
        for i, run in enumerate(run for run in plan.runs() if run.condition == "ported"):
            run_id, config = names.run(run)
            failed = {"error": "the loss was not finite", "log": "lanes"} if i == 3 else {}
            done = {"answers": Answers(b"\0")} if not failed else {}
            rows.append(
                Row(run_id, run.columns(), config, {} if failed else figures, **done, **failed)
            )
        store.record(rows[:10])
    return tmp_path


def test_a_standing_counts_done_failed_and_missing(begun):
    found = standing(begun)
    assert (found["planned"], found["done"], found["failed"], found["missing"]) == (84, 9, 1, 74)
    (ported,) = (row for row in found["conditions"] if row["condition"] == "ported")
    assert ported == {"condition": "ported", "planned": 24, "done": 9, "failed": 1, "missing": 14}
    assert found["driver"] is None
    (failure,) = found["failures"]
    assert failure["error"] == "the loss was not finite"


def test_a_standing_is_told_in_words_with_reasons_and_the_driver(begun):
    with driver_lock(begun):
        text = standing_text(standing(begun))
    assert "9 of 84 runs done, 1 failed, 74 missing" in text
    assert "1 failed: the loss was not finite" in text
    assert "is running it" in text
    assert "is running it" not in standing_text(standing(begun))


def test_a_folder_without_a_study_has_no_standing(tmp_path):
    with pytest.raises(BadInput, match="holds no study"):
        standing(tmp_path)

"""Plans: how many runs, which trajectories they share, and how they are packed."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from itertools import groupby

from hypothesis import given, settings
from hypothesis import strategies as st

from peftport.studies.plan import Plan, runs_of
from peftport.studies.spec import Spec
from study_specs import spec

CONDITIONS = ["ported", "sampled", "scratch", "native", "host"]


@st.composite
def specs(draw) -> Spec:
    """Grids of hosts h0.. and tasks t0.., with any conditions and rates."""
    hosts = [f"h{i}" for i in range(draw(st.integers(2, 4)))]
    tasks = [f"t{i}" for i in range(draw(st.integers(1, 3)))]
    pairs = draw(
        st.lists(
            st.tuples(st.sampled_from(hosts), st.sampled_from(hosts)),
            min_size=1,
            max_size=5,
            unique=True,
        )
    )
    pick = st.tuples(st.sampled_from(tasks), st.sampled_from(tasks))
    rates = st.one_of(
        st.just(0.1),
        st.fixed_dictionaries(
            {r: st.sampled_from([0.1, 0.2]) for r in ("donor", "native", "scratch")}
        ).map(lambda some: {**some, "ported": 0.1, "sampled": 0.1}),
    )
    techniques = draw(
        st.lists(st.sampled_from(["lora", "adapter", "prefix"]), min_size=1, unique=True)
    )
    return spec(
        techniques={name: {} for name in techniques},
        pairs=[
            {"origin": a, "receiver": b, "relation": "same" if a == b else "continuation"}
            for a, b in pairs
        ],
        settings=[
            {"origin_task": a, "task": b}
            for a, b in draw(st.lists(pick, min_size=1, max_size=4, unique=True))
        ],
        conditions=draw(st.lists(st.sampled_from(CONDITIONS), min_size=1, unique=True)),
        controls=draw(st.lists(st.sampled_from(["gaussian", "permuted"]), min_size=1, unique=True)),
        budgets=draw(st.lists(st.integers(0, 20), min_size=1, max_size=4, unique=True)),
        seeds=draw(st.integers(1, 4)),
        donor_steps=draw(st.integers(1, 20)),
        native_steps=draw(st.integers(1, 20)),
        training={"learning_rates": {name: draw(rates) for name in techniques}},
        lanes=draw(st.integers(1, 7)),
    )


@given(specs())
def test_counts_are_the_products_of_the_factors(made):
    expected = {
        "ported": len(made.techniques) * len(made.pairs) * len(made.settings) * len(made.methods),
        "sampled": len(made.techniques) * len(made.pairs) * len(made.settings) * len(made.controls),
    }
    received = {(p.receiver, s.task) for p in made.pairs for s in made.settings}
    expected["scratch"] = len(made.techniques) * len(received)
    expected["native"] = len(made.techniques) * len(received)
    expected["host"] = len(received)
    reads = dict.fromkeys(("ported", "sampled", "scratch"), len(made.budgets))
    assert Plan(made).count() == {
        condition: expected[condition] * reads.get(condition, 1) * len(made.seeds)
        for condition in made.conditions
    }


@given(specs())
def test_every_run_is_enumerated_once_and_counted(made):
    plan = Plan(made)
    rows = [tuple(run.columns().values()) for run in plan.runs()]
    assert len(set(rows)) == len(rows) == sum(plan.count().values())
    by_condition = Counter(run.condition for run in plan.runs())
    assert {c: by_condition[c] for c in made.conditions} == plan.count()


@given(specs())
def test_every_ported_or_sampled_trajectory_has_a_donor_that_the_plan_trains(made):
    plan = Plan(made)
    donors = set(plan.donors())
    for lane in plan.trajectories():
        if lane.arm.needs_donor:
            donor = plan.donor_of(lane)
            assert donor in donors
            assert donor.seed == lane.seed
            assert (donor.arm.host, donor.arm.task) == (lane.arm.origin, lane.arm.origin_task)
            assert (made.donor_steps, "donor") in donor.arm.reads
            assert donor.arm.learning_rate == made.learning_rate(
                lane.arm.technique, "donor", lane.arm.origin
            )


@given(specs())
def test_packs_hold_every_trajectory_once_and_only_what_can_train_together(made):
    plan = Plan(made)
    packs = list(plan.packs())
    lanes = [lane for pack in packs for lane in pack.lanes]
    assert Counter(lanes) == Counter(plan.trajectories())
    assert [pack.number for pack in packs] == list(range(len(packs)))
    for pack in packs:
        assert 1 <= len(pack.lanes) <= made.lanes
        shared = {
            (a.host, a.technique, a.task, a.budgets, a.gives_donor)
            for a in (lane.arm for lane in pack.lanes)
        }
        assert len(shared) == 1
    waiting = [p.number for p in packs if any(lane.arm.needs_donor for lane in p.lanes)]
    assert all(p.number < min(waiting) for p in packs if p.gives_donors and waiting)


@given(specs())
def test_trajectories_of_one_donor_follow_each_other(made):
    plan = Plan(made)
    received: dict[tuple[str, ...], list] = {}
    for pack in plan.packs():
        for lane in pack.lanes:
            if lane.arm.needs_donor:
                place = (lane.arm.host, lane.arm.technique, lane.arm.task)
                received.setdefault(place, []).append(plan.donor_of(lane))
    for donors in received.values():
        together = [donor for donor, _ in groupby(donors)]
        assert len(together) == len(set(donors))


@given(specs())
def test_no_trajectory_is_trained_twice(made):
    trained = [
        (a.technique, a.host, a.task, a.learning_rate)
        for a in Plan(made).arms
        if a.kind == "scratch"
    ]
    assert len(set(trained)) == len(trained)


@given(specs())
@settings(max_examples=30)
def test_sharing_never_costs_steps(made):
    plan = Plan(made)
    assert plan.steps() <= plan.steps_alone()


def test_budgets_donor_and_native_share_one_trajectory_where_rates_agree():
    made = spec(pairs=[{"origin": "a", "receiver": "a", "relation": "same"}])
    arms = [arm for arm in Plan(made).arms if arm.kind == "scratch" and arm.technique == "lora"]
    (arm,) = arms
    assert arm.reads == (
        (0, "scratch"),
        (5, "scratch"),
        (10, "scratch"),
        (20, "donor"),
        (20, "native"),
    )


def test_trajectories_part_where_rates_differ():
    rates = {"donor": 0.1, "native": 0.1, "scratch": 0.3, "ported": 0.4, "sampled": 0.5}
    made = spec(
        pairs=[{"origin": "a", "receiver": "a", "relation": "same"}],
        techniques={"lora": {}},
        training={"learning_rates": {"lora": rates}},
    )
    reads = {arm.learning_rate: arm.reads for arm in Plan(made).arms if arm.kind == "scratch"}
    assert reads[0.1] == ((20, "donor"), (20, "native"))
    assert reads[0.3] == ((0, "scratch"), (5, "scratch"), (10, "scratch"))


def test_a_donor_serves_both_conditions_all_pairs_and_all_tasks_that_receive_it():
    made = spec(
        techniques={"lora": {}},
        settings=[
            {"origin_task": "films", "task": "films"},
            {"origin_task": "films", "task": "food"},
        ],
    )
    plan = Plan(made)
    served = Counter(plan.donor_of(lane) for lane in plan.trajectories() if lane.arm.needs_donor)
    assert len(served) == len(made.seeds)
    assert set(served.values()) == {2 * 2 * 2}  # conditions, pairs, settings


def test_a_pair_can_have_methods_and_controls_of_its_own():
    like = {"origin": "a", "receiver": "b", "relation": "independent", "methods": ["copy", "x"]}
    unlike = {"origin": "a", "receiver": "c", "relation": "independent"}
    plan = Plan(spec(pairs=[like, {**unlike, "methods": ["x"], "controls": []}]))
    found = {(r.arm.host, r.condition, r.arm.how) for r in plan.runs() if r.arm.needs_donor}
    assert found == {
        ("b", "ported", "copy"),
        ("b", "ported", "x"),
        ("b", "sampled", "gaussian"),
        ("c", "ported", "x"),
    }
    assert sum(plan.count().values()) == sum(1 for _ in plan.runs())


def test_a_pair_without_any_method_or_control_trains_no_donor():
    pair = {"origin": "a", "receiver": "b", "relation": "independent"}
    other = {"origin": "b", "receiver": "a", "relation": "independent"}
    plan = Plan(spec(pairs=[pair, {**other, "methods": [], "controls": []}]))
    assert {lane.arm.host for lane in plan.donors()} == {"a"}
    assert {r.arm.host for r in plan.runs() if r.condition == "native"} == {"a", "b"}


def test_a_row_says_what_belongs_to_its_condition():
    rows = {run.condition: run.columns() for run in Plan(spec()).runs()}
    assert rows["ported"]["method"] == "copy"
    assert rows["ported"]["control"] == ""
    assert rows["sampled"]["method"] == ""
    assert rows["sampled"]["control"] == "gaussian"
    for condition in ("scratch", "native", "host"):
        assert rows[condition]["origin"] == rows[condition]["origin_task"] == ""
        assert rows[condition]["relation"] == ""
    assert rows["host"]["technique"] == ""
    assert rows["host"]["budget"] == 0
    assert rows["native"]["budget"] == 20


def test_runs_of_a_trajectory_leave_out_what_is_only_kept():
    lanes = [lane for lane in Plan(spec()).trajectories() if lane.arm.gives_donor]
    assert lanes
    for lane in lanes:
        assert "donor" not in {run.condition for run in runs_of(lane)}


MILLION = """
import resource
from peftport.memory import resident_peak
from peftport.studies.plan import Plan
from peftport.studies.identity import Identity
from peftport.studies.spec import parse_spec
hosts = [f"h{i}" for i in range(50)]
spec = parse_spec({
    "name": "million",
    "techniques": {"lora": {}, "adapter": {}, "prefix": {}, "compacter": {}},
    "pairs": [
        {"origin": a, "receiver": b, "relation": "independent"}
        for i, a in enumerate(hosts) for b in hosts[i + 1:i + 22]
    ],
    "settings": [{"origin_task": f"t{i}", "task": f"t{j}"} for i in range(3) for j in range(3)],
    "conditions": ["ported", "sampled"],
    "budgets": [0, 10, 30], "seeds": 6, "donor_steps": 30,
    "training": {
        "precision": "fp32",
        "learning_rates": {n: 0.1 for n in ("lora", "adapter", "prefix", "compacter")},
    },
}, "million")
plan = Plan(spec)
count = sum(plan.count().values())
assert count >= 10 ** 6, count
assert sum(1 for _ in plan.runs()) == count
assert sum(len(pack.lanes) for pack in plan.packs()) == sum(1 for _ in plan.trajectories())
ways = {"copy": [], "gaussian": []}
same = {name: name for name in [*hosts, "t0", "t1", "t2"]}
Identity(plan, same, same, {name: {} for name in spec.techniques}, {}, ways).check_unique()
print(resident_peak(), resource.getrusage(resource.RUSAGE_SELF).ru_utime)
"""


def test_a_million_runs_are_planned_and_named_within_a_minute_and_two_gigabytes():
    done = subprocess.run(
        [sys.executable, "-c", MILLION], capture_output=True, text=True, timeout=150, check=True
    )
    peak, seconds = map(float, done.stdout.split())
    assert peak < 2 * 1024**3
    assert seconds < 60

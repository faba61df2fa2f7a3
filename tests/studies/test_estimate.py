"""What a study takes: counted from a measurement, and held against a study that was run."""

from __future__ import annotations

import sys
import time

import numpy as np
import pytest

from peftport.metrics import measure
from peftport.studies import measure as measure_module
from peftport.studies.estimate import disk, estimate_study, port_seconds, seconds
from peftport.studies.measure import Bench, Measurement, Pace, geometry_key, measure_costs
from peftport.studies.plan import Plan
from peftport.studies.resolve import Facts, resolve
from peftport.studies.spec import Spec
from peftport.tasks import load_task
from study_specs import tiny_spec
from tiny_words import write_opinions

PAIR = {"origin": "a", "receiver": "b", "relation": "continuation"}


@pytest.fixture
def made(tiny_host, tiny_continuation, tiny_task):
    def make(more: dict | None = None, **changes) -> tuple[Spec, Facts]:
        hosts = {"a": tiny_host("t5"), "b": tiny_continuation("t5"), **(more or {})}
        spec = tiny_spec(hosts, tiny_task, **{"pairs": [PAIR], **changes})
        return spec, resolve(spec, fetch=False)

    return make


def measured(facts: Facts, train: float = 1.0, test: float = 0.0) -> Measurement:
    """As if every token took so long, and every row had ten of them."""
    keys = {geometry_key(host) for host in facts.hosts.values()}
    names = ("", *facts.techniques)
    return Measurement(
        {(key, name): Pace(train, test) for key in keys for name in names},
        {(key, task): (10.0, 10.0) for key in keys for task in facts.tasks},
        5e8,
        0.0,
        1,
        "cpu",
        3.0,
    )


def test_training_time_is_that_of_all_steps_of_all_lanes(made):
    spec, facts = made()
    assert seconds(Plan(spec), facts, measured(facts)) == Plan(spec).steps() * 8 * 10.0


def test_testing_time_is_that_of_all_rows_of_all_runs_and_of_each_bare_host_once(made):
    spec, facts = made()
    runs = sum(n for condition, n in Plan(spec).count().items() if condition != "host")
    rows = 48 + 96  # of the test split, and training texts for the correction
    assert seconds(Plan(spec), facts, measured(facts, 0.0, 1.0)) == (runs + 1) * rows * 10.0


def test_ports_that_look_at_hosts_are_counted_once_for_each_donor_of_a_pack(made):
    lora = {"techniques": {"lora": {}}, "controls": ["gaussian of subspace"]}
    spec, facts = made(methods=["copy", "subspace"], **lora)
    copies = made(methods=["copy"], controls=["gaussian"], techniques={"lora": {}})[0]
    assert port_seconds(Plan(copies), facts) == 0
    donors = len(spec.settings) * len(spec.seeds)
    taken = port_seconds(Plan(spec), facts)
    assert 3 * donors < taken < 30 * donors  # each imports the libraries
    apart = made(methods=["copy", "subspace"], lanes=1, **lora)[0]
    assert port_seconds(Plan(apart), facts) == pytest.approx(2 * taken)


def test_a_native_module_that_is_a_donor_too_is_trained_and_tested_once(made):
    spec, facts = made(pairs=[PAIR, {**PAIR, "origin": "b", "receiver": "a"}])
    plan = Plan(spec)
    assert seconds(plan, facts, measured(facts)) == plan.steps() * 8 * 10.0


def test_the_disk_is_that_of_a_store_that_is_done(made, tmp_path):
    from peftport.studies.executors.local import LocalExecutor
    from peftport.studies.run import run_study

    spec, facts = made(budgets=[0, 2], donor_steps=3, native_steps=3, seeds=8)
    run_study(spec, tmp_path, LocalExecutor(1, threads=1))
    taken = sum(path.stat().st_size for path in tmp_path.glob("study.sqlite*"))
    assert disk(Plan(spec), facts) == pytest.approx(taken, rel=0.15)


def test_the_disk_grows_with_the_test_as_what_is_kept_of_a_test_does(made, tmp_path):
    def taken(rows: int) -> tuple[int, int, int]:
        task = write_opinions(tmp_path / str(rows), {"train": 96, "test": rows})
        spec, facts = made(tasks={"films": str(task)})
        scores = np.zeros((rows, 2))
        kept = facts.kind.pack(measure(scores, np.zeros(rows, int), np.zeros((96, 2))))
        one = sum(map(len, (kept.predictions, kept.scores, kept.unlabelled)))
        return disk(Plan(spec), facts), one, sum(Plan(spec).count().values())

    (small, little, _), (large, much, runs) = taken(10), taken(10_000)
    assert large - small == pytest.approx((much - little) * runs, rel=0.01)


def test_a_measurement_covers_every_technique_on_every_geometry_once(made, tiny_host):
    spec, facts = made(
        {"c": tiny_host("llama")},
        pairs=[PAIR, {"origin": "c", "receiver": "c", "relation": "same"}],
    )
    said: list[str] = []
    found = measure_costs(Plan(spec), facts, said.append)
    assert len(said) == 2 * 2
    keys = {geometry_key(host) for host in facts.hosts.values()}
    assert set(found.paces) == {(key, name) for key in keys for name in ("", "lora", "adapter")}
    for (_, name), pace in found.paces.items():
        assert 0 < pace.test < 1
        assert (0 < pace.train < 1) == bool(name)
    assert all(1 < train < 129 and 1 < test < 129 for train, test in found.tokens.values())
    assert found.memory > 10**8
    record = estimate_study(Plan(spec), facts, found)
    assert 0 < record["seconds"] < 3600
    assert record["device"] in ("cpu", "cuda")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone forgets a process's peak")
def test_each_technique_s_memory_is_its_own_whatever_was_measured_before(made, monkeypatch):
    spec, facts = made()
    tasks = {n: load_task(t["location"], limit_test=8) for n, t in facts.tasks.items()}
    bench = Bench(Plan(spec), facts.hosts["b"]["location"], tasks)
    takes = {"lora": 2**28, "adapter": 2**24}

    def train(name, options, lanes):
        bytearray(b"1") * takes[name]
        return 0.1, {}

    monkeypatch.setattr(bench, "train", train)
    monkeypatch.setattr(bench, "test", lambda *_: 0.1)
    (_, large, _), (_, small, _) = (
        bench.pace(name, facts.techniques[name], 4) for name in ("lora", "adapter")
    )
    assert large - small > 2**27


def test_what_others_do_on_the_machine_is_not_measured(made, monkeypatch):
    spec, facts = made()
    tasks = {n: load_task(t["location"], limit_test=8) for n, t in facts.tasks.items()}
    bench = Bench(Plan(spec), facts.hosts["b"]["location"], tasks)
    train, test = measure_module.trajectory, measure_module.evaluate

    def disturbed(*given, **named):
        for reading in train(*given, **named):
            time.sleep(2.0)
            yield reading

    monkeypatch.setattr(measure_module, "trajectory", disturbed)
    monkeypatch.setattr(measure_module, "evaluate", lambda *it: time.sleep(2.0) or test(*it))
    steps, _ = bench.train("lora", facts.techniques["lora"], 1)
    assert steps < 0.6
    assert bench.bare() < 0.25 / bench.tokens()["films"][1]

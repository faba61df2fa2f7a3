"""The driver: order, donors, failures and what is committed together. No torch."""

from __future__ import annotations

from collections import deque
from threading import Event as Flag

import pytest

from peftport.studies.driver import TRIES, Driver
from peftport.studies.identity import Identity
from peftport.studies.plan import Plan
from peftport.studies.progress import Silent
from peftport.studies.resolve import Facts
from peftport.studies.schedule import Schedule
from peftport.studies.store import create, open_store
from peftport.studies.ways import resolved
from peftport.studies.work import (
    Answers,
    Broken,
    Finished,
    Kept,
    LaneResult,
    Lost,
    PackReading,
    Work,
)
from study_specs import spec

HOSTS = {label: {"location": f"/{label}", "fingerprint": label, "tokenizer": ""} for label in "abc"}
TASKS = {"films": {"location": "/films", "fingerprint": "films"}}
WAYS = {how: resolved(how) for how in ("copy", "gaussian")}


class Scripted:
    """An executor that works at once, and faults where it is told to.

    Args:
        fault: (work, budget) -> None, "lane:N" (that lane fails), "lost", "broken" or "stop".
    """

    def __init__(self, fault=lambda work, budget: None, slots: int = 2) -> None:
        self.fault, self.slots = fault, slots
        self.queue: deque[Work] = deque()
        self.taken: list[Work] = []
        self.flag = Flag()

    def warm(self) -> None: ...

    def free(self) -> int:
        return self.slots - len(self.queue)

    def submit(self, work: Work) -> None:
        self.queue.append(work)
        self.taken.append(work)

    def poll(self, seconds: float):
        work = self.queue.popleft()
        for budget in work.budgets:
            fault = self.fault(work, budget) or ""
            if fault == "lost":
                yield Lost(work.number, "the worker process was killed")
                return
            if fault == "broken":
                yield Broken(work.number, "ValueError: no", "Traceback")
                return
            if fault == "stop":
                self.flag.set()
                return
            dead = int(fault.removeprefix("lane:")) if fault else None
            yield PackReading(work.number, budget, self.lanes(work, budget, dead))
        yield Finished(work.number)

    def lanes(self, work: Work, budget: int, dead: int | None) -> tuple[LaneResult, ...]:
        found = []
        for lane in sorted({*work.tests.get(budget, ()), *work.keeps.get(budget, ())}):
            start = work.starts[lane]
            if start.error or lane == dead:
                found.append(LaneResult(lane, error=start.error or "the loss was not finite"))
                continue
            kept = (
                Kept("{}", work.technique.encode()) if lane in work.keeps.get(budget, ()) else None
            )
            tested = lane in work.tests.get(budget, ())
            figures = {"n_test": 1, "accuracy": 0.5} if tested else {}
            found.append(LaneResult(lane, figures, Answers(b"\0") if tested else None, kept))
        return tuple(found)

    def stop(self) -> None: ...


class Bench:
    """A study in a folder, driven again and again."""

    def __init__(self, folder, made=None) -> None:
        self.plan = Plan(made or spec())
        self.facts = Facts(HOSTS, TASKS, {"lora": {}, "adapter": {}}, WAYS)
        self.identity = Identity(self.plan, *self.facts.marks())
        self.folder = folder
        create(folder, {"name": "tiny"}, {}, {}).close()

    def drive(self, executor: Scripted, retry: bool = False) -> Driver:
        with open_store(self.folder) as store:
            schedule = Schedule(
                self.plan, self.identity, store.statuses(), store.donor_statuses(), retry
            )
            driver = Driver(self.plan, self.facts, self.identity, store, schedule, executor)
            driver.drive(executor.flag, Silent())
            assert schedule.cost_left == 0 or executor.flag.is_set()
            return driver

    def rows(self) -> list[dict]:
        with open_store(self.folder) as store:
            return list(store.rows())

    def failed(self) -> list[dict]:
        return [row for row in self.rows() if row["status"] == "failed"]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def test_every_run_is_recorded_once(bench):
    driver = bench.drive(Scripted())
    assert driver.recorded == len(bench.rows()) == 84
    assert {row["status"] for row in bench.rows()} == {"done"}
    with open_store(bench.folder) as store:
        assert set(store.statuses()) == {bench.identity.run(run)[0] for run in bench.plan.runs()}


def test_what_is_done_is_not_done_again(bench):
    bench.drive(Scripted())
    again = Scripted()
    assert bench.drive(again).recorded == 0
    assert again.taken == []


def test_donors_come_before_what_rests_on_them(bench):
    executor = Scripted()
    bench.drive(executor)
    starts = [start for work in executor.taken for start in work.starts]
    ported = [start for start in starts if start.kind in ("ported", "sampled")]
    assert ported
    assert all(start.donor and start.donor.tensors for start in ported)
    assert all(start.donor is None for start in starts if start not in ported)


def test_a_ported_lane_gets_the_donor_of_its_own_technique(bench):
    executor = Scripted()
    bench.drive(executor)
    for work in executor.taken:
        for start in work.starts:
            assert start.donor is None or start.donor.tensors == work.technique.encode()


def test_a_lane_that_fails_fails_alone_and_says_where_it_was(bench):
    bench.drive(
        Scripted(
            lambda work, budget: (
                "lane:1"
                if budget >= 5
                and work.host == "/b"
                and work.technique == "lora"
                and not work.starts[0].donor
                else None
            )
        )
    )
    failed = bench.failed()
    assert {(r["condition"], r["budget"]) for r in failed} == {
        ("scratch", 5),
        ("scratch", 10),
        ("native", 20),
    }
    assert {r["seed"] for r in failed} == {1}
    assert {r["error"] for r in failed} == {"the loss was not finite"}
    with open_store(bench.folder) as store:
        logs = {failure["log"] for failure in store.failures()}
    assert logs == {
        "lora on b, task films; lanes: scratch, seed 0, learning rate 0.01; "
        "scratch, seed 1, learning rate 0.01"
    }
    assert len(bench.rows()) == 84


def lora_donor(work: Work, budget: int) -> bool:
    return work.technique == "lora" and budget in work.keeps and bool(work.keeps[budget])


def test_what_rests_on_a_failed_donor_fails_and_names_it(bench):
    bench.drive(Scripted(lambda work, budget: "lane:0" if lora_donor(work, budget) else None))
    failed = bench.failed()
    assert len(failed) == 2 * 2 * 3  # pairs, conditions, budgets; of one seed
    assert {r["condition"] for r in failed} == {"ported", "sampled"}
    assert {r["error"] for r in failed} == {
        "its donor failed (lora on a, task films, seed 0): the loss was not finite"
    }
    assert len(bench.rows()) == 84


def test_retrying_does_failed_donors_and_their_runs_again_and_nothing_else(bench):
    bench.drive(Scripted(lambda work, budget: "lane:0" if lora_donor(work, budget) else None))
    assert bench.drive(Scripted()).recorded == 0
    again = Scripted()
    assert bench.drive(again, retry=True).recorded == 12
    assert not bench.failed()
    assert {work.technique for work in again.taken} == {"lora"}
    assert all(work.host in ("/a", "/b", "/c") for work in again.taken)
    assert bench.drive(Scripted(), retry=True).recorded == 0


def test_a_pack_whose_worker_dies_is_done_again_from_where_it_was_read(bench):
    deaths = []

    def fault(work, budget):
        hit = work.host == "/b" and budget == 10 and len(deaths) < TRIES - 1
        if hit and {work.number} >= {death.number for death in deaths}:
            deaths.append(work)
            return "lost"
        return None

    executor = Scripted(fault)
    bench.drive(executor)
    assert len(bench.rows()) == 84
    assert not bench.failed()
    again = [work for work in executor.taken if work.number == deaths[0].number]
    assert [work.budgets[0] for work in again] == [0, 10, 10]


def test_a_pack_that_kills_every_worker_is_given_up_with_its_reason(bench):
    executor = Scripted(
        lambda work, budget: "lost" if work.technique == "lora" and work.host == "/a" else None
    )
    bench.drive(executor)
    assert sum(work.host == "/a" and work.technique == "lora" for work in executor.taken) == TRIES
    errors = {row["error"] for row in bench.failed()}
    reason = f"the worker process was killed; tried {TRIES} times"
    assert errors == {
        f"its donor failed (lora on a, task films, seed {s}): {reason}" for s in (0, 1)
    }
    assert len(bench.rows()) == 84


def test_a_broken_pack_is_recorded_with_its_log_and_not_tried_again(bench):
    executor = Scripted(lambda work, budget: "broken" if not work.technique else None)
    bench.drive(executor)
    failed = bench.failed()
    assert {r["condition"] for r in failed} == {"host"}
    assert {r["error"] for r in failed} == {"ValueError: no"}
    with open_store(bench.folder) as store:
        assert {failure["log"] for failure in store.failures()} == {"Traceback"}
    assert sum(not work.technique for work in executor.taken) == 2


def test_readings_that_came_before_a_pack_broke_stay(bench):
    bench.drive(Scripted(lambda work, budget: "broken" if budget == 10 else None))
    done = {(r["condition"], r["budget"]) for r in bench.rows() if r["status"] == "done"}
    assert {budget for _, budget in done} == {0, 5}
    assert len(bench.rows()) == 84


@pytest.mark.parametrize("after", range(0, 32, 3))
def test_a_study_that_is_stopped_anywhere_goes_on_to_the_same_rows(tmp_path, after):
    readings = []

    def fault(work, budget):
        readings.append(budget)
        return "stop" if len(readings) > after else None

    bench = Bench(tmp_path)
    stopped = bench.drive(Scripted(fault)).recorded
    assert stopped < 84
    assert stopped + bench.drive(Scripted()).recorded == 84


def test_a_pack_is_composed_the_same_whatever_was_done_of_it(tmp_path):
    """Lanes are never left out because they are done: sums over lanes keep their order."""
    whole, part = Scripted(), Scripted()
    (tmp_path / "whole").mkdir()
    Bench(tmp_path / "whole").drive(whole)
    readings = []

    def fault(work, budget):
        readings.append(budget)
        return "stop" if len(readings) > 7 else None

    (tmp_path / "part").mkdir()
    bench = Bench(tmp_path / "part")
    bench.drive(Scripted(fault))
    bench.drive(part)
    composed = {work.number: work for work in whole.taken}
    assert part.taken
    for work in part.taken:
        full = composed[work.number]
        assert work.starts == full.starts
        assert set(work.budgets) <= set(full.budgets)
        assert all(work.tests[b] == full.tests[b] for b in work.budgets)
        assert all(work.keeps[b] == full.keeps[b] for b in work.budgets)


def test_a_pack_knows_where_its_host_and_task_are_and_what_they_were(bench):
    executor = Scripted()
    bench.drive(executor)
    work = next(w for w in executor.taken if w.host_name == "b" and w.technique == "lora")
    assert (work.host, work.host_mark) == ("/b", "b")
    assert (work.task, work.task_name, work.task_mark) == ("/films", "films", "films")
    assert work.training == {"batch_size": 16, "warmup": 5, "clip": 1.0, "weight_decay": 0.0}

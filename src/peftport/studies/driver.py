"""The loop of a study: hands packs to an executor, and commits what comes back.

Only the driver writes the store.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Event as Flag

from peftport.studies.identity import Identity
from peftport.studies.plan import Plan, Run, Trajectory, runs_of
from peftport.studies.progress import Progress, State
from peftport.studies.resolve import Facts
from peftport.studies.rows import Donor, Row
from peftport.studies.schedule import Job, Schedule
from peftport.studies.store import Store
from peftport.studies.work import (
    Broken,
    Event,
    Executor,
    Finished,
    LaneResult,
    LaneStart,
    Lost,
    PackReading,
    Work,
)

TRIES = 3
"""How many workers may die of a pack before its runs are given up."""

_PATIENCE = 0.2


class Driver:
    """Drives the jobs of a schedule through an executor.

    Attributes:
        recorded: runs that were committed by this driver.
        seconds: time that `drive` took.
    """

    def __init__(
        self,
        plan: Plan,
        facts: Facts,
        identity: Identity,
        store: Store,
        schedule: Schedule,
        executor: Executor,
    ) -> None:
        self._plan, self._facts, self._identity = plan, facts, identity
        self._store, self._schedule, self._executor = store, schedule, executor
        self._jobs: dict[int, Job] = {}
        self._status = store.statuses()
        self._failed = sum(status == "failed" for status in self._status.values())
        self._total = sum(plan.count().values())
        self._begun = time.monotonic()
        self._cost = schedule.cost_left
        self.recorded = 0

    @property
    def seconds(self) -> float:
        """Time since the driver was made."""
        return time.monotonic() - self._begun

    def drive(self, stop: Flag, progress: Progress) -> None:
        """Work until nothing is left, or until `stop` is set."""
        self._store.begin_sitting()
        progress.show(self._state())
        while not stop.is_set() and (self._jobs or self._schedule):
            while self._schedule and self._executor.free() and not stop.is_set():
                self._start(self._schedule.take())
            for event in self._executor.poll(_PATIENCE):
                self._handle(event)
            progress.show(self._state())
        progress.end(self._state())

    def _start(self, job: Job) -> None:
        job.tries += 1
        self._jobs[job.pack.number] = job
        self._executor.submit(self._work(job))

    def _handle(self, event: Event) -> None:
        job = self._jobs.get(event.number)
        if job is None:
            return  # what a worker still said of a pack that was given up
        match event:
            case PackReading():
                self._commit(job, event.budget, event.lanes)
            case Finished():
                self._finish(job)
            case Broken():
                self._give_up(job, event.error, event.log)
            case Lost():
                if job.tries < TRIES:
                    del self._jobs[job.pack.number]
                    self._schedule.put_back(job)
                else:
                    self._give_up(job, f"{event.reason}; tried {TRIES} times", "")

    def _finish(self, job: Job) -> None:
        del self._jobs[job.pack.number]
        self._schedule.finished(job)

    def _give_up(self, job: Job, error: str, log: str) -> None:
        """Record what is left of a pack as failed."""
        for budget in list(job.budgets):
            lanes = tuple(LaneResult(i, error=error) for i in range(len(job.pack.lanes)))
            self._commit(job, budget, lanes, log)
        self._finish(job)

    def _commit(self, job: Job, budget: int, results: Iterable[LaneResult], log: str = "") -> None:
        """Record one reading: all rows and donors that it gives, in one transaction."""
        rows, donors = [], []
        for result in results:
            trajectory = job.pack.lanes[result.lane]
            rows += [
                self._row(run, result, log or _log_of(job))
                for run in runs_of(trajectory)
                if run.budget == budget
            ]
            if (budget, "donor") in trajectory.arm.reads:
                donors.append(self._donor(trajectory, budget, result))
        rows = [row for row in rows if self._status.get(row.run_id) != "done"]
        self._store.record(rows, donors)
        for row in rows:
            self._failed += (row.status == "failed") - (row.run_id in self._status)
            self._status[row.run_id] = row.status
        self.recorded += len(rows)
        job.budgets.remove(budget)
        for donor in donors:
            self._schedule.donor_known(donor.donor_id)

    def _row(self, run: Run, result: LaneResult, log: str) -> Row:
        run_id, config = self._identity.run(run)
        if result.error:
            return Row(run_id, run.columns(), config, {}, error=result.error, log=log)
        return Row(run_id, run.columns(), config, result.figures, result.answers)

    def _donor(self, trajectory: Trajectory, budget: int, result: LaneResult) -> Donor:
        donor_id, config = self._identity.donor(trajectory)
        arm = trajectory.arm
        return Donor(
            donor_id,
            arm.technique,
            arm.host,
            arm.task,
            budget,
            trajectory.seed,
            config,
            result.module,
            result.error,
        )

    def _work(self, job: Job) -> Work:
        arm, spec = job.pack.arm, self._plan.spec
        host, task = self._facts.hosts[arm.host], self._facts.tasks[arm.task]
        tests: dict[int, list[int]] = {budget: [] for budget in job.budgets}
        keeps: dict[int, list[int]] = {budget: [] for budget in job.budgets}
        for lane, trajectory in enumerate(job.pack.lanes):
            for budget, condition in trajectory.arm.reads:
                lanes = (keeps if condition == "donor" else tests).get(budget)
                if lanes is not None and lane not in lanes:
                    lanes.append(lane)
        return Work(
            number=job.pack.number,
            host=host["location"],
            host_name=arm.host,
            host_mark=host["fingerprint"],
            tokenizer=host["tokenizer"],
            task=task["location"],
            task_name=arm.task,
            task_mark=task["fingerprint"],
            technique=arm.technique,
            options=self._facts.techniques.get(arm.technique, {}),
            training=spec.training.settings(),
            limit_train=spec.limit_train,
            split=spec.split,
            limit_test=spec.limit_test,
            texts=self._facts.texts,
            budgets=tuple(job.budgets),
            starts=tuple(self._lane(trajectory) for trajectory in job.pack.lanes),
            tests={budget: tuple(lanes) for budget, lanes in tests.items()},
            keeps={budget: tuple(lanes) for budget, lanes in keeps.items()},
            asked=spec.asked,
        )

    def _lane(self, trajectory: Trajectory) -> LaneStart:
        arm = trajectory.arm
        if not arm.needs_donor:
            return LaneStart(arm.kind, trajectory.seed, arm.learning_rate)
        kept, error = self._store.donor(self._identity.donor(self._plan.donor_of(trajectory))[0])
        if kept is None:
            error = (
                f"its donor failed ({arm.technique} on {arm.origin}, task {arm.origin_task}, seed "
                f"{trajectory.seed}): {error}"
            )
        origin = self._facts.hosts[arm.origin]["location"]
        return LaneStart(arm.kind, trajectory.seed, arm.learning_rate, arm.how, kept, error, origin)

    def _state(self) -> State:
        return State(
            total=self._total,
            known=len(self._status),
            failed=self._failed,
            recorded=self.recorded,
            seconds=self.seconds,
            left=self._schedule.cost_left / self._cost if self._cost else 0.0,
        )


def _log_of(job: Job) -> str:
    """Where a lane that failed was: what else its worker did at the time."""
    arm, lanes = job.pack.arm, job.pack.lanes
    beside = "; ".join(
        f"{lane.arm.kind}{f' {lane.arm.how}' if lane.arm.how else ''}, seed {lane.seed}, "
        f"learning rate {lane.arm.learning_rate:g}"
        for lane in lanes
    )
    return f"{arm.technique or 'bare host'} on {arm.host}, task {arm.task}; lanes: {beside}"

"""Which packs are still to be done, in which order, and what they wait for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from peftport.studies.identity import Identity
from peftport.studies.plan import Pack, Plan, runs_of


@dataclass
class Job:
    """A pack with what is missing of it.

    Attributes:
        budgets: where something is missing, in ascending order.
        waits_for: donors (ids) that must be known before it can start.
        tries: how many workers have begun it.
    """

    pack: Pack
    budgets: list[int]
    waits_for: set[str] = field(default_factory=set)
    tries: int = 0


class Schedule:
    """The jobs of a study.

    Args:
        statuses, donor_statuses: what the store knows, id -> "done" or "failed".
        retry_failed: do what has failed again.
    """

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        statuses: Mapping[str, str],
        donor_statuses: Mapping[str, str],
        retry_failed: bool = False,
    ) -> None:
        settled = ("done",) if retry_failed else ("done", "failed")
        self._plan, self._identity = plan, identity
        self._runs = {key for key, status in statuses.items() if status in settled}
        self._donors = {key for key, status in donor_statuses.items() if status in settled}
        self._waiting: dict[str, list[Job]] = {}
        self._ready: list[Job] = []
        self.cost_left = 0
        for pack in plan.packs():
            self._add(pack)
        self._sort()

    def __bool__(self) -> bool:
        """Whether a job is ready to start."""
        return bool(self._ready)

    def take(self) -> Job:
        """The job to start next."""
        return self._ready.pop()

    def jobs(self) -> tuple[list[Job], list[Job]]:
        """All jobs: those that are ready, in the order in which they are taken, and those that
        wait."""
        waiting = {job.pack.number: job for jobs in self._waiting.values() for job in jobs}
        return self._ready[::-1], list(waiting.values())

    def put_back(self, job: Job) -> None:
        """Start a job again before all others."""
        self._ready.append(job)

    def donor_known(self, donor_id: str) -> None:
        """Let go what waited for a donor, whether it was made or failed."""
        freed = False
        for job in self._waiting.pop(donor_id, ()):
            job.waits_for.discard(donor_id)
            if not job.waits_for:
                self._ready.append(job)
                freed = True
        if freed:
            self._sort()

    def finished(self, job: Job) -> None:
        """Count a job as done with."""
        self.cost_left -= job.pack.cost

    def _add(self, pack: Pack) -> None:
        job = Job(pack, sorted(self._missing(pack)))
        if not job.budgets:
            return
        self.cost_left += pack.cost
        for lane in pack.lanes:
            if lane.arm.needs_donor:
                donor_id, _ = self._identity.donor(self._plan.donor_of(lane))
                if donor_id not in self._donors and donor_id not in job.waits_for:
                    job.waits_for.add(donor_id)
                    self._waiting.setdefault(donor_id, []).append(job)
        if not job.waits_for:
            self._ready.append(job)

    def _missing(self, pack: Pack) -> set[int]:
        missing = set()
        for lane in pack.lanes:
            for run in runs_of(lane):
                if self._identity.run(run)[0] not in self._runs:
                    missing.add(run.budget)
            for budget, condition in lane.arm.reads:
                if condition == "donor" and self._identity.donor(lane)[0] not in self._donors:
                    missing.add(budget)
        return missing

    def _sort(self) -> None:
        """Donors first, because others wait for them, then the longest; taken from the end."""
        self._ready.sort(key=lambda job: (job.pack.gives_donors, job.pack.cost))

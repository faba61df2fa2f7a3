"""From a specification to runs, the trajectories that they share, and packs of lanes.

A plan keeps arms, which are few, and makes trajectories and runs from them when they are asked for:
a grid of a million runs is counted in seconds and in little memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

from peftport.studies.spec import Spec

BASELINE = ("scratch", "native", "host")
"""Conditions that belong to a receiving host and a task, whatever is ported there."""


@dataclass(frozen=True, slots=True)
class Arm:
    """The trajectories that differ in their seed alone.

    Attributes:
        kind: how the module starts: "scratch", "ported", "sampled"; "host" has no module.
        host, task: where and on what it is trained and tested.
        reads: (budget, condition) in ascending order: the rows that are read off it, and with
            the condition "donor" where its module is kept for porting.
        how: the port method of a "ported" arm, the sampling of a "sampled" one.
        origin, origin_task, relation: of the donor, for "ported" and "sampled".
    """

    kind: str
    technique: str
    host: str
    task: str
    learning_rate: float
    reads: tuple[tuple[int, str], ...]
    how: str = ""
    origin: str = ""
    origin_task: str = ""
    relation: str = ""

    @property
    def steps(self) -> int:
        """Training steps of one trajectory."""
        return self.reads[-1][0]

    @property
    def budgets(self) -> tuple[int, ...]:
        """Where a trajectory is read, each budget once."""
        return tuple(sorted({budget for budget, _ in self.reads}))

    @property
    def needs_donor(self) -> bool:
        """Whether it starts from another arm's module."""
        return self.kind in ("ported", "sampled")

    @property
    def gives_donor(self) -> bool:
        """Whether its module is kept for porting."""
        return any(condition == "donor" for _, condition in self.reads)


class Trajectory(NamedTuple):
    """One training, named by its arm and its seed."""

    arm: Arm
    seed: int


class Run(NamedTuple):
    """One row of the study: a trajectory tested at a budget."""

    arm: Arm
    seed: int
    budget: int
    condition: str

    def columns(self) -> dict[str, str | int]:
        """What the row says before it is run, in the order of the row."""
        arm = self.arm
        return {
            "technique": arm.technique,
            "condition": self.condition,
            "method": arm.how if self.condition == "ported" else "",
            "control": arm.how if self.condition == "sampled" else "",
            "origin": arm.origin,
            "receiver": arm.host,
            "relation": arm.relation,
            "origin_task": arm.origin_task,
            "task": arm.task,
            "budget": self.budget,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Pack:
    """Trajectories that one worker trains side by side, a lane each.

    All share host, technique, task and budgets; seeds, learning rates and starts are a lane's own.
    """

    number: int
    lanes: tuple[Trajectory, ...]

    @property
    def arm(self) -> Arm:
        """An arm that stands for what all lanes share."""
        return self.lanes[0].arm

    @property
    def gives_donors(self) -> bool:
        """Whether a module of it is kept for porting."""
        return any(lane.arm.gives_donor for lane in self.lanes)

    @property
    def cost(self) -> int:
        """Steps times lanes, and one for every test: for order and progress, not for time."""
        return sum(lane.arm.steps + 20 * len(lane.arm.budgets) for lane in self.lanes)


class Plan:
    """The arms of a specification, and what follows from them."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.arms: tuple[Arm, ...] = (*_scratch_arms(spec), *_ported_arms(spec), *_host_arms(spec))

    @cached_property
    def _donor_arms(self) -> dict[tuple[str, str, str], Arm]:
        return {(arm.technique, arm.host, arm.task): arm for arm in self.arms if arm.gives_donor}

    def donor_of(self, lane: Trajectory) -> Trajectory:
        """The trajectory whose module a ported or sampled trajectory starts from."""
        arm = lane.arm
        return Trajectory(self._donor_arms[arm.technique, arm.origin, arm.origin_task], lane.seed)

    def donors(self) -> Iterator[Trajectory]:
        """Every trajectory whose module is kept."""
        for arm in self._donor_arms.values():
            yield from self.trajectories([arm])

    def trajectories(self, arms: Iterable[Arm] | None = None) -> Iterator[Trajectory]:
        """Every trajectory (of `arms`), one after the other."""
        for arm in self.arms if arms is None else arms:
            for seed in self.spec.seeds:
                yield Trajectory(arm, seed)

    def runs(self) -> Iterator[Run]:
        """Every run of the study, one after the other."""
        for lane in self.trajectories():
            yield from runs_of(lane)

    def packs(self) -> Iterator[Pack]:
        """Every trajectory in exactly one pack of at most `spec.most_lanes`; donors come first.

        The packs depend on the specification alone, never on what is done already: a study that
        was interrupted repeats the very computation that it lost. Those whose modules are ported
        are apart from the others, which may wait for them. Those that start from one donor follow
        each other: what its port takes is then taken once.
        """
        groups: dict[tuple[object, ...], list[Arm]] = {}
        for arm in sorted(self.arms, key=lambda arm: not arm.gives_donor):
            key = (arm.gives_donor, arm.host, arm.technique, arm.task, arm.budgets)
            groups.setdefault(key, []).append(arm)
        number = 0
        for arms in groups.values():
            lanes = sorted(self.trajectories(arms), key=_of_donor)
            for part in _even_parts(lanes, self.spec.most_lanes):
                yield Pack(number, part)
                number += 1

    def count(self) -> dict[str, int]:
        """Runs by condition."""
        per_seed: Counter[str] = Counter()
        for arm in self.arms:
            per_seed.update(condition for _, condition in arm.reads if condition != "donor")
        return {c: per_seed[c] * len(self.spec.seeds) for c in self.spec.conditions}

    def steps(self) -> int:
        """Training steps of all trajectories, a lane counted for itself."""
        return sum(arm.steps for arm in self.arms) * len(self.spec.seeds)

    def steps_alone(self) -> int:
        """Training steps if every run, and the donor of every ported or sampled run, were trained
        by itself."""
        total = 0
        for arm in self.arms:
            donor = (self.spec.donor_steps or 0) if arm.needs_donor else 0
            total += sum(budget + donor for budget, condition in arm.reads if condition != "donor")
        return total * len(self.spec.seeds)


def runs_of(lane: Trajectory) -> Iterator[Run]:
    """The rows that are read off a trajectory."""
    for budget, condition in lane.arm.reads:
        if condition != "donor":
            yield Run(lane.arm, lane.seed, budget, condition)


def _scratch_arms(spec: Spec) -> Iterator[Arm]:
    """From-scratch arms: the baseline's, native ones, and donors, one arm where they coincide."""
    reads: dict[tuple[str, str, str, float], set[tuple[int, str]]] = {}

    def read(technique: str, host: str, task: str, role: str, budgets: Iterable[int]) -> None:
        key = (technique, host, task, spec.learning_rate(technique, role, host))
        reads.setdefault(key, set()).update((budget, role) for budget in budgets)

    roles = spec.roles()
    for technique, pair, setting in product(spec.techniques, spec.pairs, spec.settings):
        if spec.donor_steps and spec.ways(pair):
            read(technique, pair.origin, setting.origin_task, "donor", [spec.donor_steps])
        if "scratch" in roles:
            read(technique, pair.receiver, setting.task, "scratch", spec.budgets)
        if "native" in roles and spec.native_steps:
            read(technique, pair.receiver, setting.task, "native", [spec.native_steps])
    for (technique, host, task, rate), found in reads.items():
        yield Arm("scratch", technique, host, task, rate, tuple(sorted(found)))


def _ported_arms(spec: Spec) -> Iterator[Arm]:
    for technique, pair, setting in product(spec.techniques, spec.pairs, spec.settings):
        for kind, how in spec.ways(pair):
            yield Arm(
                kind,
                technique,
                pair.receiver,
                setting.task,
                spec.learning_rate(technique, kind, pair.receiver),
                tuple((budget, kind) for budget in spec.budgets),
                how,
                pair.origin,
                setting.origin_task,
                pair.relation,
            )


def _host_arms(spec: Spec) -> Iterator[Arm]:
    if "host" in spec.conditions:
        places = dict.fromkeys((p.receiver, s.task) for p in spec.pairs for s in spec.settings)
        for host, task in places:
            yield Arm("host", "", host, task, 0.0, ((0, "host"),))


def _of_donor(lane: Trajectory) -> tuple[str, str, int]:
    """What brings trajectories of one donor together, and leaves the others in their order."""
    return lane.arm.origin, lane.arm.origin_task, lane.seed if lane.arm.needs_donor else 0


def _even_parts(lanes: Sequence[Trajectory], most: int) -> Iterator[tuple[Trajectory, ...]]:
    """Cut `lanes` into the fewest parts of at most `most`, as equal as can be."""
    parts = -(-len(lanes) // most)
    for i in range(parts):
        yield tuple(lanes[i * len(lanes) // parts : (i + 1) * len(lanes) // parts])

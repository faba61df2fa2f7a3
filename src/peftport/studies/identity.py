"""A run's whole resolved configuration, and the name that follows from it.

What a figure depends on is in it, hosts by the fingerprint of their weights and tasks by that of
their rows; what it does not depend on is not: the study's name, where hosts and data lie, the
executor, and which lanes were trained side by side. A metric of one's own (`scorer`) is not either:
a study has one for all its rows (`going_on`).
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from peftport.errors import BadInput
from peftport.studies.plan import Arm, Plan, Run, Trajectory

FORMAT = 1
"""Raised when the same configuration would no longer give the same figures."""


class Identity:
    """Names runs and donors.

    Args:
        plan: the study.
        hosts, tasks: label -> fingerprint.
        configs: technique -> its configuration with every default filled in.
        texts: port method -> the hash of the texts that it looks at.
        ways: how modules are received -> what that computes (`peftport.studies.ways.resolved`).
    """

    def __init__(
        self,
        plan: Plan,
        hosts: Mapping[str, str],
        tasks: Mapping[str, str],
        configs: Mapping[str, Mapping[str, Any]],
        texts: Mapping[str, str],
        ways: Mapping[str, Any],
    ) -> None:
        self._plan = plan
        self._hosts, self._tasks, self._configs = hosts, tasks, configs
        self._texts, self._ways = texts, ways
        self._shared: dict[int, _Shared] = {}

    def run(self, run: Run) -> tuple[str, str]:
        """A run's id and its configuration, of which the id is the hash."""
        return _named(self._of_arm(run.arm).run(run.budget, run.condition, run.seed))

    def donor(self, lane: Trajectory) -> tuple[str, str]:
        """The id and configuration of the module that a trajectory gives as a donor."""
        steps = self._plan.spec.donor_steps
        return _named(self._of_arm(lane.arm).donor(steps, lane.seed))

    def check_unique(self) -> None:
        """Raise BadInput when two runs of the study are the same run by other names."""
        seen: set[str] = set()
        for run in self._plan.runs():
            run_id, _ = self.run(run)
            if run_id in seen:
                first = next(other for other in self._plan.runs() if self.run(other)[0] == run_id)
                raise BadInput(_same(first, run))
            seen.add(run_id)

    def _of_arm(self, arm: Arm) -> _Shared:
        # By identity, which is quicker than a hash of all fields; held, so that none is reused.
        found = self._shared.get(id(arm))
        if found is None:
            found = self._shared[id(arm)] = _Shared(arm, self._resolve(arm))
        return found

    def _resolve(self, arm: Arm) -> dict[str, Any]:
        spec = self._plan.spec
        found: dict[str, Any] = {
            "format": FORMAT,
            "receiver": self._hosts[arm.host],
            "task": self._tasks[arm.task],
            "limit_test": spec.limit_test,
        }
        if spec.split != "test":
            found["split"] = spec.split
        training = spec.training.settings()
        if arm.kind == "host":
            return found | {key: training[key] for key in ("precision",) if key in training}
        found |= {
            "technique": arm.technique,
            "options": dict(self._configs[arm.technique]),
            "learning_rate": arm.learning_rate,
            "training": training,
            "limit_train": spec.limit_train,
        }
        if arm.needs_donor:
            found |= {
                "how": self._ways[arm.how],
                "origin": self._hosts[arm.origin],
                "origin_task": self._tasks[arm.origin_task],
                "relation": arm.relation,
                "donor_steps": spec.donor_steps,
                "donor_learning_rate": spec.learning_rate(arm.technique, "donor", arm.origin),
            }
            if arm.how in self._texts:
                found["texts"] = self._texts[arm.how]
        return found


class _Shared:
    """The configuration that the runs of an arm share, written once: JSON with keys in order, and
    gaps where a run's own budget, condition and seed belong."""

    def __init__(self, arm: Arm, shared: Mapping[str, Any]) -> None:
        self.arm = arm
        self._shared = shared
        self._of_runs = _around_own(shared)

    def run(self, budget: int, condition: str, seed: int) -> str:
        """The configuration of a run."""
        a, b, c, d = self._of_runs
        return f'{a}{budget}{b}"{condition}"{c}{seed}{d}'

    def donor(self, budget: int | None, seed: int) -> str:
        """The configuration of a donor, which does not depend on what is tested."""
        a, b, c, d = self._of_donors
        return f'{a}{budget}{b}"donor"{c}{seed}{d}'

    @cached_property
    def _of_donors(self) -> tuple[str, str, str, str]:
        shared = self._shared
        return _around_own({key: shared[key] for key in shared if key not in _TESTED})


_TESTED = ("limit_test", "split")
_OWN = ("budget", "condition", "seed")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _around_own(shared: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """What stands before, between and after the values of `_OWN` in the JSON of both together."""
    places = [bisect(_OWN, key) for key in shared]
    parts: list[dict[str, Any]] = [{} for _ in range(4)]
    for place, key in zip(places, shared, strict=True):
        parts[place][key] = shared[key]
    a, b, c, d = (_CANONICAL.encode(part)[1:-1] if part else "" for part in parts)
    return (
        f'{{{a}{"," * bool(a)}"budget":',
        f',{b}{"," * bool(b)}"condition":',
        f',{c}{"," * bool(c)}"seed":',
        f"{',' * bool(d)}{d}}}",
    )


def id_and_text(config: Mapping[str, Any]) -> tuple[str, str]:
    """The id and the text of a whole configuration."""
    return _named(_CANONICAL.encode(config))


def _named(text: str) -> tuple[str, str]:
    return hashlib.sha256(text.encode()).hexdigest()[:32], text


def _same(first: Run, second: Run) -> str:
    a, b = first.columns(), second.columns()
    differ = ", ".join(f"{key} {a[key]!r} and {b[key]!r}" for key in a if a[key] != b[key])
    return (
        f"two runs of the study are the same run by other names: {differ}. They have the same "
        "weights or rows; keep one of them."
    )

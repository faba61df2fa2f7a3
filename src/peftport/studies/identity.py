"""A run's whole resolved configuration, and the name that follows from it.

What a figure depends on is in it, hosts by the fingerprint of their weights and tasks by that of
their rows; what it does not depend on is not: the study's name, where hosts and data lie, the
executor, and which lanes were trained side by side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
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
    """

    def __init__(
        self,
        plan: Plan,
        hosts: Mapping[str, str],
        tasks: Mapping[str, str],
        configs: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self._plan = plan
        self._hosts, self._tasks, self._configs = hosts, tasks, configs
        self._shared: dict[Arm, dict[str, Any]] = {}

    def run(self, run: Run) -> tuple[str, str]:
        """A run's id and its configuration, of which the id is the hash."""
        own = {"condition": run.condition, "budget": run.budget, "seed": run.seed}
        return _named({**self._of_arm(run.arm), **own})

    def donor(self, lane: Trajectory) -> tuple[str, str]:
        """The id and configuration of the module that a trajectory gives as a donor."""
        own = {"condition": "donor", "budget": self._plan.spec.donor_steps, "seed": lane.seed}
        config = {**self._of_arm(lane.arm), **own}
        del config["limit_test"]
        return _named(config)

    def check_unique(self) -> None:
        """Raise BadInput when two runs of the study are the same run by other names."""
        seen: dict[str, Run] = {}
        for run in self._plan.runs():
            run_id, _ = self.run(run)
            if run_id in seen:
                raise BadInput(_same(seen[run_id], run))
            seen[run_id] = run

    def _of_arm(self, arm: Arm) -> dict[str, Any]:
        if arm not in self._shared:
            self._shared[arm] = self._resolve(arm)
        return self._shared[arm]

    def _resolve(self, arm: Arm) -> dict[str, Any]:
        spec = self._plan.spec
        found: dict[str, Any] = {
            "format": FORMAT,
            "receiver": self._hosts[arm.host],
            "task": self._tasks[arm.task],
            "limit_test": spec.limit_test,
        }
        if arm.kind == "host":
            return found
        training = spec.training.model_dump(exclude={"learning_rates"})
        found |= {
            "technique": arm.technique,
            "options": dict(self._configs[arm.technique]),
            "learning_rate": arm.learning_rate,
            "training": training,
            "limit_train": spec.limit_train,
        }
        if arm.needs_donor:
            found |= {
                "how": arm.how,
                "origin": self._hosts[arm.origin],
                "origin_task": self._tasks[arm.origin_task],
                "relation": arm.relation,
                "donor_steps": spec.donor_steps,
                "donor_learning_rate": spec.learning_rate(arm.technique, "donor"),
            }
        return found


def _named(config: Mapping[str, Any]) -> tuple[str, str]:
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32], text


def _same(first: Run, second: Run) -> str:
    a, b = first.columns(), second.columns()
    differ = ", ".join(f"{key} {a[key]!r} and {b[key]!r}" for key in a if a[key] != b[key])
    return (
        f"two runs of the study are the same run by other names: {differ}. They have the same "
        "weights or rows; keep one of them."
    )

"""Whether a study's workers fit into this machine's memory, asked before anything is trained.

It is refused where what the workers surely hold at once is more than there is. What they take is
more than that (`peftport.studies.held`): where it may be too much, a notice says so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftport.errors import BadInput
from peftport.studies.identity import Identity
from peftport.studies.plan import Pack, Plan
from peftport.studies.resolve import Facts
from peftport.studies.schedule import Schedule
from peftport.studies.spec import Spec
from peftport.studies.store import is_study, read_store

if TYPE_CHECKING:
    from peftport.studies.held import Held, Holding, Longest

_log = logging.getLogger(__name__)

_KEPT = 3
"""Hosts that a worker keeps in memory, the last ones that it loaded (`starts.load_once`)."""
_LIBRARIES, _SPREAD = 450e6, 1.5
"""Bytes of a worker that has loaded nothing yet; and what is taken beside what is surely held, most
of it freed memory in which nothing fits: by what two workers took that were measured."""


def require_memory(
    plan: Plan, facts: Facts, identity: Identity, folder: Path, workers: int, again: bool
) -> None:
    """Refuse a study that so many workers have no memory for on this machine.

    On a GPU nothing is refused: what a pack holds is there.

    Args:
        folder: of the store; what is done already takes no memory.
        again: whether what has failed is done again.

    Raises:
        BadInput: it does not fit; the message names what makes it fit.
    """
    from peftport.porting.estimate import gigabytes, memory_at_hand
    from peftport.studies.held import as_drawn, at_most

    free = memory_at_hand()
    if free is None or workers * _all_of(plan, facts, at_most(facts)).usual <= free or _on_gpu():
        return
    drawn = as_drawn(plan.spec, facts)
    packs = _left_of(plan, facts, drawn, identity, folder, again)
    if not packs.found or workers * packs.usual <= free:
        return
    least = packs.at_once(workers)
    fix = _fix(packs, workers, free, None if is_study(folder) else plan.spec, facts, drawn)
    many = f"{workers} workers" if workers > 1 else "a worker"
    if least <= free:
        _log.warning(
            "notice: %s may take %s of memory, and %s are free. If the system ends one for it: %s",
            *(many, gigabytes(workers * packs.usual), gigabytes(free), fix),
        )
        return
    raise BadInput(
        f"study {plan.spec.name} needs {gigabytes(least)} of memory at the least with {many}, and "
        f"{gigabytes(free)} are free. {packs.told(plan.spec)} {fix} With --ignore-memory it is "
        "tried all the same."
    )


@dataclass(frozen=True)
class _Packs:
    """What packs hold.

    found: each with the host that it is worked on with, those that are begun first first. ready:
    how many can be begun before any is done.
    """

    found: tuple[tuple[str, Held], ...]
    ready: int
    holding: Holding

    def at_once(self, workers: int) -> float:
        """Bytes that so many workers surely hold at once, at the highest.

        Those of the largest pack; or the hosts of packs that are begun together, of which one is at
        its highest, for nobody knows whether others are then; or all hosts that one worker keeps.
        """
        each = [held for _, held in self.found]
        begun = each[: min(workers, self.ready)]
        together = sum(held.host for held in begun) + max((h.beside for h in begun), default=0.0)
        kept = sum(self._hosts[:_KEPT]) + min(held.beside for held in each)
        return max(together, *(held.whole for held in each), kept if workers == 1 else 0.0)

    @property
    def usual(self) -> float:
        """Bytes that a worker may take."""
        beside = max((held.beside for _, held in self.found), default=0.0)
        return _LIBRARIES + _SPREAD * (sum(self._hosts[-_KEPT:]) + beside)

    @property
    def _hosts(self) -> list[float]:
        """Bytes of every host that is loaded, in rising order."""
        keys = frozenset[tuple[str, str]]().union(*(held.loads for _, held in self.found))
        return sorted(map(self.holding.of_host, keys))

    def told(self, spec: Spec) -> str:
        """What the largest one holds, in words."""
        from peftport.porting.estimate import gigabytes

        label, held = max(self.found, key=lambda pair: pair[1].whole)
        size = spec.training.batch_size
        rows = f"{held.lanes} lanes of {size} rows" if held.lanes else "what it loads"
        return (
            f"On {label} a worker holds {gigabytes(held.host)} of the host and "
            f"{gigabytes(held.beside)} for {rows}, and it keeps the hosts that it had before."
        )


def _all_of(plan: Plan, facts: Facts, longest: Longest) -> _Packs:
    """What all packs of a plan hold, in no order."""
    return _packs(plan, facts, longest, ((pack, pack.arm.steps) for pack in plan.packs()), 0)


def _left_of(
    plan: Plan, facts: Facts, longest: Longest, identity: Identity, folder: Path, again: bool
) -> _Packs:
    """What those hold of which something is missing."""
    statuses: tuple[dict[str, str], dict[str, str]] = {}, {}
    if is_study(folder):
        with read_store(folder) as store:
            statuses = store.statuses(), store.donor_statuses()
    ready, waiting = Schedule(plan, identity, *statuses, again).jobs()
    jobs = ((job.pack, job.budgets[-1]) for job in [*ready, *waiting])
    return _packs(plan, facts, longest, jobs, len(ready))


def _packs(
    plan: Plan, facts: Facts, longest: Longest, packs: Iterable[tuple[Pack, int]], ready: int
) -> _Packs:
    from peftport.studies.held import Holding

    holding = Holding(plan, facts, longest)
    found = ((pack.arm.host, holding.of_pack(pack, steps)) for pack, steps in packs)
    return _Packs(tuple(found), ready, holding)


def _fix(
    packs: _Packs, workers: int, free: float, spec: Spec | None, facts: Facts, longest: Longest
) -> str:
    """What makes a study fit: fewer workers, or else less at a time.

    Args:
        spec: of a study that is not begun yet, which alone can be changed.
    """
    fewer = range(workers - 1, 0, -1)
    if count := next((count for count in fewer if count * packs.usual <= free), 0):
        return f"--workers {count} fits."
    for setting, smaller in () if spec is None else _smaller(spec):
        if _all_of(Plan(smaller), facts, longest).usual <= free:
            return f"{'--workers 1 with ' * (workers > 1)}{setting} fits."
    if count := next((count for count in fewer if packs.at_once(count) <= free), 0):
        return f"--workers {count} may fit."
    return "No option makes it fit on this machine; take smaller hosts."


def _smaller(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """The study with fewer lanes, and then with fewer rows in a batch too: as it is set, and the
    specification."""
    lanes, rows = spec.most_lanes, spec.training.batch_size
    while lanes > 1:
        lanes //= 2
        yield f"--set lanes={lanes}", spec.model_copy(update={"lanes": lanes})
    while rows > 1:
        rows //= 2
        training = spec.training.model_copy(update={"batch_size": rows})
        changed = spec.model_copy(update={"lanes": lanes, "training": training})
        yield f"--set lanes={lanes} --set training.batch_size={rows}", changed


def _on_gpu() -> bool:
    import torch  # which the techniques have brought already

    return torch.cuda.is_available()

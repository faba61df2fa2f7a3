"""What the driver of a study and its workers say to each other. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from peftport.kept import Answers


@dataclass(frozen=True)
class Kept:
    """A donor's module: its record as JSON, its tensors in safetensors' format, and its scores of
    its own task's unlabelled texts (see `peftport.kept`), where there are any."""

    record: str
    tensors: bytes
    answers: bytes | None = None


@dataclass(frozen=True)
class Texts:
    """Unlabelled texts for port methods: `count` of those at `location`, with the hash `mark`."""

    location: str
    count: int
    mark: str


@dataclass(frozen=True)
class LaneStart:
    """How one lane starts: from `donor` for the kinds "ported" and "sampled", or, when there is
    none because it failed, not at all: `error` says why.

    origin: where the donor's host lies.
    """

    kind: str
    seed: int
    learning_rate: float
    how: str = ""
    donor: Kept | None = None
    error: str = ""
    origin: str = ""


@dataclass(frozen=True)
class Work:
    """One pack for a worker, with everything that it needs to know.

    Attributes:
        number: the pack's.
        host, task: where they lie; `host_name` and `task_name` are the study's names for them.
        host_mark, task_mark: the fingerprints that the study was planned with.
        tokenizer: what names the host's tokenizer that the study was planned with.
        texts: for port methods, where the study has some.
        starts: the lanes.
        split: where lanes are tested; `limit_test` limits its rows.
        tests: budget -> the lanes that are tested there.
        keeps: budget -> the lanes whose module is sent back there.
        budgets: where the trajectories are read, in ascending order.
        asked: what the study says of its tasks beside where they lie (`Spec.asked`).
    """

    number: int
    host: str
    host_name: str
    host_mark: str
    tokenizer: str
    task: str
    task_name: str
    task_mark: str
    technique: str
    options: Mapping[str, Any]
    training: Mapping[str, Any]
    limit_train: int | None
    split: str
    limit_test: int | None
    budgets: tuple[int, ...]
    texts: Texts | None
    starts: tuple[LaneStart, ...]
    tests: Mapping[int, tuple[int, ...]]
    keeps: Mapping[int, tuple[int, ...]]
    asked: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class LaneResult:
    """What one lane gave at one budget; `error` says why it gave nothing."""

    lane: int
    figures: Mapping[str, float | int | None] = field(default_factory=dict)
    answers: Answers | None = None
    module: Kept | None = None
    error: str = ""


@dataclass(frozen=True)
class PackReading:
    """A pack read at one budget: the rows and donors that are committed together."""

    number: int
    budget: int
    lanes: tuple[LaneResult, ...]


@dataclass(frozen=True)
class Finished:
    """A pack has given its last reading."""

    number: int


@dataclass(frozen=True)
class Broken:
    """A pack stopped with an error of its own: trying again would end the same way."""

    number: int
    error: str
    log: str


@dataclass(frozen=True)
class Lost:
    """The worker of a pack is gone; the pack can be tried again."""

    number: int
    reason: str


Event = PackReading | Finished | Broken | Lost


class Executor(Protocol):
    """Carries packs to where they are worked on, and what they give back.

    Registered by name in `peftport.studies.executors`. One whose workers share this machine's
    memory says in `workers` how many there are at most; others need not.
    """

    def warm(self) -> None:
        """Begin to prepare, while the driver prepares too."""

    def free(self) -> int:
        """How many packs it would take now."""

    def submit(self, work: Work) -> None:
        """Take a pack; what becomes of it comes out of `poll`."""

    def poll(self, seconds: float) -> Iterator[Event]:
        """What has happened; waits for at most so long when nothing has."""

    def stop(self) -> None:
        """End all work at once; nothing more comes out of `poll`."""

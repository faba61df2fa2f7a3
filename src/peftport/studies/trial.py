"""Modules of any kind side by side on one host for one task: trained, and tested on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from peftport.metrics import Evaluation
from peftport.tasks import encode, encode_unlabelled
from peftport.techniques import technique
from peftport.techniques.base import Parameters, stack_lanes, stacking_key
from peftport.techniques.embeddings import embeddings_among, replaced, without_embeddings
from peftport.techniques.head import Pooling, initial_head
from peftport.training import Readout, TrainingSettings, evaluate, readout_of, trajectory

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded, Task

_MOST = 16
"""Lanes side by side: more of them save no time."""


@dataclass(frozen=True)
class Lane:
    """One row's condition, and where it starts: a technique's tensors, or why there are none."""

    condition: str
    how: str
    seed: int
    technique: str = ""
    config: Any = None
    start: Parameters = field(default_factory=dict, repr=False)
    error: str = ""

    @property
    def name(self) -> str:
        """What learning rates are chosen for: the method, the sampling or the condition."""
        return self.how or self.condition


@dataclass(frozen=True)
class Found:
    """One tested module: an evaluation, or why there is none."""

    lane: Lane
    budget: int
    evaluation: Evaluation | None
    seconds: float
    error: str = ""


@dataclass
class Trial:
    """A host and a task, with how everything is trained.

    progress: told what is done next.
    """

    host: Host
    task: Task
    settings: TrainingSettings
    progress: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        self.readout: Readout = readout_of(self.host, self.task)

    def train(
        self,
        lanes: list[Lane],
        budgets: Sequence[int],
        rates: Mapping[str, float],
        split: Encoded | None = None,
    ) -> Iterator[Found]:
        """Train lanes side by side as far as they are alike, and test them at the budgets.

        Args:
            rates: learning rates by the lanes' names.
            split: to test on; the test split if not given.
        """
        split = split or self.encoded("test")
        for lane in lanes:
            if lane.error:
                yield from (Found(lane, budget, None, 0.0, lane.error) for budget in budgets)
        for group in _alike([lane for lane in lanes if not lane.error]):
            brought = embeddings_among(group[0].start)
            with replaced(self.host, group[0].config, brought):
                found = list(self._side_by_side(group, budgets, rates, split))
            yield from found

    def _side_by_side(
        self, group: list[Lane], budgets: Sequence[int], rates: Mapping[str, float], split: Encoded
    ) -> Iterator[Found]:
        """Train lanes that are alike; of the embeddings that they bring along none is trained."""
        made, config = technique(group[0].technique), group[0].config
        named = Counter(lane.name for lane in group)
        whom = ", ".join(f"{count} {name}" for name, count in named.items())
        for reading in trajectory(
            self.host,
            made,
            config,
            stack_lanes([without_embeddings(lane.start) for lane in group]),
            self.encoded("train"),
            self.readout,
            settings=self.settings,
            budgets=budgets,
            learning_rates=[rates[lane.name] for lane in group],
            seeds=[lane.seed for lane in group],
        ):
            trained = f"{reading.budget} of {max(budgets)} steps; " if max(budgets) else ""
            self.progress(f"{trained}testing {whom}")
            tested = evaluate(
                self.host,
                made,
                config,
                reading.parameters,
                split,
                self.readout,
                self.unlabelled,
            )
            seconds = reading.seconds / len(group)
            for lane, evaluation, failure in zip(group, tested, reading.failures, strict=True):
                error = failure or ("" if evaluation else "its scores are not finite")
                yield Found(lane, reading.budget, None if error else evaluation, seconds, error)

    def bare(self, seeds: Sequence[int], pooling: Pooling) -> Iterator[Found]:
        """The host without a module; an encoder's head is then a fresh one of each seed."""
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            classes = self.readout.classes
            head = initial_head(self.host.geometry, classes, generator, pooling)
            tested = self.without_module(head)
            error = "" if tested else "its scores are not finite"
            yield Found(Lane("host", "", seed), 0, tested, 0.0, error)

    def without_module(self, head: Parameters) -> Evaluation | None:
        """The host with a head and nothing else; None when its scores are not finite."""
        lanes, split = stack_lanes([head]), self.encoded("test")
        texts = self.unlabelled
        (tested,) = evaluate(self.host, None, None, lanes, split, self.readout, texts)
        return tested

    @cached_property
    def unlabelled(self) -> Encoded | None:
        """The texts of the label-free correction as the host reads them."""
        return encode_unlabelled(self.host.tokenizer, self.task, self.host.geometry.kind)

    @property
    def corrected_on(self) -> int:
        """How many unlabelled texts the correction rests on."""
        return 0 if self.unlabelled is None else len(self.unlabelled)

    def encoded(self, split: str) -> Encoded:
        """A split as the host reads it."""
        if split not in self._encoded:
            host = self.host
            self._encoded[split] = encode(host.tokenizer, self.task, split, host.geometry.kind)
        return self._encoded[split]

    @cached_property
    def _encoded(self) -> dict[str, Encoded]:
        return {}


def _alike(lanes: list[Lane]) -> Iterator[list[Lane]]:
    """Lanes of equal technique, configuration and shapes, which can train side by side; one that
    brings embeddings along by itself, for a host has those of one module at a time."""
    groups: dict[str, list[Lane]] = {}
    for lane in lanes:
        groups.setdefault(stacking_key(lane.technique, lane.config, lane.start), []).append(lane)
    for group in groups.values():
        most = 1 if embeddings_among(group[0].start) else _MOST
        yield from (group[at : at + most] for at in range(0, len(group), most))

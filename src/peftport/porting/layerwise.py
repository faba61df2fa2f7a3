"""A port by fitted maps, from texts to tensors: what `procrustes` and methods of its kind share.

Both hosts are run over the texts, and then gone through side by side from the last layer to the
first: the maps of a pair of layers are fitted, the module is rewritten there, and what was seen of
the pair is let go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from peftport.hosts.geometry import Geometry
from peftport.kind import USUAL, Asking
from peftport.porting.abreast import abreast
from peftport.porting.activations import Observed, Spaces, observe_scored
from peftport.porting.base import Request
from peftport.porting.estimate import is_large
from peftport.porting.finished import FinishedLayers, port_mark
from peftport.porting.fitted import Fit, FittedMaps
from peftport.porting.grades import AnswerGrade, ClassGrade, Grade
from peftport.porting.heads import head_of, last_block, map_head
from peftport.porting.layers import Pairs, layer_of
from peftport.porting.prior import class_scores, prior_offsets
from peftport.porting.reading import TokenRows, read_pair, task_of
from peftport.porting.rewriting import ByMaps, Mapped, Receiving, by_maps
from peftport.porting.walk import Layer, Walk
from peftport.progress import Portion
from peftport.tasks import Task
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.head import BIAS, WEIGHT
from peftport.training.readout import ClassReadout, class_readout
from peftport.training.teacher import Teacher

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.means import Means, Side

_log = logging.getLogger(__name__)
_Gift = TypeVar("_Gift")
_ANSWERED, _SEEN, _MAPPED = 0.06, 0.18, 0.95
"""Shares of a port that are done, about, when the donor has answered, when both hosts have run over
the texts, and when all layers are mapped."""


@dataclass(frozen=True)
class How:
    """How a method maps.

    pairs: layer of the receiving host -> that of the originating one, or None. fit: how each map
    is fitted, on so many `places`. prior: whether classes should be as frequent as the donor's.
    """

    pairs: Pairs
    fit: Fit
    places: int
    prior: bool


def map_module(
    request: Request, donor: Parameters, means: Means, how: How, generator: torch.Generator
) -> Mapped:
    """Rewrite a donor for the receiving host; a compacter becomes an adapter.

    Raises:
        BadInput: too few texts, tokenizers without a common token, or a bottleneck that is wider
            than the receiving host.
    """
    task, head = task_of(request.donor.task), head_of(donor)
    sides = (means.origin, means.receiver)
    often = by_maps(request.donor.technique).runs_hosts
    speaks = task.kind != USUAL and how.fit.uses_gradients
    answers = _own_answers(request, donor, means, task, generator) if speaks else None
    hosts = [side.load() if often else side.stream() for side in sides]
    tokenizers = [host.tokenizer for host in hosts]
    passes = _read(tokenizers, request, means, task, how.places, generator, answers, speaks)
    there, here = (
        _Run(host, rows, _readout(host, task, head), side.besides)
        for host, rows, side in zip(hosts, passes, sides, strict=True)
    )
    whole = donor | means.origin.besides
    read = [(run.host, run.passes, run.readout) for run in (there, here)]
    mark = port_mark(request, whole, read, how, generator)
    finished = FinishedLayers(means.work and means.work / mark)
    if finished.layers:
        _log.warning(
            "notice: goes on where the same port was interrupted: %d of %d layers are mapped",
            len(finished.layers),
            len(how.pairs),
        )
    if there.readout is None and there.host.geometry.kind != "encoder" and task.kind == USUAL:
        _notice(how)
    return _Port(request, donor, how, there, here, finished, means.progress).mapped()


def read_passes(
    request: Request, means: Means, task: Task, places: int, generator: torch.Generator
) -> tuple[list[TokenRows], list[TokenRows]]:
    """The texts as passes of the originating and of the receiving host."""
    from peftport.hosts.host import load_tokenizer

    sides = (means.origin, means.receiver)
    tokenizers = [load_tokenizer(side.folder, side.name) for side in sides]
    return _read(tokenizers, request, means, task, places, generator)


def scored_states(
    request: Request, means: Means, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """What the vocabularies of both bare hosts score, for the same tokens of the texts: (samples,
    width) each."""
    task, places = task_of(request.donor.task), request.options.places
    passes = read_passes(request, means, task, places, generator)
    found = []
    for side, rows in zip((means.origin, means.receiver), passes, strict=True):
        found.append(observe_scored(side.stream(), rows))
    return found[0], found[1]


def _read(
    tokenizers: Sequence[Any],
    request: Request,
    means: Means,
    task: Task,
    places: int,
    generator: torch.Generator,
    answers: Sequence[str] | None = None,
    speaks: bool = False,
) -> tuple[list[TokenRows], list[TokenRows]]:
    starts = [_start_token(side) for side in (means.origin, means.receiver)]
    return read_pair(
        (tokenizers[0], tokenizers[1]),
        (starts[0], starts[1]),
        task,
        request.receiver.kind,
        means.texts,
        places,
        generator,
        answers,
        speaks and answers is None and request.receiver.kind == "decoder",
    )


def _own_answers(
    request: Request, donor: Parameters, means: Means, task: Task, generator: torch.Generator
) -> list[str] | None:
    """What the donor answers to the texts on its own host, in place of label words."""
    means.progress(0.0, "the module's own answers")
    seed = int(torch.randint(2**31, (1,), generator=generator))
    body = technique(request.donor.technique)
    whole = donor | means.origin.besides
    teacher = Teacher(means.origin.load(), body, request.config, whole)
    return task.asks.own_answers(teacher, task, means.texts, Asking(seed=seed))


def _start_token(side: Side) -> int | None:
    from peftport.hosts.configuration import host_config
    from peftport.hosts.host import start_token

    if side.geometry.kind != "encoder-decoder":
        return None
    return start_token(host_config(side.folder, side.name))


def _readout(host: Host, task: Task, head: Parameters) -> ClassReadout | None:
    """How classes are read off a host; None where the module's label words are not known."""
    if host.geometry.kind == "encoder":
        return ClassReadout(len(head[BIAS]), None) if head else None
    if task.kind != USUAL or not task.label_words or len(task.labels) < 2:
        return None
    return class_readout(host, task)


def _notice(how: How) -> None:
    """Say what a module goes without that does not say how its classes are read."""
    without = [
        *(["the gradients of its label words"] if how.fit.uses_gradients else []),
        *(["the correction by which classes are as frequent as before"] if how.prior else []),
    ]
    if without:
        _log.warning(
            "notice: the module does not say its label words: it is ported without %s, and can "
            "lose much. Give --label-words, and --template if it was trained with one",
            " and ".join(without),
        )


@dataclass(frozen=True)
class _Run:
    """A host, the texts as its passes, how classes are read off it, and what the module has there
    besides (`means.Side`)."""

    host: Host
    passes: list[TokenRows]
    readout: ClassReadout | None
    besides: Parameters

    def walk(self, gradients: bool) -> Walk:
        """The host's run, from its last layer to its first."""
        grade: Grade | None = None
        if gradients and self.passes[0].labels is not None:
            grade = AnswerGrade()
        elif gradients and self.readout is not None:
            grade = ClassGrade(self.readout)
        return Walk(self.host, self.passes, grade)

    def scores(self, made: Mapped) -> Tensor:
        """Class scores of the texts under a module: (texts, classes)."""
        assert self.readout is not None
        body = technique(made.technique)
        whole = made.tensors | self.besides
        return class_scores(self.host, body, made.config, whole, self.passes[0], self.readout)


@dataclass(frozen=True)
class _Port:
    """One port between two hosts that are at hand."""

    request: Request
    donor: Parameters
    how: How
    there: _Run
    here: _Run
    finished: FinishedLayers
    progress: Portion

    def mapped(self) -> Mapped:
        """The donor for the receiving host."""
        request, donor = self.request, self.donor
        scores = None
        self.progress(0.0, "the module's own answers")
        if self.how.prior and self.there.readout is not None:
            own = Mapped(request.donor.technique, request.config, donor, {})
            scores = self.there.scores(own)
        whole = donor | self.there.besides
        seen = self._rewriting.seen(request, whole, self.there.host, self.there.passes[0])
        gradients = self.how.fit.uses_gradients
        self.progress(_ANSWERED, "both hosts on the texts")
        there, here = self._both([partial(run.walk, gradients) for run in (self.there, self.here)])
        head = self._head(there, here)
        receiving = Receiving(self.here.host, self.here.passes[0], self.here.besides)
        self._go_through(there, here, head, seen)
        made = self._rewriting.whole(request, self.finished.tensors, receiving)
        in_order = sorted(made.tensors.items(), key=_in_order(self._receiver))
        made = replace(made, tensors=dict(in_order) | head)
        precisions = {"origin": self.there.host.precision, "receiver": self.here.host.precision}
        made = replace(made, details={**made.details, "precision": precisions})
        return made if scores is None else self._with_prior(made, scores)

    @property
    def _rewriting(self) -> ByMaps:
        return by_maps(self.request.donor.technique)

    @property
    def _receiver(self) -> Geometry:
        return self.here.host.geometry

    def _head(self, there: Walk, here: Walk) -> Parameters:
        """The head, which reads what the last layers give."""
        donor = head_of(self.donor)
        if WEIGHT not in donor:
            return donor
        # Whatever layers are paired, a head reads what is behind the last ones.
        partner, last = last_block(self.there.host.geometry), last_block(self._receiver)
        ends = (Observed({}, {partner: there.end(partner)}), Observed({}, {last: here.end(last)}))
        maps = FittedMaps(self.how.fit, {**self.how.pairs, last: partner}, *ends)
        return map_head(donor, self._receiver, maps)

    def _go_through(self, there: Walk, here: Walk, head: Parameters, seen: Any) -> None:
        """Rewrite the module at each layer of the receiving host that is not finished, the last one
        first.

        Gradients come down through those that are finished; nothing else is seen of them.
        """
        spaces, config = self._rewriting.spaces, self.request.config
        finished = set(self.finished.layers)
        to_do = {layer: each for layer, each in self.how.pairs.items() if layer not in finished}
        served = {partner for partner in to_do.values() if partner is not None}
        wanted = spaces(config, self.there.host.geometry).within(served)
        origin = there.layers(wanted, head_of(self.donor), self._large)
        paired = {layer for layer, partner in to_do.items() if partner is not None}
        wanted = spaces(config, self._receiver).within(paired)
        receiver = here.layers(wanted, head, self._large)
        rewrite = partial(self._rewriting.layer, self.request, self.donor)
        for done, name in enumerate(here.order):
            share = _SEEN + (_MAPPED - _SEEN) * done / len(self.how.pairs)
            self.progress(share, f"layer {done + 1} of {len(self.how.pairs)}")
            goals = (origin, to_do.get(name)), (receiver, name)
            pair = self._both([partial(_gone_to, *goal) for goal in goals])
            if name in to_do:
                self.finished.put(name, rewrite(self._maps(name, pair, wanted), seen))
            del pair  # it is let go before the next one is seen

    def _both(self, jobs: Sequence[Callable[[], _Gift]]) -> list[_Gift]:
        """What is done with both hosts; of large ones one after the other, because one keeps all
        cores busy and both would take twice the memory."""
        return [job() for job in jobs] if self._large else abreast(jobs)

    @property
    def _large(self) -> bool:
        return any(map(is_large, (self.there.host.geometry, self._receiver)))

    def _maps(self, name: str, pair: list[Layer | None], wanted: Spaces) -> FittedMaps:
        """The maps from a layer's partner to the layer, those that are wanted already fitted, where
        hosts are not large."""
        (other, layer), how = pair, self.how
        if other is None or layer is None:
            nothing = Observed({}, {})
            return FittedMaps(how.fit, how.pairs, nothing, nothing, layer=name)
        slopes = {
            point: (other.gradients[source], gradient)
            for point, gradient in layer.gradients.items()
            if (source := other.name + point.removeprefix(name)) in other.gradients
        }
        seen = other.observed, layer.observed
        asides = tuple(each.aside for each in (other, layer) if each.aside is not None)
        maps = FittedMaps(how.fit, how.pairs, *seen, slopes, name, asides)
        maps.fit_all(wanted.within((name,)))
        return maps

    def _with_prior(self, made: Mapped, donor: Tensor) -> Mapped:
        """The module with its classes as frequent as the donor's on the texts."""
        if self.here.readout is None:
            return made
        self.progress(_MAPPED, "the ported module's answers")
        shift = prior_offsets(donor, self.here.scores(made))
        bias = made.tensors.get(BIAS, torch.zeros(len(shift))) + shift
        details = {"prior_offsets": [round(float(value), 4) for value in shift]}
        return replace(made, tensors=made.tensors | {BIAS: bias}, details=made.details | details)


def _gone_to(layers: Iterator[Layer], name: str | None) -> Layer | None:
    """The layer of a name, gone to through those before it; None where none is asked for."""
    return None if name is None else next(each for each in layers if each.name == name)


def _in_order(geometry: Geometry) -> Callable[[tuple[str, Tensor]], int]:
    """Sorts tensors by the order of the layers; within a layer they stay as they are."""
    places = {layer: place for place, layer in enumerate(geometry.blocks)}
    return lambda named: places[layer_of(named[0])]

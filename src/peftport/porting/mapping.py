"""A port by fitted maps, from texts to tensors: what `procrustes` and methods of its kind share.

The two hosts run one after the other; neither is in memory while the other one is.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.porting import mapped
from peftport.porting.activations import Observed, label_gradients, observe
from peftport.porting.base import Request
from peftport.porting.fitted import Fit, FittedMaps
from peftport.porting.prefixes import Target, donor_changes, fit_prefixes
from peftport.porting.prior import class_scores, offsets
from peftport.porting.reading import Rows, read_pair, task_of
from peftport.tasks import Task
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.head import BIAS
from peftport.techniques.prefix import chosen
from peftport.training.readout import Readout, readout_of

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.means import Means, Side

Pairs = Mapping[str, str | None]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PrefixFit:
    """How prefixes are fitted: steps of each attention, and the learning rate of each step."""

    steps: int
    rate: float


@dataclass(frozen=True)
class Seen:
    """What is kept of the originating host's run.

    changes: what the donor's prefixes do to the outputs of attentions. scores: the donor's class
    scores of the texts, where a prior is asked for.
    """

    observed: Observed
    gradients: dict[str, Tensor]
    changes: dict[str, Tensor]
    scores: Tensor | None


@dataclass(frozen=True)
class How:
    """How a method maps.

    pairs: layer of the receiving host -> that of the originating one, or None. fit: how each map
    is fitted, on so many `places`. prior: whether classes should be as frequent as the donor's.
    """

    pairs: Pairs
    fit: Fit
    places: int
    prefix_fit: PrefixFit
    prior: bool


@dataclass(frozen=True)
class Mapped:
    """A rewritten module: technique, configuration, tensors, and what was found on the way."""

    technique: str
    config: Any
    tensors: Parameters
    details: dict[str, Any]


def map_module(
    request: Request, donor: Parameters, means: Means, how: How, generator: torch.Generator
) -> Mapped:
    """Rewrite a donor for the receiving host; a compacter becomes an adapter.

    Raises:
        BadInput: too few texts, tokenizers without a common token, or a bottleneck that is wider
            than the receiving host.
    """
    task = task_of(request.donor.task)
    passes = read_texts(request, means, task, how.places, generator)
    there = _originate(request, donor, means.origin.load(), passes[0], task, how)
    receiving = _Receiving(request, donor, task, how, means.receiver.load(), passes[1])
    return receiving.rewrite(there)


def read_texts(
    request: Request, means: Means, task: Task, places: int, generator: torch.Generator
) -> tuple[list[Rows], list[Rows]]:
    """The texts as passes of the originating and of the receiving host."""
    from peftport.hosts.host import load_tokenizer

    sides = (means.origin, means.receiver)
    tokenizers = [load_tokenizer(side.folder, side.name) for side in sides]
    starts = [_start_token(side) for side in sides]
    kind = request.receiver.kind
    return read_pair(
        (tokenizers[0], tokenizers[1]),
        (starts[0], starts[1]),
        task,
        kind,
        means.texts,
        places,
        generator,
    )


def _start_token(side: Side) -> int | None:
    from peftport.hosts.host import start_token
    from peftport.hosts.source import config_in

    if side.geometry.kind != "encoder-decoder":
        return None
    return start_token(config_in(side.folder, side.name))


def _readout(host: Host, task: Task, head: Parameters) -> Readout | None:
    """How classes are read off a host; None where the module's label words are not known."""
    if host.geometry.kind == "encoder":
        return Readout(len(head[BIAS]), None) if head else None
    return readout_of(host, task) if task.label_words and len(task.labels) > 1 else None


def _gradients(
    host: Host,
    rows: Rows,
    points: tuple[str, ...],
    readout: Readout | None,
    head: Parameters,
    fit: Fit,
) -> dict[str, Tensor]:
    if readout is None or not fit.uses_gradients:
        return {}
    lanes = {name: tensor[None].to(host.device) for name, tensor in head.items()}
    return label_gradients(host, rows, points, readout, lanes)


def _originate(
    request: Request, donor: Parameters, host: Host, passes: list[Rows], task: Task, how: How
) -> Seen:
    """Everything that must be known of the originating host, which is let go afterwards."""
    name, config, geometry = request.donor.technique, request.config, host.geometry
    head = mapped.head_of(donor)
    wanted = mapped.spaces(name, config, geometry, bool(head))
    changes, scores = {}, None
    if name == "prefix":
        changes = donor_changes(host, passes[0], config, donor, chosen(config, geometry))
    readout = _readout(host, task, head)
    if readout is None and geometry.kind != "encoder":
        _notice(how)
    if how.prior and readout is not None:
        scores = class_scores(host, technique(name), config, donor, passes[0], readout)
    return Seen(
        observe(host, passes, wanted.inputs, wanted.outputs),
        _gradients(host, passes[0], wanted.changes, readout, head, how.fit),
        changes,
        scores,
    )


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
class _Receiving:
    """The second half of a port, on the receiving host."""

    request: Request
    donor: Parameters
    task: Task
    how: How
    host: Host
    passes: list[Rows]

    def rewrite(self, there: Seen) -> Mapped:
        """The donor for this host, given what was seen of the originating one."""
        name, config, geometry = (
            self.request.donor.technique,
            self.request.config,
            self.host.geometry,
        )
        head = mapped.head_of(self.donor)
        wanted = mapped.spaces(name, config, geometry, bool(head))
        here = observe(self.host, self.passes, wanted.inputs, wanted.outputs)
        maps = FittedMaps(self.how.fit, self.how.pairs, there.observed, here)
        made_head = mapped.map_head(head, geometry, maps)
        readout = _readout(self.host, self.task, made_head)
        slopes = _gradients(
            self.host, self.passes[0], wanted.changes, readout, made_head, self.how.fit
        )
        for point, gradient in slopes.items():
            partner = maps.partner(point)
            if partner is not None and partner in there.gradients:
                maps.gradients[point] = (there.gradients[partner], gradient)
        made = self._body(maps, there, slopes)
        made = replace(made, tensors=made.tensors | made_head)
        return made if there.scores is None else self._with_prior(made, there.scores, readout)

    def _body(self, maps: FittedMaps, there: Seen, slopes: dict[str, Tensor]) -> Mapped:
        name, config, geometry = (
            self.request.donor.technique,
            self.request.config,
            self.host.geometry,
        )
        if name == "lora":
            return Mapped(name, config, mapped.map_lora(config, self.donor, geometry, maps), {})
        if name == "prefix":
            return self._prefixes(maps, there, slopes)
        origin, dense = self.request.origin, self.donor
        adapter = mapped.as_adapter(config, origin, geometry)
        if name == "compacter":
            dense = mapped.densified(config, self.donor)
        return Mapped(
            "adapter", adapter, mapped.map_adapter(adapter, dense, geometry, maps, origin), {}
        )

    def _prefixes(self, maps: FittedMaps, there: Seen, slopes: dict[str, Tensor]) -> Mapped:
        config, host, rows = self.request.config, self.host, self.passes[0]
        points = chosen(config, host.geometry)
        start: Parameters = {}
        targets: dict[str, Target] = {}
        for name in points:
            partner, change = maps.partner(name), maps.changes(f"{name}.o")
            wanted = None
            if partner is not None and change is not None:
                wanted = there.changes[partner] @ change.mT
                for what in ("keys", "values"):
                    donor = self.donor[f"{partner}.{what}"]
                    start[f"{name}.{what}"] = maps.forward(f"{name}.{what}", donor)
            targets[name] = Target(wanted, slopes.get(f"{name}.o"))
        fit = self.how.prefix_fit
        made, missed = fit_prefixes(host, rows, config, start, points, targets, fit.steps, fit.rate)
        details = {"missed": {name: round(share, 4) for name, share in missed.items()}}
        return Mapped("prefix", config, made, details)

    def _with_prior(self, made: Mapped, donor: Tensor, readout: Readout | None) -> Mapped:
        """The module with its classes as frequent as the donor's on the texts."""
        if readout is None:
            return made
        rows = self.passes[0]
        scores = class_scores(
            self.host, technique(made.technique), made.config, made.tensors, rows, readout
        )
        shift = offsets(donor, scores)
        bias = made.tensors.get(BIAS, torch.zeros(len(shift))) + shift
        details = {"prior_offsets": [round(float(value), 4) for value in shift]}
        return replace(made, tensors=made.tensors | {BIAS: bias}, details=made.details | details)

"""Ridge: a module in closed form, which says on the receiving host what the donor says.

The donor's class scores on unlabelled texts are fitted by ridge regression on what the receiving
host's feed-forward networks hold at the place where classes are read, in several layers each by
itself. What a layer reads it writes along the gradient of the label words' scores, so that together
they say the mean of what they read. That is a change of a weight of each layer of rank 1 (or as
many as classes), which a LoRA holds: no step of training is made.

Ours. Linear probes of hidden states are Alain & Bengio 2016 (arXiv 1610.01644), writing along a
direction in a middle layer is steering (arXiv 2308.10248), the donor's answers as the aim are
distillation (arXiv 1503.02531).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field
from torch import Tensor

from peftport.hosts.precision import bf16_is_fast
from peftport.porting.account import Account, Entry
from peftport.porting.activations import MOST, contrasts_of, observe
from peftport.porting.answers import donor_scores, no_classes
from peftport.porting.base import Made, MethodOptions, PortMethod, Request
from peftport.porting.estimate import CostEstimate, Load, estimated, loaded, weights_of
from peftport.porting.reading import TokenRows, rows_of_task, task_of
from peftport.porting.regression import LinearProbe, fit_reading
from peftport.porting.rewriting import by_factors, of_low_rank
from peftport.porting.walk import label_gradients
from peftport.progress import Portion
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.training.readout import ClassReadout, class_logits, class_readout

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.means import Means

PLACE = "ffn.down"
"""The linear layer whose weight is changed: it reads a feed-forward network's inner states."""

MUCH = 0.8
"""Share of the donor's variance beyond which a port should be tested before it is used. Ports
between language models that missed 0.5 to 0.7 were as good as native modules; of those that missed
0.8 some were, and some kept nothing."""
_WORSE = 1.1
"""What a layer that is read misses at most, in multiples of what the best one does: the first
layers of shallow hosts know little."""
_LEAST = 0.1
"""Of what a sweep asks of the scores, by how much they have to move for another sweep: what is
missed is divided by it."""
_log = logging.getLogger(__name__)


class RidgeOptions(MethodOptions):
    """Where the donor's scores are read off the receiving host, and how."""

    readings: int = Field(
        8,
        ge=1,
        description="layers that are read at most, those that read best; they say their mean",
    )
    layer: int | None = Field(
        None, ge=0, description="of the receiving host, to read this one and no other"
    )
    sweeps: int = Field(2, ge=1, description="how often what is still missed is fitted again")
    slopes: int = Field(32, ge=1, description="texts for the gradients of the label words")


class Ridge(PortMethod):
    """The donor's scores, read off the receiving host's states and written to its label words."""

    name = "ridge"
    about = (
        "A LoRA of lowest rank in closed form: ridge regression from the receiving host's states "
        "to the donor's scores on unlabelled text."
    )
    limits = (
        "Tells the donor's classes apart and keeps nothing else of it. For hosts that are read by "
        "label words. Texts of the task's domain are needed."
    )
    source = "linear probes (arXiv 1610.01644) and distillation (arXiv 1503.02531); ours"
    needs = frozenset({"weights", "texts"})
    Options = RidgeOptions
    carries = False

    def refusal(self, request: Request) -> str | None:
        """A donor without answers, hosts that are read by a head, and a layer too many."""
        depth, layer = request.receiver.stacks.get("decoder", 0), request.options.layer
        if layer is not None and layer >= depth:
            return f"the receiving host has {depth} decoder layers and none of number {layer}"
        if request.receiver.kind == "encoder":
            return "it writes to label words, and encoders are read by a head; distill can"
        return no_classes(request) or super().refusal(request)

    def makes(self, request: Request) -> str:
        """A technique that changes weights by factors: the donor's where it does."""
        return of_low_rank(request.donor.technique)

    def account(self, request: Request) -> Account:
        """Every tensor is new."""
        shapes = technique(self.makes(request)).shapes(
            self.configuration(request), request.receiver
        )
        why = "fitted on the donor's answers"
        entries = (Entry(None, name, "initialised", s, why=why) for name, s in shapes.items())
        return Account(self.name, tuple(entries))

    def estimate(self, request: Request, load: Load) -> CostEstimate:
        """A pass over the texts on one host, some on the other, and gradients of few texts."""
        options, hosts = request.options, (request.origin, request.receiver)
        few = min(options.slopes, load.texts) * load.tokens
        passes = load.all_tokens * options.sweeps + 3 * few
        products = load.all_tokens * weights_of(hosts[0]) + passes * weights_of(hosts[1])
        whole, held = loaded(hosts)
        held += self.samples(request, load)
        products *= 2.0 if whole or not bf16_is_fast() else 1.0
        return estimated(hosts, products, held, self.written(request))

    def samples(self, request: Request, load: Load) -> float:
        """The states of every text in each layer, and the graphs of few texts."""
        few = min(request.options.slopes, load.texts) * load.tokens
        states = len(request.receiver.blocks) * load.texts * request.receiver.ffn
        return 4.0 * (states + few * (6 * request.receiver.ffn + 12 * request.receiver.width))

    def problem(self, account: Account) -> str | None:
        """A new module is always whole."""
        return None

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """Score the texts on the originating host, read and write on the receiving one.

        Raises:
            BadInput: one of the hosts cannot tell the words of the donor's classes apart.
            RunFailed: the donor's scores are not finite.
        """
        assert means is not None
        task, options = task_of(request.donor.task), request.options
        texts = tuple(sorted(means.texts, key=len))  # so that little of them is padding
        if request.classes > MOST:
            _log.warning(
                "notice: ridge keeps %d directions of what the module says of its %d classes: test "
                "it beside distill, which keeps all",
                *(MOST, request.classes),
            )
        means.progress(0.0, "the donor's scores")
        whole = donor | means.origin.besides
        found = donor_scores(means.origin.stream(), request, whole, task, texts)
        aim = found @ contrasts_of(request.classes).mT  # (texts, contrasts)
        host = means.receiver.stream()
        rows = rows_of_task(host, task, texts)
        few = rows_of_task(host, task, texts[:: -(-len(texts) // options.slopes)])
        name, readout = self.makes(request), class_readout(host, task)
        config = self.configuration(request)
        fitting = _Fitting(name, host, rows, few, readout, config, aim, options, means.progress)
        tensors, details = fitting.module()
        record = {"technique": name, "config": config.model_dump(mode="json"), "head": "mean"}
        return Made(tensors, _as_made(self.account(request), tensors), record, details)

    def configuration(self, request: Request) -> Any:
        """A change at the one place, of as low a rank as the classes allow, if it is known which,
        and of scale 1."""
        rank = len(contrasts_of(request.classes)) if request.classes else 1
        return by_factors(self.makes(request)).configured(rank, [PLACE])


def _as_made(account: Account, tensors: Parameters) -> Account:
    """The account with what is known once layers were chosen: the others' tensors are zero."""
    why = "zero, for other layers are changed"
    entries = (
        each if each.target and tensors[each.target].any() else replace(each, why=why)
        for each in account.entries
    )
    return replace(account, entries=tuple(entries))


@dataclass(frozen=True)
class _Fitting:
    """The receiving host's half of the port; technique: of the module that is made. few: rows that
    gradients are taken of."""

    technique: str
    host: Host
    rows: TokenRows
    few: TokenRows
    readout: ClassReadout
    config: Any
    aim: Tensor
    options: RidgeOptions
    progress: Portion

    def module(self) -> tuple[Parameters, dict[str, Any]]:
        """The tensors, and what was found on the way."""
        self.progress(0.3, "the receiving host's states and scores")
        states, found = self._observed(self._places(), {})
        fitted = {place: fit_reading(here, self.aim - found) for place, here in states.items()}
        readings = _best(fitted, self.options.readings)
        missed = min(reading.missed for reading in readings.values())
        _tell_of(missed)
        writes = self._writes(list(readings))
        reads = {place: torch.zeros_like(reading.matrix) for place, reading in readings.items()}
        gain = 1.0
        for sweep in range(self.options.sweeps):
            if sweep:
                self.progress(0.6 + 0.4 * sweep / self.options.sweeps, f"sweep {sweep + 1}")
                before, meant = found, _said(readings, states)
                states, found = self._observed(list(readings), self._tensors(reads, writes))
                gain = _gain(found - before, meant)
                if gain < _LEAST:
                    _log.warning(
                        "notice: the receiving host's scores move by %.2f of what ridge asks for; "
                        "it goes no further. Test the port beside the bare host",
                        gain,
                    )
                    break
                readings = {
                    place: fit_reading(here, (self.aim - found) / gain, [fitted[place].strength])
                    for place, here in states.items()
                }
            for place, reading in readings.items():
                reads[place] += reading.matrix / len(readings)
        details = {
            "places": list(readings),
            "missed": round(missed, 4),
            "strengths": [fitted[place].strength for place in readings],
            "gain": round(gain, 4),
        }
        return self._tensors(reads, writes), details

    def _places(self) -> list[str]:
        """The places that may be changed."""
        if self.options.layer is not None:
            return [f"decoder.{self.options.layer}.{PLACE}"]
        return [
            point
            for point in self.host.geometry.linears
            if point.startswith("decoder.") and point.endswith(PLACE)
        ]

    def _observed(
        self, places: Sequence[str], module: Parameters
    ) -> tuple[dict[str, Tensor], Tensor]:
        """What places read on the host under a module, if one is given, and what the host says:
        states (texts, width) by place, and contrasts of its scores (texts, contrasts)."""
        said: list[Tensor] = []
        lanes = {name: tensor[None].to(self.host.device) for name, tensor in module.items()}
        acting = technique(self.technique).attach(self.host, self.config, lanes)

        def read(host: Host, part: TokenRows) -> None:
            said.append(class_logits(host, part, lanes, self.readout, whole=True).float().cpu())

        with acting if module else nullcontext():
            seen = observe(self.host, [self.rows], places, (), read).inputs
        return seen, torch.cat(said) @ contrasts_of(self.readout.classes).mT

    def _writes(self, places: Sequence[str]) -> dict[str, Tensor]:
        """What to add to each place's output for one more of each contrast: (width, contrasts)."""
        slopes = label_gradients(self.host, self.few, places, self.readout, {})
        return {place: torch.linalg.pinv(slopes[place].double().mean(1)) for place in places}

    def _tensors(self, reads: Mapping[str, Tensor], writes: Mapping[str, Tensor]) -> Parameters:
        """A module that writes at each place what it reads there."""
        shapes = technique(self.technique).shapes(self.config, self.host.geometry)
        made = {name: torch.zeros(shape) for name, shape in shapes.items()}
        for place, read in reads.items():
            factors = writes[place].float(), read.float()
            made |= by_factors(self.technique).of_factors(place, *factors)
        return made


def _best(fitted: Mapping[str, LinearProbe], most: int) -> dict[str, LinearProbe]:
    """Those that miss least, and little more than the best one, in the order of the layers."""
    kept = sorted(fitted, key=lambda place: fitted[place].missed)[:most]
    worst = _WORSE * fitted[kept[0]].missed
    return {
        place: reading
        for place, reading in fitted.items()
        if place in kept and reading.missed <= worst
    }


def _said(readings: Mapping[str, LinearProbe], states: Mapping[str, Tensor]) -> Tensor:
    """The mean of what is read at all places: (texts, contrasts)."""
    each = [states[place].double() @ reading.matrix.mT for place, reading in readings.items()]
    return torch.stack(each).mean(0)


def _tell_of(missed: float) -> None:
    if missed > MUCH:
        _log.warning(
            "notice: ridge misses %.2f of what the module says of texts that were left out. "
            "That alone has not told good ports from bad ones: test it beside the bare host. "
            "More texts of the task's domain can help",
            missed,
        )


def _gain(moved: Tensor, meant: Tensor) -> float:
    """How far scores moved for one that was meant."""
    return float((moved.double() * meant).sum() / meant.square().sum().clamp_min(1e-30))

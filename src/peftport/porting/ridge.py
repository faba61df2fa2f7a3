"""Ridge: a module in closed form, which says on the receiving host what the donor says.

The donor's class scores on unlabelled texts are fitted by ridge regression on what one layer of
the receiving host's feed-forward network holds at the place where classes are read. What is read
there is written along the gradient of the label words' scores. Both together are a change of one
weight of rank 1 (or as many as classes), which a LoRA holds: no step of training is made.

Ours. Linear probes of hidden states are Alain & Bengio 2016 (arXiv 1610.01644), writing along a
direction in a middle layer is steering (arXiv 2308.10248), the donor's answers as the aim are
distillation (arXiv 1503.02531).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from peftport.porting.account import Account, Entry
from peftport.porting.activations import contrasts_of, label_gradients, observe
from peftport.porting.answers import donor_scores, no_answers
from peftport.porting.base import Made, MethodOptions, PortMethod, Request
from peftport.porting.prior import class_scores
from peftport.porting.reading import Rows, task_of
from peftport.porting.regression import Reading, fit_reading
from peftport.tasks import encode_texts
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.training.readout import Readout, readout_of

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.means import Means

PLACE = "ffn.down"
"""The linear layer whose weight is changed: it reads a feed-forward network's inner states."""


class RidgeOptions(MethodOptions):
    """Where the donor's scores are read off the receiving host, and how."""

    layer: int | None = Field(
        None, ge=0, description="of the receiving host; the one that reads best if not given"
    )
    quiet: float = Field(
        0.0, ge=0, description="weight of saying nothing at the texts' other tokens"
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

    def refusal(self, request: Request) -> str | None:
        """A donor without answers, and hosts that are read by a head."""
        if request.receiver.kind == "encoder":
            return "it writes to label words, and encoders are read by a head; distill can"
        return no_answers(request) or super().refusal(request)

    def account(self, request: Request) -> Account:
        """Every tensor is new."""
        shapes = technique("lora").shapes(_config(request), request.receiver)
        why = "fitted on the donor's answers"
        entries = (Entry(None, name, "initialised", s, why=why) for name, s in shapes.items())
        return Account(self.name, tuple(entries))

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
        found = donor_scores(means.origin.load(), request, donor, task, means.texts)
        aim = found @ contrasts_of(request.classes).mT  # (texts, contrasts)
        host = means.receiver.load()
        rows = _rows(host, task, means.texts, generator)
        fitting = _Fitting(host, rows, readout_of(host, task), _config(request), aim, options)
        tensors, details = fitting.module()
        record = {"technique": "lora", "config": _config(request).model_dump(mode="json")}
        return Made(tensors, self.account(request), record | {"head": "mean"}, details)


def _config(request: Request) -> Any:
    """A LoRA at the one place, of as low a rank as the classes allow, and of scale 1."""
    rank = len(contrasts_of(request.classes))
    return technique("lora").configure({"rank": rank, "alpha": rank, "targets": [PLACE]})


def _rows(host: Host, task: Any, texts: tuple[str, ...], generator: torch.Generator) -> Rows:
    """The texts as the task reads them; kept are, of every row, the place where classes are read
    and one other token."""
    kind = host.geometry.kind
    encoded = encode_texts(host.tokenizer, task, texts, np.zeros(len(texts)), kind)
    batch = encoded.batch(np.arange(len(texts)))
    rows, width = batch.input_ids.shape
    lengths = batch.attention_mask.sum(1)  # (rows,)
    if kind == "encoder-decoder":
        start = host.model.config.decoder_start_token_id
        decoder = torch.full((rows, 1), start)
        return Rows(batch.input_ids, batch.attention_mask, decoder, {"decoder": torch.arange(rows)})
    draws = torch.rand(rows, generator=generator)
    other = (draws * (lengths - 1)).long()  # (rows,)
    flat = torch.arange(rows) * width
    places = torch.stack([flat + lengths - 1, flat + other], 1).flatten()  # (rows * 2,)
    return Rows(batch.input_ids, batch.attention_mask, None, {"decoder": places})


@dataclass(frozen=True)
class _Fitting:
    """The receiving host's half of the port."""

    host: Host
    rows: Rows
    readout: Readout
    config: Any
    aim: Tensor
    options: RidgeOptions

    def module(self) -> tuple[Parameters, dict[str, Any]]:
        """The tensors, and what was found on the way."""
        states = self._states()
        bare = self._scores({})
        point, first = self._best(states, self.aim - bare)
        write = self._writing(point)  # (width, contrasts)
        read = torch.zeros_like(first.matrix)
        here, quiet = states[point]
        found, gain, reading = bare, 1.0, first
        for sweep in range(self.options.sweeps):
            if sweep:
                wanted = (self.aim - found) / gain
                reading = fit_reading(here, wanted, quiet, [first.strength])
            read = read + reading.matrix
            before, found = found, self._scores(self._tensors(point, read, write))
            gain = _gain(found - before, here.double() @ reading.matrix.mT)
        made = self._tensors(point, read, write)
        details = {
            "layer": point,
            "missed": round(first.missed, 4),
            "strength": first.strength,
            "gain": round(gain, 4),
            "missed_at_last": round(_share(self.aim - found, self.aim), 4),
        }
        return made, details

    def _points(self) -> list[str]:
        stack = "decoder"
        points = [
            p for p in self.host.geometry.linears if p.startswith(stack) and p.endswith(PLACE)
        ]
        wanted = self.options.layer
        return points if wanted is None else [points[wanted]]

    def _states(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Place -> states where classes are read, and states at other tokens."""
        seen = observe(self.host, [self.rows], self._points(), ()).inputs
        if self.rows.decoder_ids is not None:
            return {point: (states, None) for point, states in seen.items()}
        weight = self.options.quiet**0.5
        return {
            point: (states[0::2], states[1::2] * weight if weight else None)
            for point, states in seen.items()
        }

    def _best(
        self, states: dict[str, tuple[Tensor, Tensor | None]], wanted: Tensor
    ) -> tuple[str, Reading]:
        """The layer whose left-out texts are missed by least."""
        readings = {p: fit_reading(here, wanted, quiet) for p, (here, quiet) in states.items()}
        best = min(readings, key=lambda point: readings[point].missed)
        return best, readings[best]

    def _writing(self, point: str) -> Tensor:
        """What to add to the place's output for one more of each contrast: (width, contrasts)."""
        (rows,) = [part for part in [next(self.rows.parts(self.options.slopes))]]
        slopes = label_gradients(self.host, rows, [point], self.readout, {})[point]
        if self.rows.decoder_ids is None:
            slopes = slopes[:, 0::2]
        return torch.linalg.pinv(slopes.double().mean(1))

    def _tensors(self, point: str, read: Tensor, write: Tensor) -> Parameters:
        shapes = technique("lora").shapes(self.config, self.host.geometry)
        made = {name: torch.zeros(shape) for name, shape in shapes.items()}
        made[f"{point}.lora_A"] = read.float()
        made[f"{point}.lora_B"] = write.float()
        return made

    def _scores(self, tensors: Parameters) -> Tensor:
        """Contrasts of the class scores under a module: (texts, contrasts)."""
        made = tensors or self._tensors(self._points()[0], *_nothing(self.config, self.host))
        found = class_scores(
            self.host, technique("lora"), self.config, made, self.rows, self.readout
        )
        return found @ contrasts_of(self.readout.classes).mT


def _nothing(config: Any, host: Host) -> tuple[Tensor, Tensor]:
    shapes = list(technique("lora").shapes(config, host.geometry).values())
    return torch.zeros(shapes[0]), torch.zeros(shapes[1])


def _gain(moved: Tensor, meant: Tensor) -> float:
    """How far scores moved for one that was meant."""
    return float((moved.double() * meant).sum() / meant.square().sum().clamp_min(1e-30))


def _share(missed: Tensor, aim: Tensor) -> float:
    return float(missed.square().sum() / (aim - aim.mean(0)).square().sum().clamp_min(1e-30))

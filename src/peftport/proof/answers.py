"""Answers of a host with a module and without, as peftport computes them, and how far two differ.

An answer is the logits of the next token on decoders, of the first answer token on
encoder-decoders, of the classes where the module has a head, and the last states of the text's
tokens on encoders without one.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.techniques.embeddings import attached
from peftport.techniques.head import WEIGHT, head_logits

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.modules import Module


@dataclass(frozen=True)
class Outputs:
    """What a host answers on some texts, in single precision on the CPU.

    bare, module: without and with the module, (texts, classes or vocabulary); of encoders without
        a head (tokens, width).
    logits: whether they are logits, between which a divergence is defined.
    unread: tensors of the folder that the library does not load. missing: tensors that it would
        have and the folder has not.
    other: the class of model that was asked, where peftport runs such hosts as another one, so that
        its answers are not of the same kind; None where they are.
    """

    bare: Tensor
    module: Tensor
    logits: bool
    unread: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    other: str | None = None

    @property
    def moved(self) -> float:
        """The largest change of any number by the module."""
        return float((self.module - self.bare).abs().max())

    @property
    def size(self) -> float:
        """The largest number there is, at least 1: what rounding is measured against."""
        return max(1.0, float(self.module.abs().max()), float(self.bare.abs().max()))

    @property
    def nats(self) -> float | None:
        """The divergence of the answers with the module from those without, Kullback-Leibler, in
        nats, in the mean over texts; None where answers are no logits."""
        if not self.logits:
            return None
        one, other = (torch.log_softmax(t.double(), -1) for t in (self.module, self.bare))
        return float((one.exp() * (one - other)).sum(-1).mean().clamp(min=0))


@torch.no_grad()
def our_answers(host: Host, module: Module, inputs: dict[str, Tensor]) -> Outputs:
    """What peftport computes, for ids and mask padded on the right, (texts, tokens) each."""
    tensors = {name: tensor.to(host.device) for name, tensor in module.tensors.items()}
    lane = stack_lanes([tensors])
    ids, mask = (inputs[name].to(host.device) for name in ("input_ids", "attention_mask"))
    has_head = WEIGHT in module.tensors

    def answer(acting: AbstractContextManager[None]) -> Tensor:
        with acting:
            if host.geometry.kind == "decoder" and has_head:
                last = host.last_states(ids, mask)  # (texts, width)
                return (last @ tensors[WEIGHT].mT).float().cpu()  # (texts, classes)
            if host.geometry.kind != "encoder":
                return host.next_token_logits(ids, mask).float().cpu()
            states = host.token_states(ids, mask)
            return (head_logits(states, mask, lane) if has_head else states[mask.bool()]).cpu()

    acting = attached(host, technique(module.technique), module.config, lane)
    logits = host.geometry.kind != "encoder" or has_head
    bare = answer(nullcontext())
    return Outputs(bare, answer(acting), logits)

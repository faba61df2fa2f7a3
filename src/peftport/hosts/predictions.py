"""What a host predicts at some places of its texts, read a few places at a time.

The logits of a large vocabulary take more memory than all else in a pass. Here there are never more
than those of a few places: what is wanted of them is found, and its gradient for the host's states
with it, before those of the next places are made. No graph holds logits (Hsu et al. 2024, arXiv
2410.10989; Wijmans et al. 2024, arXiv 2411.09009).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

LOGITS = 1 << 25
"""Logits that there are at a time, in numbers: 128 MiB."""
FEWEST = 32
"""Places that are read at a time at the least: with fewer the product is mostly reading weights."""

Read = Callable[[Tensor, slice], Tensor]
"""What is wanted of places: a number of each, (places,), from their logits (places, vocabulary) in
single precision, and which of all places they are."""


@dataclass(frozen=True)
class Predictions:
    """A host's predictions at places where a token is asked for.

    Attributes:
        states: behind the last layer, (places, width), with their graph.
        vocabulary: of how many words there are logits.
        read_out: logits of some states, (places, vocabulary), by the host's own head and whatever
            its family does with what the head gives (scales, caps, biases).
    """

    states: Tensor
    vocabulary: int
    read_out: Callable[[Tensor], Tensor] = field(repr=False)

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Some places after the other, and their logits (places, vocabulary), without a graph."""
        for at in self._few():
            with torch.no_grad():
                logits = self.read_out(self.states[at])
            yield at, logits

    def each(self, read: Read, weights: Tensor | None = None) -> Tensor:
        """A number of each place, (places,), with its gradient for the states.

        Args:
            read: of a place whatever follows from its own logits alone.
            weights: the gradient that each number will be given, (places,), if it is known
                before. Another one makes no difference but of rounding.
        """
        if weights is None:
            weights = self.states.new_ones(len(self.states))
        found: Tensor = _Each.apply(self.states, self, read, weights)
        return found

    def nats(self, tokens: Tensor, weights: Tensor | None = None) -> Tensor:
        """How improbable each place's token is, in nats: (places,). Args as `each`."""

        def read(logits: Tensor, at: slice) -> Tensor:
            return functional.cross_entropy(logits, tokens[at], reduction="none")

        return self.each(read, weights)

    def _few(self) -> Iterator[slice]:
        many = max(FEWEST, LOGITS // self.vocabulary)
        return (slice(first, first + many) for first in range(0, len(self.states), many))


class _Each(torch.autograd.Function):
    """`Predictions.each`: the gradient is found with the numbers, from logits that go then."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, whole: Predictions, read: Read, weights: Tensor
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        # What stays is made first: made in between, it would lie among the logits' freed memory,
        # and those of the next places would not fit there.
        wide = torch.promote_types(states.dtype, torch.float32)
        numbers = states.new_empty(len(states), dtype=wide)
        gradients = torch.empty_like(states) if wanted else states[:0]
        for at in whole._few():
            some = states[at].detach().requires_grad_(wanted)  # (places, width)
            with torch.set_grad_enabled(wanted):
                found = read(whole.read_out(some), at)  # (places,)
            numbers[at] = found.detach()
            if wanted:
                (gradients[at],) = torch.autograd.grad(found, some, weights[at].to(found))
        ctx.save_for_backward(gradients, weights)
        return numbers

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        gradients, weights = ctx.saved_tensors
        return gradients * (gradient / weights)[:, None], None, None, None


def predicted(model: Any, asked: Tensor, **inputs: Any) -> Predictions:
    """Run a model up to its head.

    Args:
        model: transformers' decoder or encoder-decoder with a head.
        asked: of which places a prediction is wanted, (rows, places).
        inputs: the model's own.
    """
    head, body = model.get_output_embeddings(), model.get_decoder()
    body = model.model if body is model else body  # that of Llama 4's text model is itself
    given: list[Any] = []
    words = len(head.weight)
    watched = body.register_forward_hook(lambda _module, _inputs, out: given.append(out))
    try:
        with acting_as(head, lambda states: states.new_zeros(1, 1, words)):
            out = model(**inputs, use_cache=False)
    finally:
        watched.remove()
    rest = {"input_ids": inputs["input_ids"][:1, :1]}
    if "decoder_input_ids" in inputs:
        first = inputs["decoder_input_ids"][:1, :1]
        seen = (out.encoder_last_hidden_state[:1],)
        rest = {"encoder_outputs": seen, "decoder_input_ids": first}

    def read_out(states: Tensor) -> Tensor:
        # The model runs with its last states in place of its layers, so that what its family does
        # behind them is done by its own code.
        # A host that is read a layer at a time has its vocabulary as its files have it.
        last = replace(given[0], last_hidden_state=states[None].to(head.weight.dtype))
        with acting_as(body, lambda *_args, **_named: last):
            logits: Tensor = model(**rest, use_cache=False).logits[0]
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    return Predictions(given[0].last_hidden_state[asked], words, read_out)


@contextmanager
def acting_as(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else for a while."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before

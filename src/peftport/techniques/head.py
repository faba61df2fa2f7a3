"""The classification head of encoders, trained and ported with the module.

Tensors: `head.weight` (classes, width), `head.bias` (classes,). A head that pools by "mean" reads
the mean of the last hidden states over the text: peftport's own, and the same as the mean of a
token classifier's logits. One that pools by "first" reads the first token's state through
`head.dense.weight` (width, width), `head.dense.bias` (width,) and tanh, as BERT's and RoBERTa's
sequence classifiers do; such heads come with modules of other libraries. With another activation
the dense layer has its name: `head.dense_relu.weight` and "first_relu" as DistilBERT's,
`head.dense_gelu.weight` and "first_gelu" as ELECTRA's. Of other libraries are those of decoders,
too, that pool by "last": `head.weight` alone reads the state of the text's last token; and
ModernBERT's, "first_gelu_norm" and "mean_gelu_norm": their dense layer, without a bias, is followed
by GELU and a norm of `head.norm.weight` (width,), and reads the first token or the text's mean.

Hosts that are read by label words need no head. A module that was ported to one may still have a
`head.bias` (classes,), pooling "words": it is added to the label words' scores.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, relu

from peftport.hosts.geometry import Geometry
from peftport.techniques.base import Parameters, Shapes, normal

WEIGHT, BIAS = "head.weight", "head.bias"
Pooling = Literal[
    "mean",
    "first",
    "first_relu",
    "first_gelu",
    "first_gelu_norm",
    "mean_gelu_norm",
    "last",
    "words",
]
Reads = Literal["cls", "mean"]
_EPSILON = 1e-5
"""Of a norm, as ModernBERT has it."""


@dataclass(frozen=True)
class Dense:
    """The dense layer of a head: the names of its tensors, and what follows it.

    bias: None where it has none. activation: its name in other libraries. norm: the tensor of a
    norm behind it. reads: the first token, or the mean of the text.
    """

    weight: str
    bias: str | None
    activation: str
    function: Callable[[Tensor], Tensor]
    norm: str | None = None
    reads: Reads = "cls"

    def shapes(self, width: int) -> Shapes:
        """Shapes of its tensors on a host of some width."""
        vectors = [name for name in (self.bias, self.norm) if name is not None]
        return {self.weight: (width, width), **{name: (width,) for name in vectors}}


DENSE: dict[str, Dense] = {
    "first": Dense("head.dense.weight", "head.dense.bias", "tanh", torch.tanh),
    "first_relu": Dense("head.dense_relu.weight", "head.dense_relu.bias", "relu", relu),
    "first_gelu": Dense("head.dense_gelu.weight", "head.dense_gelu.bias", "gelu", gelu),
    "first_gelu_norm": Dense(
        "head.dense_gelu_norm.weight", None, "gelu", gelu, norm="head.norm.weight"
    ),
    "mean_gelu_norm": Dense(
        "head.mean_gelu_norm.weight", None, "gelu", gelu, norm="head.norm.weight", reads="mean"
    ),
}
"""By pooling."""


def dense_in(names: Container[str]) -> Dense | None:
    """The dense layer among a module's tensors."""
    return next((dense for dense in DENSE.values() if dense.weight in names), None)


def pooling_by(activation: str, reads: str = "cls", normed: bool = False) -> Pooling | None:
    """How a head pools whose dense layer is followed by this; None where peftport has no such.

    Args:
        reads: "cls" or "mean". normed: whether a norm follows.
    """
    wanted = (activation, reads, normed)
    found = (
        pooling
        for pooling, dense in DENSE.items()
        if (dense.activation, dense.reads, dense.norm is not None) == wanted
    )
    return cast("Pooling | None", next(found, None))


def pooling_of(names: Container[str]) -> Pooling | None:
    """How the head among a module's tensors pools; None where none of them is a head's matrix."""
    if WEIGHT not in names:
        return None
    found = (pooling for pooling, dense in DENSE.items() if dense.weight in names)
    return cast("Pooling", next(found, "mean" if BIAS in names else "last"))


def head_shapes(geometry: Geometry, classes: int, pooling: Pooling = "mean") -> Shapes:
    """Shapes of the head that a module of a host of this geometry has: none without classes; on a
    decoder a matrix at the last token or a bias of label words, if any."""
    if not classes:
        return {}
    width = geometry.width
    if geometry.kind != "encoder":
        last = geometry.kind == "decoder" and pooling == "last"
        return (
            {BIAS: (classes,)} if pooling == "words" else {WEIGHT: (classes, width)} if last else {}
        )
    shapes: Shapes = {WEIGHT: (classes, width), BIAS: (classes,)}
    if dense := DENSE.get(pooling):
        shapes |= dense.shapes(width)
    return shapes


def initial_head(
    geometry: Geometry, classes: int, generator: torch.Generator, pooling: Pooling = "mean"
) -> Parameters:
    """Weights of deviation 0.02, zero biases and norms of one, as transformers starts its heads."""
    return {
        name: normal(shape, 0.02, generator)
        if len(shape) > 1
        else torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
        for name, shape in head_shapes(geometry, classes, pooling).items()
    }


def head_logits(states: Tensor, attention_mask: Tensor, parameters: Parameters) -> Tensor:
    """Class logits from an encoder's states.

    Args:
        states: (lanes * batch, tokens, width).
        attention_mask: (lanes * batch, tokens).
        parameters: the head's tensors with the lane axis.

    Returns:
        (lanes * batch, classes).
    """
    weight, bias = parameters[WEIGHT], parameters[BIAS]
    lanes, width = weight.shape[0], weight.shape[-1]
    dense = dense_in(parameters)
    if dense is not None and dense.reads == "cls":
        read = states[:, 0]
    else:
        mask = attention_mask[..., None].to(states.dtype)
        read = (states * mask).sum(1) / mask.sum(1)  # (lanes * batch, width)
    pooled = read.reshape(lanes, -1, width)  # (lanes, batch, width)
    if dense is not None:
        pooled = _through(dense, pooled, parameters)
    return torch.baddbmm(bias[:, None], pooled, weight.mT).flatten(0, 1)


def _through(dense: Dense, read: Tensor, parameters: Parameters) -> Tensor:
    """What a dense layer and what follows it make of what is read: (lanes, batch, width)."""
    weight = parameters[dense.weight].mT
    if dense.bias is None:
        given = dense.function(torch.bmm(read, weight))
    else:
        given = dense.function(torch.baddbmm(parameters[dense.bias][:, None], read, weight))
    if dense.norm is None:
        return given
    return layer_norm(given, given.shape[-1:], eps=_EPSILON) * parameters[dense.norm][:, None]


def last_logits(last: Tensor, parameters: Parameters) -> Tensor:
    """Class logits from the states of the texts' last tokens, (lanes * batch, width), by a head
    with the lane axis: (lanes * batch, classes)."""
    weight = parameters[WEIGHT]  # (lanes, classes, width)
    states = last.view(len(weight), -1, last.shape[-1])  # (lanes, batch, width)
    return (states @ weight.mT).flatten(0, 1)


def word_logits(logits: Tensor, parameters: Parameters) -> Tensor:
    """Label words' logits with the module's bias, if it has one: (lanes * batch, classes)."""
    if BIAS not in parameters:
        return logits
    bias = parameters[BIAS]  # (lanes, classes)
    return (logits.view(len(bias), -1, bias.shape[1]) + bias[:, None]).flatten(0, 1)

"""The classification head of encoders, trained and ported with the module.

Tensors: `head.weight` (classes, width), `head.bias` (classes,). A head that pools by "mean" reads
the mean of the last hidden states over the text: peftport's own, and the same as the mean of a
token classifier's logits. One that pools by "first" reads the first token's state through
`head.dense.weight` (width, width), `head.dense.bias` (width,) and tanh, as BERT's and RoBERTa's
sequence classifiers do; such heads come with modules of other libraries. So do those of decoders
that pool by "last": `head.weight` alone reads the state of the text's last token.

Hosts that are read by label words need no head. A module that was ported to one may still have a
`head.bias` (classes,), pooling "words": it is added to the label words' scores.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from peftport.hosts.geometry import Geometry
from peftport.techniques.base import Parameters, Shapes, normal

WEIGHT, BIAS = "head.weight", "head.bias"
DENSE_WEIGHT, DENSE_BIAS = "head.dense.weight", "head.dense.bias"
Pooling = Literal["mean", "first", "last", "words"]


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
    dense = {DENSE_WEIGHT: (width, width), DENSE_BIAS: (width,)} if pooling == "first" else {}
    return {WEIGHT: (classes, width), BIAS: (classes,), **dense}


def initial_head(
    geometry: Geometry, classes: int, generator: torch.Generator, pooling: Pooling = "mean"
) -> Parameters:
    """Weights of deviation 0.02 and zero biases, as transformers starts its heads."""
    shapes = head_shapes(geometry, classes, pooling)
    return {
        name: torch.zeros(shape) if len(shape) == 1 else normal(shape, 0.02, generator)
        for name, shape in shapes.items()
    }


def head_logits(states: Tensor, attention_mask: Tensor, parameters: Parameters) -> Tensor:
    """Class logits from an encoder's states.

    Args:
        states: (lanes * batch, tokens, width).
        attention_mask: (lanes * batch, tokens).
        parameters: the head's tensors with the lane axis; with a dense layer it pools by "first".

    Returns:
        (lanes * batch, classes).
    """
    weight, bias = parameters[WEIGHT], parameters[BIAS]
    lanes, width = weight.shape[0], weight.shape[-1]
    if DENSE_WEIGHT in parameters:
        first = states[:, 0].reshape(lanes, -1, width)  # (lanes, batch, width)
        dense, shift = parameters[DENSE_WEIGHT], parameters[DENSE_BIAS]
        pooled = torch.tanh(torch.baddbmm(shift[:, None], first, dense.mT))
    else:
        mask = attention_mask[..., None].to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)  # (lanes * batch, width)
        pooled = mean.view(lanes, -1, width)  # (lanes, batch, width)
    return torch.baddbmm(bias[:, None], pooled, weight.mT).flatten(0, 1)


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

"""The classification head of encoders, trained and ported with the module.

Tensors: `head.weight` (classes, width), `head.bias` (classes,), read from the mean of the last
hidden states over the text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from peftport.hosts.geometry import Geometry
from peftport.techniques.base import Parameters, Shapes, normal

WEIGHT, BIAS = "head.weight", "head.bias"


def head_shapes(geometry: Geometry, classes: int) -> Shapes:
    """Shapes of the head that a host of this geometry needs: none unless it is an encoder."""
    if geometry.kind != "encoder":
        return {}
    return {WEIGHT: (classes, geometry.width), BIAS: (classes,)}


def initial_head(geometry: Geometry, classes: int, generator: torch.Generator) -> Parameters:
    """Weights of deviation 0.02 and zero biases, as transformers starts its heads."""
    shapes = head_shapes(geometry, classes)
    return {
        name: torch.zeros(shape) if name == BIAS else normal(shape, 0.02, generator)
        for name, shape in shapes.items()
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
    mask = attention_mask[..., None].to(states.dtype)
    pooled = (states * mask).sum(1) / mask.sum(1)  # (lanes * batch, width)
    weight, bias = parameters[WEIGHT], parameters[BIAS]
    by_lane = pooled.view(weight.shape[0], -1, pooled.shape[-1])  # (lanes, batch, width)
    return torch.baddbmm(bias[:, None], by_lane, weight.mT).flatten(0, 1)

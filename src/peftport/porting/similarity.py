"""How like the layers of two hosts are, by what their residual streams hold on the same texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peftport.porting.activations import observe
from peftport.porting.layers import Pairs, linear_cka, pair_layers
from peftport.porting.layerwise import read_passes
from peftport.porting.massive import USUAL_MOST, tempered
from peftport.porting.reading import task_of

if TYPE_CHECKING:
    from peftport.porting.base import Request
    from peftport.porting.means import Means

_PLACES = 2048


def layer_pairs(how: str, means: Means, request: Request) -> Pairs:
    """Layers of the receiving host and their partners; by CKA both hosts are run on the texts."""
    there, here = request.origin.stacks, request.receiver.stacks
    similarity = layer_similarity(means, request) if how == "cka" and there != here else None
    return pair_layers(how, there, here, similarity)


def layer_similarity(means: Means, request: Request) -> dict[str, Tensor]:
    """Linear CKA of every two layers, by stack: (receiver layers, origin layers)."""
    generator = torch.Generator().manual_seed(0)
    passes = read_passes(request, means, task_of(request.donor.task), _PLACES, generator)
    seen = []
    for side, rows in zip((means.origin, means.receiver), passes, strict=True):
        ends = observe(side.stream(), rows, (), side.geometry.blocks).outputs
        seen.append({layer: tempered(states, USUAL_MOST) for layer, states in ends.items()})
    origin, receiver = seen
    found = {}
    for stack, layers in request.receiver.stacks.items():
        found[stack] = torch.tensor(
            [
                [
                    float(linear_cka(origin[f"{stack}.{j}"], receiver[f"{stack}.{i}"]))
                    for j in range(request.origin.stacks[stack])
                ]
                for i in range(layers)
            ]
        )
    return found

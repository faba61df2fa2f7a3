"""Heads for another host, by a map between the states that they read."""

from __future__ import annotations

from torch.nn.functional import pad

from peftport.hosts.geometry import Geometry
from peftport.porting.fitted import FittedMaps
from peftport.techniques.base import Parameters
from peftport.techniques.head import BIAS, WEIGHT, dense_in


def last_block(geometry: Geometry) -> str:
    """The end of an encoder's last layer, which its head reads."""
    return list(geometry.blocks)[-1]


def head_of(donor: Parameters) -> Parameters:
    """The tensors of a module's head."""
    return {name: tensor for name, tensor in donor.items() if name.startswith("head.")}


def map_head(donor: Parameters, geometry: Geometry, maps: FittedMaps) -> Parameters:
    """An encoder's head reads the receiving host's last states through their map; a bias of
    label words stays.

    A dense layer is as wide as its host: on a wider one its further units give nothing.
    """
    if WEIGHT not in donor:
        return dict(donor)
    states = maps.states(last_block(geometry))
    assert states is not None
    dense = dense_in(donor)
    first = (dense.weight, dense.bias) if dense else (WEIGHT, BIAS)
    made = dict(donor)
    made[first[0]] = states.weight(donor[first[0]])
    made[first[1]] = states.bias(donor[first[0]], donor[first[1]])
    if dense:
        more = geometry.width - len(made[dense.bias])
        made[dense.weight] = pad(made[dense.weight], (0, 0, 0, more))  # (width, width)
        made[dense.bias] = pad(made[dense.bias], (0, more))  # (width,)
        made[WEIGHT] = pad(made[WEIGHT], (0, more))  # (classes, width)
    return made

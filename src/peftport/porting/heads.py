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
    weight, bias = (dense.weight, dense.bias) if dense else (WEIGHT, BIAS)
    assert bias is not None, "no map goes through a dense layer without a bias"
    made = dict(donor)
    made[weight] = states.weight(donor[weight])
    made[bias] = states.bias(donor[weight], donor[bias])
    if dense:
        more = geometry.width - len(made[bias])
        made[weight] = pad(made[weight], (0, 0, 0, more))  # (width, width)
        made[bias] = pad(made[bias], (0, more))  # (width,)
        made[WEIGHT] = pad(made[WEIGHT], (0, more))  # (classes, width)
    return made

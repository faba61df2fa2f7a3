"""Rewrite modules through maps between two hosts' spaces, technique by technique.

Where a layer of the receiving host has no partner, the module changes nothing there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry, Linear
from peftport.porting.fitted import FittedMaps
from peftport.porting.layers import layer_of
from peftport.techniques.adapter import AdapterConfig, bottleneck_of, places
from peftport.techniques.base import Parameters
from peftport.techniques.compacter import RULE, CompacterConfig, weight
from peftport.techniques.head import BIAS, DENSE_BIAS, DENSE_WEIGHT, WEIGHT
from peftport.techniques.lora import LoraConfig, targets
from peftport.techniques.prefix import chosen


@dataclass(frozen=True)
class Spaces:
    """The places whose inputs and whose outputs a module's port needs, on one host."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def within(self, layers: Collection[str]) -> Spaces:
        """Those of some layers."""
        kept = (
            tuple(point for point in points if layer_of(point) in layers)
            for points in (self.inputs, self.outputs, self.changes)
        )
        return Spaces(*kept)


def spaces(technique: str, config: Any, geometry: Geometry) -> Spaces:
    """What must be known of a host of this geometry to rewrite such a module, but for its head.

    `changes` are those outputs that a module changes.
    """
    if technique == "lora":
        points = tuple(targets(config, geometry))
        return Spaces(points, points, points)
    if technique == "prefix":
        attentions = tuple(chosen(config, geometry))
        outputs = tuple(f"{a}.o" for a in attentions)
        spaces = tuple(f"{a}.{what}" for a in attentions for what in ("keys", "values"))
        return Spaces((), (*spaces, *outputs), outputs)
    points = tuple(places(config.variant, config.cross, geometry).values())
    return Spaces((), points, points)


def last_block(geometry: Geometry) -> str:
    """The end of an encoder's last layer, which its head reads."""
    return list(geometry.blocks)[-1]


def idle_lora(point: str, linear: Linear, rank: int) -> Parameters:
    """Factors that change nothing, for a layer without a partner."""
    return {
        f"{point}.lora_A": torch.zeros(rank, linear.inputs),
        f"{point}.lora_B": torch.zeros(linear.outputs, rank),
    }


def map_lora(
    config: LoraConfig, donor: Parameters, geometry: Geometry, maps: FittedMaps
) -> Parameters:
    """B A x -> (P B) (A M) x with the maps P of changes and M of inputs."""
    made: Parameters = {}
    for point, linear in targets(config, geometry).items():
        if not maps.covers(point):
            continue
        partner, inputs, change = maps.partner(point), maps.inputs(point), maps.changes(point)
        if partner is None or inputs is None or change is None:
            made |= idle_lora(point, linear, config.rank)
            continue
        made[f"{point}.lora_A"] = inputs.linear(donor[f"{partner}.lora_A"])
        made[f"{point}.lora_B"] = change @ donor[f"{partner}.lora_B"]
    return made


def map_adapter(
    config: AdapterConfig, donor: Parameters, geometry: Geometry, maps: FittedMaps, origin: Geometry
) -> Parameters:
    """U f(D x + a) + b -> (P U) f(D M x + a') + P b; an adapter keeps its bottleneck."""
    there = places(config.variant, config.cross, origin)
    back = {point: place for place, point in there.items()}
    made: Parameters = {}
    for place, point in places(config.variant, config.cross, geometry).items():
        if not maps.covers(point):
            continue
        partner, states, change = maps.partner(point), maps.states(point), maps.changes(point)
        if partner is None or states is None or change is None:
            width, bottleneck = geometry.width, bottleneck_of(config.reduction, geometry)
            made[f"{place}.down.weight"] = torch.zeros(bottleneck, width)
            made[f"{place}.down.bias"] = torch.zeros(bottleneck)
            made[f"{place}.up.weight"] = torch.zeros(width, bottleneck)
            made[f"{place}.up.bias"] = torch.zeros(width)
            continue
        side = back[partner]
        down = donor[f"{side}.down.weight"]
        made[f"{place}.down.weight"] = states.weight(down)
        made[f"{place}.down.bias"] = states.bias(down, donor[f"{side}.down.bias"])
        up = torch.cat([donor[f"{side}.up.weight"], donor[f"{side}.up.bias"][:, None]], 1)
        changed = change @ up  # (width, bottleneck + 1)
        made[f"{place}.up.weight"] = changed[:, :-1].contiguous()
        made[f"{place}.up.bias"] = changed[:, -1].contiguous()
    return made


def as_adapter(
    config: AdapterConfig | CompacterConfig, origin: Geometry, geometry: Geometry
) -> AdapterConfig:
    """The configuration of an adapter on the receiving host that keeps the donor's bottleneck."""
    bottleneck = bottleneck_of(config.reduction, origin)
    if bottleneck > geometry.width:
        raise BadInput(
            f"the module's bottleneck of {bottleneck} is wider than the receiving host "
            f"({geometry.width})."
        )
    activation = config.activation if isinstance(config, CompacterConfig) else config.nonlinearity
    return AdapterConfig(
        variant=config.variant,
        reduction=_reduction(geometry.width, bottleneck),
        activation=activation,
        cross=config.cross,
    )


def _reduction(width: int, bottleneck: int) -> float:
    """A reduction that gives the bottleneck, whichever way the division is rounded."""
    exact = width / bottleneck
    return exact if width // exact == bottleneck else width / (bottleneck + 0.5)


def densified(config: CompacterConfig, donor: Parameters) -> Parameters:
    """A compacter's tensors as those of the adapter that computes the same."""
    lanes = {name: tensor[None] for name, tensor in donor.items()}
    sides = {name.rpartition(".")[0] for name in donor if name.endswith(".left")}
    made: Parameters = {n: t for n, t in donor.items() if n.endswith(".bias") and n != RULE}
    for side in sides:
        made[f"{side}.weight"] = weight(lanes, side)[0].mT.contiguous()
    return made


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
    first = (DENSE_WEIGHT, DENSE_BIAS) if DENSE_WEIGHT in donor else (WEIGHT, BIAS)
    made = dict(donor)
    made[first[0]] = states.weight(donor[first[0]])
    made[first[1]] = states.bias(donor[first[0]], donor[first[1]])
    if DENSE_WEIGHT in donor:
        more = geometry.width - len(made[DENSE_BIAS])
        made[DENSE_WEIGHT] = pad(made[DENSE_WEIGHT], (0, 0, 0, more))  # (width, width)
        made[DENSE_BIAS] = pad(made[DENSE_BIAS], (0, more))  # (width,)
        made[WEIGHT] = pad(made[WEIGHT], (0, more))  # (classes, width)
    return made

"""Adapters for another host, by maps between the two hosts' spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.porting.activations import Spaces
from peftport.porting.fitted import FittedMaps
from peftport.porting.rewriting import ByMaps, Mapped, Receiving
from peftport.techniques.adapter.core import (
    Adapter,
    AdapterConfig,
    bottleneck_of,
    places,
)
from peftport.techniques.base import Parameters, Shapes

if TYPE_CHECKING:
    from peftport.porting.base import Request


class AdapterByMaps(ByMaps):
    """An adapter keeps its bottleneck: what it reads and what it changes are mapped."""

    def spaces(self, config: Any, geometry: Geometry) -> Spaces:
        """The outputs behind which adapters stand."""
        points = tuple(places(config.variant, config.cross, geometry).values())
        return Spaces((), points, points)

    def shapes(self, request: Request) -> Shapes:
        """Those of an adapter with the donor's bottleneck."""
        return Adapter().shapes(
            as_adapter(request.config, request.origin, request.receiver), request.receiver
        )

    def dense(self, request: Request, donor: Parameters) -> Parameters:
        """The donor as an adapter's tensors."""
        return donor

    def layer(self, request: Request, donor: Parameters, maps: FittedMaps, seen: Any) -> Parameters:
        """The adapters in it."""
        config = as_adapter(request.config, request.origin, request.receiver)
        donor = self.dense(request, donor)
        return map_adapter(config, donor, request.receiver, maps, request.origin)

    def whole(self, request: Request, made: Parameters, receiving: Receiving) -> Mapped:
        """An adapter, layer by layer."""
        config = as_adapter(request.config, request.origin, request.receiver)
        return Mapped("adapter", config, made, {})


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


def as_adapter(config: Any, origin: Geometry, geometry: Geometry) -> AdapterConfig:
    """The configuration of an adapter on the receiving host that keeps the donor's bottleneck.

    Args:
        config: of an adapter or a compacter.

    Raises:
        BadInput: the bottleneck is wider than the receiving host.
    """
    bottleneck = bottleneck_of(config.reduction, origin)
    if bottleneck > geometry.width:
        raise BadInput(
            f"the module's bottleneck of {bottleneck} is wider than the receiving host "
            f"({geometry.width})."
        )
    return AdapterConfig(
        variant=config.variant,
        reduction=_reduction(geometry.width, bottleneck),
        activation=config.nonlinearity,
        cross=config.cross,
    )


def _reduction(width: int, bottleneck: int) -> float:
    """A reduction that gives the bottleneck, whichever way the division is rounded."""
    exact = width / bottleneck
    return exact if width // exact == bottleneck else width / (bottleneck + 0.5)

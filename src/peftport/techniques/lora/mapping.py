"""LoRA for another host: by maps between the two hosts' spaces, and between hosts that fuse their
layers and hosts that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.hosts.geometry import Geometry, Linear
from peftport.modules import Record
from peftport.porting.activations import Spaces
from peftport.porting.fitted import FittedMaps
from peftport.porting.rewriting import ByFactors, ByMaps, Mapped, Receiving
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.lora import fused
from peftport.techniques.lora.core import LoraConfig, targets
from peftport.techniques.lora.rank import cut

if TYPE_CHECKING:
    from peftport.porting.base import Made, Request


class LoraByMaps(ByMaps, ByFactors):
    """Both factors are mapped, one from each side."""

    def agreed(
        self, donor: Record, shapes: Shapes, receiver: Geometry
    ) -> tuple[Record, Shapes, Geometry]:
        """Fused layers split where only one host fuses them."""
        return fused.agreed(donor, shapes, receiver)

    def parted(self, tensors: Mapping[str, Tensor], origin: Geometry) -> Parameters:
        """The factors of split layers."""
        return fused.parted(tensors, origin)

    def joined(self, made: Made, request: Request, receiver: Geometry) -> Made:
        """The factors of fused layers again."""
        return fused.as_fused(made, request, receiver)

    def cut(self, made: Made, config: Any, rank: int | None, energy: float | None) -> Made:
        """Every change cut to its largest singular values."""
        return cut(made, config, rank, energy)

    def configured(self, rank: int, places: Sequence[str]) -> LoraConfig:
        """As much alpha as rank, which is a scale of 1."""
        return LoraConfig(rank=rank, alpha=rank, targets=tuple(places))

    def points(self, config: LoraConfig, geometry: Geometry) -> dict[str, Linear]:
        """Every target."""
        return targets(config, geometry)

    def factors(self, tensors: Mapping[str, Tensor], point: str) -> tuple[Tensor, Tensor]:
        """B and A."""
        return tensors[f"{point}.lora_B"], tensors[f"{point}.lora_A"]

    def of_factors(self, point: str, up: Tensor, down: Tensor) -> Parameters:
        """B and A by their names."""
        return {f"{point}.lora_B": up, f"{point}.lora_A": down}

    def spaces(self, config: LoraConfig, geometry: Geometry) -> Spaces:
        """What goes into and comes out of every target."""
        points = tuple(targets(config, geometry))
        return Spaces(points, points, points)

    def layer(self, request: Request, donor: Parameters, maps: FittedMaps, seen: Any) -> Parameters:
        """Both factors of its targets."""
        return map_lora(request.config, donor, request.receiver, maps)

    def whole(self, request: Request, made: Parameters, receiving: Receiving) -> Mapped:
        """LoRA, layer by layer."""
        return Mapped("lora", request.config, made, {})


def _idle(point: str, linear: Linear, rank: int) -> Parameters:
    """Factors that change nothing, for a layer without a partner."""
    return {
        f"{point}.lora_A": torch.zeros(rank, linear.inputs),
        f"{point}.lora_B": torch.zeros(linear.outputs, rank),
    }


def map_lora(
    config: LoraConfig, donor: Parameters, geometry: Geometry, maps: FittedMaps
) -> Parameters:
    """B A x -> (P B) (A M) x with the maps P of changes and M of inputs."""
    places = {p: li for p, li in targets(config, geometry).items() if maps.covers(p)}
    mapped = maps.each(tuple(places), partial(_mapped, donor, maps))
    made: Parameters = {}
    for (point, linear), factors in zip(places.items(), mapped, strict=True):
        made |= factors or _idle(point, linear, config.rank)
    return made


def _mapped(donor: Parameters, maps: FittedMaps, point: str) -> Parameters:
    """Both factors of a place; none where its layer has no partner."""
    partner, inputs, change = maps.partner(point), maps.inputs(point), maps.changes(point)
    if partner is None or inputs is None or change is None:
        return {}
    return {
        f"{point}.lora_A": inputs.linear(donor[f"{partner}.lora_A"]),
        f"{point}.lora_B": change @ donor[f"{partner}.lora_B"],
    }

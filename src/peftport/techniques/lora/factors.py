"""What the two LoRA formats share: factors by place become a module whose places are all alike.

Other libraries allow a rank and a scale of their own at every place, and places in some layers
only. A module of peftport has one rank and one scale, at all layers. So factors of lower rank are
padded with zeros, scales that differ are folded into `lora_B`, and places that the file does not
have get zeros, which change nothing.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import INPUT, OUTPUT, SIDES

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Factors:
    """The change at one place: scale * up @ down; down (rank, inputs), up (outputs, rank)."""

    down: Tensor
    up: Tensor
    scale: float

    @property
    def rank(self) -> int:
        """The rank of the change, at most."""
        return self.down.shape[0]


def require_shapes(
    path: Path, names: tuple[str, str], factors: Factors, point: str, rank: int, geometry: Geometry
) -> None:
    """Raise BadInput that names the tensor whose shape is not that of its place on the host.

    Args:
        names: of down and up in the file.
        rank: what the configuration says.
    """
    inputs, outputs = _sizes(point, factors, geometry)
    expected = ((rank, inputs), (outputs, rank))
    for name, tensor, shape in zip(names, (factors.down, factors.up), expected, strict=True):
        if tuple(tensor.shape) != shape:
            raise BadInput(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, expected {shape} on a "
                f"{geometry.family} host of width {geometry.width}."
            )


def _sizes(point: str, factors: Factors, geometry: Geometry) -> tuple[int, int]:
    """Inputs and outputs of a place; an embedding has as many tokens as the factors say."""
    if point == INPUT:
        return factors.down.shape[-1], geometry.width
    if point == OUTPUT:
        return geometry.width, factors.up.shape[0]
    return geometry.linears[point].inputs, geometry.linears[point].outputs


def as_options_and_tensors(
    found: Mapping[str, Factors], options: Mapping[str, Any], geometry: Geometry, path: Path
) -> tuple[dict[str, Any], Parameters]:
    """One module from the factors of its places.

    Args:
        found: place -> factors, at least one.
        options: rank, alpha and rslora of the configuration, kept where they hold at every place.
        path: the file that the factors are from, for messages.

    Returns:
        The technique's options and the module's tensors.
    """
    made = technique("lora")
    rank = max(factors.rank for factors in found.values())
    scale = Counter(factors.scale for factors in found.values()).most_common(1)[0][0]
    options = dict(options)
    if (rank, scale) != (options["rank"], made.configure(options).scale):
        options = {"rank": rank, "alpha": scale * rank}
    options["targets"] = _targets([point for point in found if point not in SIDES], geometry)
    made.configure(options)
    uneven = sum(f.rank != rank or f.scale != scale for f in found.values())
    if uneven:
        _log.info(
            "notice: %s: %d of %d places have another rank or scale; they are padded with zeros "
            "to rank %d, their scale is folded into lora_B",
            *(path, uneven, len(found), rank),
        )
    return options, _evened(found, options, rank, scale, geometry, path)


def _evened(
    found: Mapping[str, Factors],
    options: Mapping[str, Any],
    rank: int,
    scale: float,
    geometry: Geometry,
    path: Path,
) -> Parameters:
    made = technique("lora")
    shapes = made.shapes(made.configure(options), geometry)
    empty = {name: shape for name, shape in shapes.items() if name.rpartition(".")[0] not in found}
    if empty:
        _log.info(
            "notice: %s: %d of %d places are not in the file and get zeros, which change nothing",
            *(path, len(empty) // 2, len(shapes) // 2),
        )
    device = next(iter(found.values())).down.device
    tensors: Parameters = {name: torch.zeros(shape, device=device) for name, shape in empty.items()}
    for point, factors in found.items():
        up = factors.up if factors.scale == scale else factors.up * (factors.scale / scale)
        more = rank - factors.rank
        tensors[f"{point}.lora_A"] = functional.pad(factors.down, (0, 0, 0, more))
        tensors[f"{point}.lora_B"] = functional.pad(up, (0, more))
    return tensors


def _targets(found: Iterable[str], geometry: Geometry) -> list[str] | None:
    """The places as the technique's option says them: None for the default, "all", or roles."""
    roles = {point.split(".", 2)[2] for point in found}
    if roles == {point.split(".", 2)[2] for point in geometry.linears}:
        return ["all"]
    made = technique("lora")
    usual = {name.rpartition(".")[0] for name in made.shapes(made.configure({}), geometry)}
    return None if roles == {point.split(".", 2)[2] for point in usual} else sorted(roles)

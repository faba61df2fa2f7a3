"""Compacter: adapters whose weights are sums of Kronecker products (Mahabadi et al. 2021,
arXiv 2106.04647).

A weight (inputs, outputs) is the sum over n of kron(rule_n, left_n @ right_n), with one rule
(n, n, n) shared by all adapters of the module. Tensors per place and side (down, up): `left`
(n, inputs / n, rank), `right` (n, rank, outputs / n), `bias` (outputs,). There is no canonical
Compacter; this follows AdapterHub's `compacter`, initialisation included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.techniques.adapter import (
    ACTIVATIONS,
    Activation,
    attach_bottlenecks,
    bottleneck_of,
    only_pfeiffer,
    places,
)
from peftport.techniques.base import (
    Configuration,
    Parameters,
    Shapes,
    Technique,
    by_lane,
    lanes_of,
    normal,
)

RULE = "phm_rule"


class CompacterConfig(Configuration):
    """Options of Compacter.

    n: number of Kronecker products; it must divide the host's width and the bottleneck.
    reduction: the bottleneck is the host's width divided by it.
    initial_rule_std: deviation of the shared rule at the start.

    n may be called phm_dim and reduction reduction_factor, as in adapters.
    """

    also: ClassVar[Mapping[str, str]] = {"reduction_factor": "reduction", "phm_dim": "n"}

    n: int = Field(4, ge=1)
    rank: int = Field(1, ge=1)
    reduction: float = Field(32, gt=0)
    activation: Activation = "gelu"
    variant: Literal["houlsby", "pfeiffer"] = "houlsby"
    cross: bool = False
    initial_rule_std: float = Field(1e-4, gt=0)

    @property
    def nonlinearity(self) -> Activation:
        """The activation in use."""
        return self.activation


class Compacter(Technique):
    """Adapters of parametrised hypercomplex multiplication layers with a shared rule."""

    name = "compacter"
    formats: ClassVar = {"adapterhub": "peftport.techniques.compacter.adapterhub:ADAPTERHUB"}
    rewriting = "peftport.techniques.compacter.mapping:CompacterByMaps"
    by_family = True
    learning_rate = 1e-2
    Config = CompacterConfig
    gates = (("up.left", "up.bias"), ("up.right", "up.bias"), (RULE, "up.bias"))

    def shapes(self, config: CompacterConfig, geometry: Geometry) -> Shapes:
        """The rule, and six tensors at every place; BadInput when n does not divide a side."""
        self.require(geometry)
        n, rank, width = config.n, config.rank, geometry.width
        bottleneck = bottleneck_of(config.reduction, geometry)
        for what, size in (("the host's width", width), ("the bottleneck", bottleneck)):
            if size % n:
                raise BadInput(
                    f"compacter: n = {n} does not divide {what} of {size} (width {width}, "
                    f"reduction {config.reduction:g}); choose another n or reduction."
                )
        shapes: Shapes = {RULE: (n, n, n)}
        for place in places(config.variant, config.cross, geometry):
            for side, inputs, outputs in (
                ("down", width, bottleneck),
                ("up", bottleneck, width),
            ):
                shapes[f"{place}.{side}.left"] = (n, inputs // n, rank)
                shapes[f"{place}.{side}.right"] = (n, rank, outputs // n)
                shapes[f"{place}.{side}.bias"] = (outputs,)
        return shapes

    def limit(self, geometry: Geometry) -> str | None:
        """That of adapters."""
        return only_pfeiffer(geometry)

    def initial(
        self, config: CompacterConfig, geometry: Geometry, generator: torch.Generator
    ) -> Parameters:
        """Factors Glorot-normal, rule normal with a small deviation, zero biases."""

        def draw(name: str, shape: tuple[int, ...]) -> Tensor:
            if name == RULE:
                return normal(shape, config.initial_rule_std, generator)
            if len(shape) == 1:
                return torch.zeros(shape)
            return normal(shape, math.sqrt(2 / (shape[1] + shape[2])), generator)

        return {n: draw(n, shape) for n, shape in self.shapes(config, geometry).items()}

    def attach(self, host: Any, config: CompacterConfig, parameters: Parameters) -> Any:
        """Add each adapter's output where its variant acts."""
        activation = ACTIVATIONS[config.activation]
        lanes = lanes_of(parameters)

        def bottleneck(place: str) -> Callable[[Tensor], Tensor]:
            down, up = weight(parameters, f"{place}.down"), weight(parameters, f"{place}.up")
            down_bias = parameters[f"{place}.down.bias"][:, None]  # (lanes, 1, bottleneck)
            up_bias = parameters[f"{place}.up.bias"][:, None]  # (lanes, 1, width)

            def apply(states: Tensor) -> Tensor:
                low = torch.baddbmm(down_bias, by_lane(states, lanes), down)
                return torch.baddbmm(up_bias, activation(low), up).view_as(states)

            return apply

        return attach_bottlenecks(host, config.variant, config.cross, bottleneck)


def weight(parameters: Parameters, side: str) -> Tensor:
    """The dense weight of one side ("encoder.0.ffn.down"): (lanes, inputs, outputs)."""
    rule = parameters[RULE]  # (lanes, n, n, n)
    left, right = parameters[f"{side}.left"], parameters[f"{side}.right"]
    blocks = left @ right  # (lanes, n, inputs / n, outputs / n)
    dense = torch.einsum("lkij,lkpo->lipjo", rule, blocks)
    return dense.reshape(dense.shape[0], dense.shape[1] * dense.shape[2], -1)

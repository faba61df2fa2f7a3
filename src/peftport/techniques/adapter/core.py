"""Bottleneck adapters: Houlsby et al. 2019 (arXiv 1902.00751) and Pfeiffer et al. 2020
(arXiv 2005.00247).

Houlsby's acts on the output of the attention and of the feed-forward layer, before residual and
norm; Pfeiffer's on the residual stream at the end of a layer. Tensors per place: `down.weight`
(bottleneck, width), `down.bias`, `up.weight` (width, bottleneck), `up.bias`. Defaults as in
AdapterHub's `double_seq_bn` and `seq_bn`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.techniques.base import (
    Configuration,
    Parameters,
    Rewrite,
    Shapes,
    Technique,
    by_lane,
    hooked,
    lanes_of,
    normal,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "swish": functional.silu,
    # AdapterHub's "gelu" is the exact one, its "gelu_new" the approximation by tanh.
    "gelu": functional.gelu,
    "gelu_new": lambda states: functional.gelu(states, approximate="tanh"),
}
Activation = Literal["relu", "swish", "gelu", "gelu_new"]


class AdapterConfig(Configuration):
    """Options of bottleneck adapters.

    reduction: the bottleneck is the host's width divided by it, at least 1.
    activation: None takes swish for Houlsby and relu for Pfeiffer.
    cross: Houlsby's adapter also after a decoder's cross-attention.

    reduction may be called reduction_factor, as in adapters.
    """

    also: ClassVar[Mapping[str, str]] = {"reduction_factor": "reduction"}

    variant: Literal["houlsby", "pfeiffer"] = "houlsby"
    reduction: float = Field(16, gt=0)
    activation: Activation | None = None
    cross: bool = False

    @property
    def nonlinearity(self) -> Activation:
        """The activation in use."""
        return self.activation or ("swish" if self.variant == "houlsby" else "relu")


class Adapter(Technique):
    """Bottleneck adapters after the host's sublayers or layers."""

    name = "adapter"
    formats: ClassVar = {"adapterhub": "peftport.techniques.adapter.adapterhub:ADAPTERHUB"}
    rewriting = "peftport.techniques.adapter.mapping:AdapterByMaps"
    by_family = True
    learning_rate = 3e-3
    Config = AdapterConfig
    gates = (("up.weight", "up.bias"),)

    def shapes(self, config: AdapterConfig, geometry: Geometry) -> Shapes:
        """Four tensors at every place."""
        self.require(geometry)
        width, bottleneck = geometry.width, bottleneck_of(config.reduction, geometry)
        shapes: Shapes = {}
        for place in places(config.variant, config.cross, geometry):
            shapes[f"{place}.down.weight"] = (bottleneck, width)
            shapes[f"{place}.down.bias"] = (bottleneck,)
            shapes[f"{place}.up.weight"] = (width, bottleneck)
            shapes[f"{place}.up.bias"] = (width,)
        return shapes

    def limit(self, geometry: Geometry) -> str | None:
        """Houlsby's stands behind feed-forward layers."""
        return only_pfeiffer(geometry)

    def initial(
        self, config: AdapterConfig, geometry: Geometry, generator: torch.Generator
    ) -> Parameters:
        """Weights from a normal distribution of deviation 0.02 and zero biases, as AdapterHub."""
        return {
            name: torch.zeros(shape) if len(shape) == 1 else normal(shape, 0.02, generator)
            for name, shape in self.shapes(config, geometry).items()
        }

    def attach(self, host: Any, config: AdapterConfig, parameters: Parameters) -> Any:
        """Add each adapter's output where its variant acts."""
        activation = ACTIVATIONS[config.nonlinearity]

        def bottleneck(place: str) -> Callable[[Tensor], Tensor]:
            down, up = parameters[f"{place}.down.weight"], parameters[f"{place}.up.weight"]
            down_bias = parameters[f"{place}.down.bias"][:, None]  # (lanes, 1, bottleneck)
            up_bias = parameters[f"{place}.up.bias"][:, None]  # (lanes, 1, width)
            lanes = lanes_of(parameters)

            def apply(states: Tensor) -> Tensor:
                low = torch.baddbmm(down_bias, by_lane(states, lanes), down.mT)
                return torch.baddbmm(up_bias, activation(low), up.mT).view_as(states)

            return apply

        return attach_bottlenecks(host, config.variant, config.cross, bottleneck)


def only_pfeiffer(geometry: Geometry) -> str | None:
    """Why only some adapters can be made for such hosts; None where all can."""
    if any(point.endswith(".ffn.down") for point in geometry.linears):
        return None
    return "its feed-forward layers are experts; of adapters Pfeiffer's can stand, not Houlsby's"


def places(variant: str, cross: bool, geometry: Geometry) -> dict[str, str]:
    """Where adapters act: name of the place -> name of the linear layer or block it follows.

    BadInput: Houlsby's on a host whose feed-forward layers are experts, none of which is the last.
    """
    if variant == "pfeiffer":
        return {f"{block}.block": block for block in geometry.blocks}
    if only_pfeiffer(geometry):
        raise BadInput(
            f"the feed-forward layers of a {geometry.family} host are experts, after which no "
            "adapter of Houlsby's can stand; --set variant=pfeiffer stands at the end of a layer."
        )
    outputs = {"self.o": "self", "ffn.down": "ffn"} | ({"cross.o": "cross"} if cross else {})
    named = {}
    for point in geometry.linears:
        stack, layer, role = point.split(".", 2)
        if role in outputs:
            named[f"{stack}.{layer}.{outputs[role]}"] = point
    return named


def bottleneck_of(reduction: float, geometry: Geometry) -> int:
    """Width of the bottleneck; BadInput when it would be wider than the host."""
    if reduction < 1:
        raise BadInput(
            f"reduction {reduction:g} makes a bottleneck wider than the host's {geometry.width}; "
            "give 1 or more."
        )
    return max(1, int(geometry.width // reduction))


def attach_bottlenecks(
    host: Any, variant: str, cross: bool, bottleneck: Callable[[str], Callable[[Tensor], Tensor]]
) -> Any:
    """Hook bottlenecks (place -> f(states) -> change of the states) into the host."""
    rewrites: dict[str, Rewrite] = {}
    for place, point in places(variant, cross, host.geometry).items():
        apply = bottleneck(place)
        if variant == "houlsby":
            rewrites[host.geometry.linears[point].path] = _after(apply)
        else:
            block = host.geometry.blocks[point]
            norm = host.part(block.path) if block.norm else None
            rewrites[block.path] = _after(apply) if norm is None else _around_norm(apply, norm)
    return hooked(host, rewrites)


def _after(apply: Callable[[Tensor], Tensor]) -> Rewrite:
    return lambda _inputs, output: output + apply(output)


def _around_norm(apply: Callable[[Tensor], Tensor], norm: Any) -> Rewrite:
    """Pfeiffer in a post-norm host: adapt the normed state, add to the sum, norm it again."""

    def rewrite(summed: Tensor, normed: Tensor) -> Tensor:
        return norm.forward(summed + apply(normed))  # without this hook

    return rewrite

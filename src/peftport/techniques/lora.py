"""LoRA: a low-rank change of linear layers (Hu et al. 2021, arXiv 2106.09685).

Tensors per target: `<point>.lora_A` (rank, inputs), `<point>.lora_B` (outputs, rank). The change
of the weight is scale * lora_B @ lora_A, with scale alpha / rank, or alpha / sqrt(rank) with
rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732). Defaults as in peft.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry, Linear
from peftport.techniques.base import (
    Configuration,
    Parameters,
    Rewrite,
    Shapes,
    Technique,
    by_lane,
    hooked,
    lanes_of,
    uniform,
)


class LoraConfig(Configuration):
    """Options of LoRA.

    targets: names of linear layers, by their last part ("q") or by attention or feed-forward
        ("self.q", "ffn.up"); "all" takes every one; None takes what peft takes for the family.
    """

    rank: int = Field(8, ge=1)
    alpha: float = Field(8.0, gt=0)
    rslora: bool = False
    targets: tuple[str, ...] | None = None

    @property
    def scale(self) -> float:
        """What the product of the two factors is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class Lora(Technique):
    """LoRA on linear layers of the host."""

    name = "lora"
    learning_rate = 3e-3
    Config = LoraConfig
    gates = (("lora_B",), ("lora_A",))

    def shapes(self, config: LoraConfig, geometry: Geometry) -> Shapes:
        """Two factors for every target; BadInput when a target does not exist on the host."""
        shapes: Shapes = {}
        for point, linear in targets(config, geometry).items():
            shapes[f"{point}.lora_A"] = (config.rank, linear.inputs)
            shapes[f"{point}.lora_B"] = (linear.outputs, config.rank)
        return shapes

    def initial(
        self, config: LoraConfig, geometry: Geometry, generator: torch.Generator
    ) -> Parameters:
        """A as peft draws it (Kaiming uniform, a = sqrt 5), B zero: no change at first."""
        return {
            name: torch.zeros(shape)
            if name.endswith("lora_B")
            else uniform(shape, 1 / math.sqrt(shape[1]), generator)
            for name, shape in self.shapes(config, geometry).items()
        }

    def attach(self, host: Any, config: LoraConfig, parameters: Parameters) -> Any:
        """Add each target's low-rank change to its output."""

        def change(point: str) -> Rewrite:
            down, up = parameters[f"{point}.lora_A"], parameters[f"{point}.lora_B"]
            lanes = lanes_of(parameters)

            def rewrite(inputs: Tensor, output: Tensor) -> Tensor:
                if inputs.shape[0] % lanes:
                    raise BadInput(
                        f"{point} of a {host.geometry.family} host reads positions that all rows "
                        "share: modules on it are trained and tested one at a time (lanes: 1)."
                    )
                states = by_lane(inputs.to(down.dtype), lanes)  # (lanes, batch*tokens, inputs)
                low = torch.bmm(states, down.mT)  # (lanes, batch*tokens, rank)
                delta = torch.bmm(low, up.mT)  # (lanes, batch*tokens, outputs)
                return torch.add(output, delta.view_as(output), alpha=config.scale)

            return rewrite

        points = (n.removesuffix(".lora_A") for n in parameters if n.endswith(".lora_A"))
        by_path: dict[str, list[Rewrite]] = {}
        for point in points:
            linear = host.geometry.linears[point]
            by_path.setdefault(linear.path, []).append(_of_rows(linear, change(point)))
        return hooked(host, {path: _in_turn(changes) for path, changes in by_path.items()})


def _of_rows(linear: Linear, change: Rewrite) -> Rewrite:
    """A change of a part of a layer as one of the whole layer."""
    if linear.rows is None:
        return change
    places = [place for start, stop in linear.rows for place in range(start, stop)]

    def rewrite(inputs: Tensor, output: Tensor) -> Tensor:
        index = torch.tensor(places, device=output.device)
        part = output.index_select(-1, index)
        return output.index_add(-1, index, change(inputs, part) - part)

    return rewrite


def _in_turn(changes: list[Rewrite]) -> Rewrite:
    """Several changes of one layer's output."""

    def rewrite(inputs: Tensor, output: Tensor) -> Tensor:
        for change in changes:
            output = change(inputs, output)
        return output

    return rewrite if len(changes) > 1 else changes[0]


def targets(config: LoraConfig, geometry: Geometry) -> dict[str, Linear]:
    """The linear layers that LoRA changes; BadInput names a target that the host lacks."""
    wanted = config.targets or geometry.lora_targets
    roles = {point.split(".", 2)[2] for point in geometry.linears}
    for target in wanted:
        if target != "all" and not any(_fits(role, target) for role in roles):
            raise BadInput(
                f"lora: no linear layer called {target!r} on a {geometry.family} host; "
                f"it has {', '.join(sorted(roles))}, or all."
            )
    return {
        point: linear
        for point, linear in geometry.linears.items()
        if "all" in wanted or any(_fits(point.split(".", 2)[2], target) for target in wanted)
    }


def _fits(role: str, target: str) -> bool:
    return role == target or role.endswith(f".{target}")

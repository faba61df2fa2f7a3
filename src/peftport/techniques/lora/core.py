"""LoRA: a low-rank change of linear layers (Hu et al. 2021, arXiv 2106.09685).

Tensors per target: `<point>.lora_A` (rank, inputs), `<point>.lora_B` (outputs, rank). The change
of the weight is scale * lora_B @ lora_A, with scale alpha / rank, or alpha / sqrt(rank) with
rank-stabilised LoRA (Kalajdzievski 2023, arXiv 2312.03732). Defaults as in peft.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry, Linear
from peftport.techniques.base import (
    Configuration,
    Parameters,
    Rewrite,
    Shapes,
    Technique,
    WeightChange,
    by_lane,
    hooked,
    lanes_of,
    uniform,
)

_ALL = ("all", "all-linear")


class LoraConfig(Configuration):
    """Options of LoRA.

    targets: names of linear layers, by their last part ("q") or by attention or feed-forward
        ("self.q", "ffn.up"), or as the host's model calls them ("q_proj"); "all" takes every one,
        as peft's "all-linear" does; None takes what peft takes for the family.

    peft's names of them are understood as well: r, lora_alpha, use_rslora, target_modules.
    """

    also: ClassVar[Mapping[str, str]] = {
        "r": "rank",
        "lora_alpha": "alpha",
        "use_rslora": "rslora",
        "target_modules": "targets",
    }

    rank: int = Field(8, ge=1)
    alpha: float = Field(8.0, gt=0)
    rslora: bool = False
    targets: tuple[str, ...] | None = None

    @field_validator("targets", mode="before")
    @classmethod
    def _as_tuple(cls, value: object) -> object:
        """One name stands for a list of it, as in peft's "all-linear"."""
        return (value,) if isinstance(value, str) else value

    @property
    def scale(self) -> float:
        """What the product of the two factors is multiplied with."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


class Lora(Technique):
    """LoRA on linear layers of the host."""

    name = "lora"
    formats: ClassVar = {
        "peft": "peftport.techniques.lora.peft:PEFT",
        "adapterhub": "peftport.techniques.lora.adapterhub:ADAPTERHUB",
    }
    rewriting = "peftport.techniques.lora.mapping:LoraByMaps"
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

    def fold(
        self, config: LoraConfig, geometry: Geometry, parameters: Parameters
    ) -> tuple[LoraConfig, Parameters]:
        """Targets that are called as in the host's model get the names that all families share, so
        that the module can go to a host of another."""
        return _by_roles(config, geometry), parameters

    def changes(self, config: LoraConfig, geometry: Geometry) -> dict[str, WeightChange]:
        """scale * lora_B @ lora_A at every target."""

        def change(down: str, up: str) -> WeightChange:
            return WeightChange((down, up), lambda own: config.scale * (own[up] @ own[down]))

        points = targets(config, geometry)
        return {point: change(f"{point}.lora_A", f"{point}.lora_B") for point in points}

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


def _by_roles(config: LoraConfig, geometry: Geometry) -> LoraConfig:
    """The configuration with targets under names that all families share."""
    wanted = config.targets or ()
    roles = {point.split(".", 2)[2] for point in geometry.linears}
    if all(name == "all" or any(f".{r}".endswith(f".{name}") for r in roles) for name in wanted):
        return config
    chosen = {point.split(".", 2)[2] for point in targets(config, geometry)}
    named = ("all",) if chosen == roles else tuple(sorted(chosen))
    return config.model_copy(update={"targets": named})


def targets(config: LoraConfig, geometry: Geometry) -> dict[str, Linear]:
    """The linear layers that LoRA changes; BadInput names a target that the host lacks, or that is
    of some layers alone."""
    wanted = config.targets or geometry.lora_targets
    linears = geometry.linears.items()
    for target in wanted:
        if not any(_fits(point, linear, target) for point, linear in linears):
            roles = {point.split(".", 2)[2] for point in geometry.linears}
            raise BadInput(
                f"lora: no linear layer called {target!r} on a {geometry.family} host; "
                f"it has {', '.join(sorted(roles))}, or all."
            )
    found = {
        point: linear
        for point, linear in linears
        if any(_fits(point, linear, target) for target in wanted)
    }
    roles = {point.split(".", 2)[2] for point in found}
    if left_out := [p for p, _ in linears if p not in found and p.split(".", 2)[2] in roles]:
        raise BadInput(
            f"lora: targets {', '.join(map(repr, wanted))} are of some layers and not of "
            f"{left_out[0]!r}, say: name parts of layers, such as {min(roles)}, which are changed "
            "in all of them."
        )
    return found


def _fits(point: str, linear: Linear, target: str) -> bool:
    """Whether a linear layer is meant: by its role, by its name in the model, or by "all"."""
    role = point.split(".", 2)[2]
    named = f".{role}".endswith(f".{target}") or f".{linear.path}".endswith(f".{target}")
    return named or target in _ALL

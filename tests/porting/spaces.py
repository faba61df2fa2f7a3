"""What the tests of maps share: drawn tensors, and maps that are known instead of fitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from peftport.hosts.geometry import Geometry, geometry_of
from peftport.porting.activations import Observed
from peftport.porting.fitted import FittedMaps
from peftport.porting.layers import Pairs
from peftport.porting.semi_orthogonal import InputMap
from tiny_hosts import build_model


def drawn(seed: int, *shape: int) -> Tensor:
    """Normal entries of a seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def geometry(family: str, width: int | None = None, layers: int | None = None) -> Geometry:
    """The geometry of a tiny host, or of one of another width or depth."""
    config = _config(family)
    config = config | ({"head_dim": 8} if family in ("llama", "qwen2") else {})
    for names, value in (
        (("hidden_size", "d_model", "n_embd"), width),
        (("num_hidden_layers", "num_layers", "num_decoder_layers", "n_layer"), layers),
    ):
        config |= {name: value for name in names if name in config and value is not None}
    return geometry_of(config, family)


@cache
def _config(family: str) -> dict[str, Any]:
    return build_model(family).config.to_dict()


@dataclass
class Known:
    """A fit that gives maps drawn for the samples it is shown, and counts how often it is asked."""

    asked: list[str] = field(default_factory=list)
    uses_gradients: bool = False
    gradients: list[object] = field(default_factory=list)

    def inputs(self, origin: Tensor, receiver: Tensor) -> InputMap:
        """A map with a constant."""
        self.asked.append("inputs")
        return _drawn_map(origin, receiver)

    def prefixes(self, origin: Tensor, receiver: Tensor) -> InputMap:
        """The same, from the originating host to the receiving one."""
        self.asked.append("prefixes")
        return _drawn_map(receiver, origin)

    def changes(
        self, origin: Tensor, receiver: Tensor, gradients: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """A matrix."""
        self.asked.append("changes")
        self.gradients.append(gradients)
        return drawn(_seed(receiver), receiver.shape[1], origin.shape[1])


def known_maps(origin: Geometry, receiver: Geometry, pairs: Pairs | None = None) -> FittedMaps:
    """Known maps for every place of two hosts."""
    same = {layer: layer for layer in receiver.blocks}
    sides = (_observed(origin, 0), _observed(receiver, 1))
    return FittedMaps(Known(), same if pairs is None else pairs, *sides)


def _observed(shape: Geometry, seed: int) -> Observed:
    """Two samples at every place, told apart by their values."""
    inputs = {
        p: drawn(seed + 2 * n, 2, li.inputs) for n, (p, li) in enumerate(shape.linears.items())
    }
    outputs = {
        p: drawn(seed + 3 * n, 2, li.outputs) for n, (p, li) in enumerate(shape.linears.items())
    }
    outputs |= {b: drawn(seed + 5 * n, 2, shape.width) for n, b in enumerate(shape.blocks)}
    for n, (name, each) in enumerate(shape.attentions.items()):
        size = each.kv_heads * each.head_dim
        outputs |= {f"{name}.{what}": drawn(seed + n, 2, size) for what in ("keys", "values")}
    return Observed(inputs, outputs)


def _drawn_map(to: Tensor, of: Tensor) -> InputMap:
    matrix = drawn(_seed(of), to.shape[1], of.shape[1])
    return InputMap(matrix, to.mean(0), of.mean(0))


def _seed(states: Tensor) -> int:
    return int(states.abs().sum() * 1000)

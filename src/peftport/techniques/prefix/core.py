"""Prefix tuning: trained keys and values before those of every attention (Li & Liang 2021,
arXiv 2101.00190).

Tensors per attention: `<attention>.keys`, `<attention>.values`, both (length, kv_heads *
head_dim), heads inside. Optionally one small network makes them all while training; it is folded
away on saving.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Attention, Geometry
from peftport.techniques.base import (
    Configuration,
    Parameters,
    Shapes,
    Technique,
    normal,
    uniform,
)

if TYPE_CHECKING:
    from peftport.hosts.host import Host

_NETWORK = "reparametrisation"


class PrefixConfig(Configuration):
    """Options of prefix tuning.

    length: number of prefix positions.
    attentions: which attentions get a prefix, as "encoder.self", "decoder.self",
        "decoder.cross"; None is every attention of the host.
    shift_positions: the text's positions begin after the prefix, as in peft; False leaves them,
        as AdapterHub does. Of no effect on hosts without absolute or rotary positions.
    initial_std: deviation of the keys and values at the start, where they are drawn.
    initial_text: begin instead with what the host itself makes of this text's first tokens, over
        and over where it has fewer than `length`.
    reparametrise: train an embedding and a network that gives the keys and values.
    bottleneck: width of that network's hidden layer.

    length may be called num_virtual_tokens, as in peft.
    """

    also: ClassVar[Mapping[str, str]] = {"num_virtual_tokens": "length"}
    later: ClassVar[frozenset[str]] = frozenset({"initial_text"})

    length: int = Field(30, ge=1)
    attentions: tuple[str, ...] | None = None
    shift_positions: bool = True
    initial_std: float = Field(1.0, gt=0)
    initial_text: str | None = None
    reparametrise: bool = False
    bottleneck: int = Field(512, ge=1)

    @model_validator(mode="after")
    def _one_start(self) -> PrefixConfig:
        if self.initial_text is not None and not self.initial_text.strip():
            raise ValueError("initial_text has no word: give some, or leave it out")
        if self.reparametrise and self.initial_text is not None:
            raise ValueError("initial_text and reparametrise are two ways to start: give one")
        return self


class PrefixTuning(Technique):
    """Keys and values before the text, in every attention."""

    name = "prefix"
    formats: ClassVar = {
        "peft": "peftport.techniques.prefix.peft:PEFT",
        "adapterhub": "peftport.techniques.prefix.adapterhub:ADAPTERHUB",
    }
    rewriting = "peftport.techniques.prefix.mapping:PrefixByMaps"
    by_family = True
    learning_rate = 3e-2
    Config = PrefixConfig

    def shapes(self, config: PrefixConfig, geometry: Geometry) -> Shapes:
        """Keys and values, or the network that makes them; BadInput for an unknown attention."""
        self.require(geometry)
        sizes = {
            p: a.kv_heads * a.head_dim for p, a in prefixed_attentions(config, geometry).items()
        }
        if not config.reparametrise:
            return {
                f"{point}.{what}": (config.length, size)
                for point, size in sizes.items()
                for what in ("keys", "values")
            }
        total = 2 * sum(sizes.values())
        return {
            f"{_NETWORK}.embedding": (config.length, geometry.width),
            f"{_NETWORK}.down.weight": (config.bottleneck, geometry.width),
            f"{_NETWORK}.down.bias": (config.bottleneck,),
            f"{_NETWORK}.up.weight": (total, config.bottleneck),
            f"{_NETWORK}.up.bias": (total,),
        }

    def initial(
        self, config: PrefixConfig, geometry: Geometry, generator: torch.Generator
    ) -> Parameters:
        """Keys and values from a normal distribution; the network as torch's own layers start."""

        def draw(name: str, shape: tuple[int, ...]) -> Tensor:
            if not name.startswith(_NETWORK):
                return normal(shape, config.initial_std, generator)
            if name.endswith("embedding"):
                return normal(shape, 1.0, generator)
            fan_in = geometry.width if ".down." in name else config.bottleneck
            return uniform(shape, 1 / math.sqrt(fan_in), generator)

        return {n: draw(n, shape) for n, shape in self.shapes(config, geometry).items()}

    def initial_on(
        self, config: PrefixConfig, host: Host, generator: torch.Generator
    ) -> Parameters:
        """Keys and values as `initial` draws them, or those that the host has of `initial_text`.

        Raises:
            BadInput: the text has no token, or the host no room for the prefix.
        """
        start = self.initial(config, host.geometry, generator)
        if config.initial_text is None:
            return start
        from peftport.techniques.prefix.words import keys_and_values

        places = prefixed_attentions(config, host.geometry)
        return start | keys_and_values(host, places, config.initial_text, config.length)

    def starts_from_weights(self, config: PrefixConfig) -> str | None:
        """`initial_text`, where it begins as one."""
        return None if config.initial_text is None else "initial_text"

    def fold(
        self, config: PrefixConfig, geometry: Geometry, parameters: Parameters
    ) -> tuple[PrefixConfig, Parameters]:
        """Run the network once and keep its keys and values; anything else stays."""
        if f"{_NETWORK}.embedding" not in parameters:
            return config.model_copy(update={"reparametrise": False}), parameters
        kept = {n: t for n, t in parameters.items() if not n.startswith(_NETWORK)}
        down, up = (
            (parameters[f"{_NETWORK}.{side}.weight"], parameters[f"{_NETWORK}.{side}.bias"])
            for side in ("down", "up")
        )
        embedding = parameters[f"{_NETWORK}.embedding"]  # ([lanes,] length, width)
        hidden = torch.tanh(embedding @ down[0].mT + down[1].unsqueeze(-2))
        flat = hidden @ up[0].mT + up[1].unsqueeze(-2)  # ([lanes,] length, total)
        folded = config.model_copy(update={"reparametrise": False})
        shapes = self.shapes(folded, geometry)
        parts = flat.split([size for _, size in shapes.values()], dim=-1)
        return folded, kept | dict(zip(shapes, parts, strict=True))

    @contextmanager
    def attach(self, host: Any, config: PrefixConfig, parameters: Parameters) -> Iterator[None]:
        """Put the prefixes before their attentions and shift the text's positions."""
        points = prefixed_attentions(config, host.geometry)
        config, parameters = self.fold(config, host.geometry, parameters)
        with prefixed(host, config, points, parameters):
            yield


@contextmanager
def prefixed(
    host: Any, config: PrefixConfig, points: Mapping[str, Attention], parameters: Parameters
) -> Iterator[None]:
    """Put prefixes, with the lane axis, before some attentions and shift the text's positions."""
    from peftport.hosts.attention import Prefix, set_prefix

    with ExitStack() as stack:
        for point, attention in points.items():
            module = host.part(attention.path)
            bias = host.part(attention.bias) if attention.bias else None
            keys = _by_head(parameters[f"{point}.keys"], attention)
            values = _by_head(parameters[f"{point}.values"], attention)
            set_prefix(module, Prefix(keys, values, bias))
            stack.callback(set_prefix, module, None)
        if config.shift_positions:
            host.position_shift = config.length
            stack.callback(setattr, host, "position_shift", 0)
        yield


def prefixed_attentions(config: PrefixConfig, geometry: Geometry) -> dict[str, Attention]:
    """The attentions that get a prefix; BadInput names one that the host lacks."""
    kinds = {_kind(point): None for point in geometry.attentions}
    for wanted in config.attentions or ():
        if wanted not in kinds:
            raise BadInput(
                f"prefix: no attention called {wanted!r} on a {geometry.family} host; "
                f"it has {', '.join(kinds)}."
            )
    return {
        point: attention
        for point, attention in geometry.attentions.items()
        if config.attentions is None or _kind(point) in config.attentions
    }


def _kind(point: str) -> str:
    """ "encoder.3.self" -> "encoder.self"."""
    stack, _, which = point.split(".")
    return f"{stack}.{which}"


def _by_head(flat: Tensor, attention: Attention) -> Tensor:
    """(lanes, length, kv_heads * head_dim) -> (lanes, kv_heads, length, head_dim)."""
    return flat.unflatten(-1, (attention.kv_heads, attention.head_dim)).transpose(1, 2)

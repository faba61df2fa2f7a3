"""Prefix tuning in AdapterHub folders.

One flat tensor `prefix_tuning.prefix_tunings.<name>.self_prefix.control_trans` (length * layers * 2
* size,), or the embedding and network that make it, which are folded away. adapters leaves the
text's positions where they are. Every layer's attention holds the same pool of prefixes, so that a
pickle has each tensor many times.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.adapterhub_layout import NAME, Hub, inside, layout_of
from peftport.modules.formats.base import Draft
from peftport.modules.formats.keeping import InAdapterHub
from peftport.modules.module import Module
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.prefix import PrefixConfig, prefixed_attentions

_HALVES = ("keys", "values")
_WITHOUT: dict[str, tuple[Any, ...]] = {
    "leave_out": ([],),
    "use_gating": (False,),
    "non_linearity": ("tanh",),
    "flat": (True, False),
}
# Of how a module trains, or of stacks that the hosts here do not have.
_NEUTRAL = {
    **{"encoder_prefix": True, "cross_prefix": True, "dropout": 0.0, "bottleneck_size": 512},
    **{"shared_gating": True, "init_weights_seed": None},
}


def read(hub: Hub) -> Draft:
    """Read keys and values; BadInput on hosts where adapters computes something of its own."""
    hub.require(_WITHOUT)
    hub.require_known(_WITHOUT.keys() | _NEUTRAL.keys() | {"architecture", "prefix_length"})
    prefixes = layout_of(hub.geometry)["prefixes"]
    if not prefixes:
        hub.refuse("architecture", f"prefix_tuning: {_no_positions(hub.geometry)}")
    ((group, kind),) = prefixes.items()
    length, parts = hub.number("prefix_length"), _parts(hub, group)
    stack, which = kind.split(".")
    layers, size = hub.geometry.stacks[stack], hub.geometry.kv_heads * hub.geometry.head_dim
    states = _flat(hub, parts, length, layers * 2 * size).view(length, layers, 2, size)
    tensors = {
        f"{stack}.{layer}.{which}.{what}": states[:, layer, half]
        for layer in range(layers)
        for half, what in enumerate(_HALVES)
    }
    return Draft("prefix", {"length": length, "shift_positions": False}, tensors, hub.path)


def holds(config: PrefixConfig, geometry: Geometry, names: Collection[str]) -> None:
    """Raise BadInput where adapters would do something else with a prefix."""
    if not layout_of(geometry)["prefixes"]:
        raise BadInput(f"{_no_positions(geometry)}. Write it with --format peft or peftport.")
    if config.shift_positions:
        raise BadInput(
            "adapters leaves the text's positions where they are; this module counts them from "
            "after the prefix (shift_positions is true). Write it with --format peft or peftport."
        )


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    geometry = module.geometry
    config, body = technique("prefix").fold(module.config, geometry, module.tensors)
    (group,) = layout_of(geometry)["prefixes"]
    parts = [
        body[f"{point}.{what}"]
        for point in prefixed_attentions(config, geometry)
        for what in _HALVES
    ]
    flat = torch.stack(parts, dim=1).flatten()  # (length, layers * 2, size) flattened
    options = {key: values[0] for key, values in _WITHOUT.items()} | _NEUTRAL
    options |= {"architecture": "prefix_tuning", "prefix_length": config.length}
    before = f"{inside(geometry)}prefix_tuning.prefix_tunings.{NAME}.{group}"
    return options, {f"{before}.control_trans": flat}


def _no_positions(geometry: Geometry) -> str:
    return (
        f"on {geometry.family} hosts adapters counts the positions of a prefix in a way of its "
        "own, which peftport does not follow"
    )


def _parts(hub: Hub, group: str) -> Parameters:
    """The tensors of the prefix by their last names; copies must be alike."""
    found: Parameters = {}
    for key, tensor in hub.tensors.items():
        _, name = hub.split(key, "prefix_tunings")
        inner = name.removeprefix(f"{group}.")
        if not name.startswith(f"{group}."):
            raise BadInput(
                f"{hub.path}: tensor {key!r} belongs to no prefix of a {hub.geometry.family} host."
            )
        known = found.setdefault(inner, tensor)
        alike = known.shape == tensor.shape and (known.is_meta or torch.equal(known, tensor))
        if not alike:
            raise BadInput(f"{hub.path}: tensor {key!r} is not what other layers have of it.")
    return found


def _flat(hub: Hub, parts: Parameters, length: int, total: int) -> Tensor:
    """Keys and values of all layers, (length, total)."""
    if hub.config.get("flat"):
        shapes: dict[str, tuple[int | None, ...]] = {"control_trans": (length * total,)}
    else:
        shapes = {
            "wte.weight": (length, None),
            "control_trans.0.weight": (None, None),
            "control_trans.0.bias": (None,),
            "control_trans.2.weight": (total, None),
            "control_trans.2.bias": (total,),
        }
    _require(hub, parts, shapes)
    if hub.config.get("flat"):
        return parts["control_trans"].view(length, total)
    hidden = parts["wte.weight"] @ parts["control_trans.0.weight"].mT
    hidden = torch.tanh(hidden + parts["control_trans.0.bias"])  # (length, bottleneck)
    return hidden @ parts["control_trans.2.weight"].mT + parts["control_trans.2.bias"]


def _require(hub: Hub, parts: Parameters, shapes: dict[str, tuple[int | None, ...]]) -> None:
    """Raise BadInput for a part that is missing, surplus or of another shape; None is any size."""
    for name in parts.keys() - shapes.keys():
        raise BadInput(f"{hub.path}: tensor '...{name}' is not one of this prefix's.")
    for name, shape in shapes.items():
        if name not in parts:
            raise BadInput(f"{hub.path} lacks the prefix's tensor {name!r}.")
        found = tuple(parts[name].shape)
        fits = len(found) == len(shape) and all(
            wanted in (None, size) for wanted, size in zip(shape, found, strict=True)
        )
        if not fits:
            raise BadInput(f"{hub.path}: tensor '...{name}' has shape {found}, expected {shape}.")


def _host_arguments(geometry: Geometry) -> str:
    """Under SDPA adapters ignores prefixes of decoders."""
    return ', attn_implementation="eager"' if geometry.kind == "decoder" else ""


ADAPTERHUB = InAdapterHub("prefix_tuning", read, written, holds, host_arguments=_host_arguments)

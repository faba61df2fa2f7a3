"""Compacter in AdapterHub folders: `compacter` (Houlsby), `compacter++` (Pfeiffer)."""

from __future__ import annotations

from typing import Any

from peftport.modules.formats.adapterhub_layout import Hub
from peftport.modules.formats.base import Draft
from peftport.modules.formats.keeping import InAdapterHub
from peftport.modules.module import Module
from peftport.techniques.adapter.adapterhub import (
    PHM,
    read_options,
    translated,
    written_options,
    written_tensors,
)
from peftport.techniques.base import Parameters

_SUFFIXES = {
    "down.left": "adapter_down.0.W_left",
    "down.right": "adapter_down.0.W_right",
    "down.bias": "adapter_down.0.b",
    "up.left": "adapter_up.W_left",
    "up.right": "adapter_up.W_right",
    "up.bias": "adapter_up.b",
}


def read(hub: Hub) -> Draft:
    """Read a compacter."""
    options = read_options(hub)
    hub.require(PHM)
    options |= {"n": hub.number("phm_dim"), "rank": hub.number("phm_rank")}
    return Draft("compacter", options, translated(hub, "compacter", options, _SUFFIXES), hub.path)


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    config = module.config
    options = written_options(config) | {"phm_layer": True, "non_linearity": config.nonlinearity}
    options |= {"phm_dim": config.n, "phm_rank": config.rank}
    options["phm_init_range"] = config.initial_rule_std
    return options, written_tensors(module, _SUFFIXES)


ADAPTERHUB = InAdapterHub(None, read, written, meant=lambda config: bool(config.get("phm_layer")))

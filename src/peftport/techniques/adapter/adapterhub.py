"""Bottleneck adapters in AdapterHub folders: `double_seq_bn` (Houlsby), `seq_bn` (Pfeiffer).

Compacter's files differ in how a bottleneck's two sides are kept, and share the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.adapterhub_layout import NAME, Hub, inside, layout_of, path_in_model
from peftport.modules.formats.base import Draft
from peftport.modules.formats.keeping import InAdapterHub
from peftport.modules.formats.places import Places
from peftport.modules.module import Module
from peftport.techniques import technique
from peftport.techniques.adapter import ACTIVATIONS, places
from peftport.techniques.base import Parameters

_SUFFIXES = {
    "down.weight": "adapter_down.0.weight",
    "down.bias": "adapter_down.0.bias",
    "up.weight": "adapter_up.weight",
    "up.bias": "adapter_up.bias",
}
# What tells the two variants apart; then what peftport's adapters do not have, with the values
# that stand for not having it.
_VARIANTS: dict[str, dict[str, Any]] = {
    "houlsby": {"mh_adapter": True, "output_adapter": True, "original_ln_before": False},
    "pfeiffer": {"mh_adapter": False, "output_adapter": True, "original_ln_before": True},
}
_WITHOUT: dict[str, tuple[Any, ...]] = {
    "original_ln_after": (True,),
    "residual_before_ln": (True,),
    "ln_before": (False,),
    "ln_after": (False,),
    "is_parallel": (False,),
    "scaling": (1.0, 1),
    "use_gating": (False,),
    "inv_adapter": (None,),
    "leave_out": ([],),
    "phm_layer": (False, True),
    "cross_adapter": (False, True),
}
PHM: dict[str, tuple[Any, ...]] = {
    "shared_phm_rule": (True,),
    "factorized_phm_W": (True,),
    "factorized_phm_rule": (False,),
    "shared_W_phm": (False,),
    "phm_bias": (True,),
}
"""Of Compacter's layers, and without effect on others."""
# Of how a module starts and trains, or without effect in the two variants.
_NEUTRAL = {
    **{"adapter_residual_before_ln": False, "init_weights": "bert", "init_weights_seed": None},
    **{"inv_adapter_reduction_factor": None, "dropout": 0.0, "stochastic_depth": 0.0},
    **{"phm_dim": 4, "phm_rank": 1, "phm_c_init": "normal", "phm_init_range": 1e-4},
    **{"learn_phm": True, "hypercomplex_nonlinearity": "glorot-uniform"},
}


def read(hub: Hub) -> Draft:
    """Read an adapter."""
    options = read_options(hub)
    return Draft("adapter", options, translated(hub, "adapter", options, _SUFFIXES), hub.path)


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    config = module.config
    options = written_options(config) | {"phm_layer": False, "non_linearity": config.nonlinearity}
    return options, written_tensors(module, _SUFFIXES)


def read_options(hub: Hub) -> dict[str, Any]:
    """The options that an adapter and a compacter have in common; BadInput for what adapters has
    and peftport has not."""
    hub.require(_WITHOUT)
    hub.require_known(
        {"architecture", "reduction_factor", "non_linearity"}
        | _NEUTRAL.keys()
        | _WITHOUT.keys()
        | PHM.keys()
        | _VARIANTS["houlsby"].keys()
    )
    options = {
        "variant": _variant(hub),
        "reduction": hub.number("reduction_factor", float),
        "activation": _activation(hub),
        "cross": bool(hub.config.get("cross_adapter")),
    }
    if options["variant"] == "pfeiffer" and options["cross"]:
        hub.refuse("cross_adapter", "True beside `seq_bn`: a variant that peftport does not read")
    if hub.geometry.kind != "encoder-decoder":
        options["cross"] = False  # of no effect where there is no cross-attention
    return options


def written_options(config: Any) -> dict[str, Any]:
    """Those options as adapters calls them."""
    cross = config.cross and config.variant != "pfeiffer"  # of no effect in that variant
    options = {key: values[0] for key, values in (_WITHOUT | PHM).items()}
    options |= _NEUTRAL | _VARIANTS[config.variant]
    return options | {"reduction_factor": config.reduction, "cross_adapter": cross}


def written_tensors(module: Module, suffixes: Mapping[str, str]) -> Parameters:
    """A module's tensors by their names in the model that it is written for; arguments as for
    `translated`."""
    names = _names(module.technique, module.config, module.geometry, NAME, suffixes)
    return {theirs: module.tensors[ours] for ours, theirs in names.items()}


def _variant(hub: Hub) -> str:
    for name, wanted in _VARIANTS.items():
        if all(hub.config.get(key) is value for key, value in wanted.items()):
            return name
    found = {key: hub.config.get(key) for key in _VARIANTS["houlsby"]}
    hub.refuse("mh_adapter", f"{found} is neither `double_seq_bn` nor `seq_bn`")


def _activation(hub: Hub) -> str:
    found = hub.config.get("non_linearity")
    if not isinstance(found, str) or found.lower() not in ACTIVATIONS:
        hub.refuse("non_linearity", f"{found!r}; peftport has {', '.join(ACTIVATIONS)}")
    return found.lower()


def translated(
    hub: Hub, name: str, options: Mapping[str, Any], suffixes: Mapping[str, str]
) -> Parameters:
    """The tensors under peftport's names.

    Args:
        name, options: of the technique. suffixes: peftport's last parts of names -> adapters'.

    Raises:
        BadInput: a tensor is missing, surplus or of another shape; the message names it.
    """
    config = technique(name).configure(options)
    shapes = technique(name).shapes(config, hub.geometry)
    where = Places(_paths(config, hub.geometry))
    inner = {theirs: ours for ours, theirs in suffixes.items()}
    found = {}
    for key, tensor in hub.tensors.items():
        _, shared = hub.split(key, "shared_parameters")
        path, suffix = hub.split(key, "adapters")
        ours = shared or f"{where.find(path)}.{inner.get(suffix)}"
        if ours not in shapes:
            raise BadInput(
                f"{hub.path}: tensor {key!r} belongs to no place that the configuration has on a "
                f"{hub.geometry.family} host."
            )
        if ours in found:
            raise BadInput(f"{hub.path}: {key!r} is there under another name, too.")
        if tuple(tensor.shape) != shapes[ours]:
            raise BadInput(
                f"{hub.path}: tensor {key!r} has shape {tuple(tensor.shape)}, expected "
                f"{shapes[ours]} on a host of width {hub.geometry.width}."
            )
        found[ours] = tensor
    for ours, theirs in _names(name, config, hub.geometry, hub.name, suffixes).items():
        if ours not in found:
            raise BadInput(f"{hub.path} lacks tensor {theirs!r}.")
    return found


def _names(
    name: str, config: Any, geometry: Geometry, adapter: str, suffixes: Mapping[str, str]
) -> dict[str, str]:
    """peftport's name of every tensor -> its name in the model that modules are written for."""
    paths = _paths(config, geometry)
    found = {}
    for ours in technique(name).shapes(config, geometry):
        if "." not in ours:  # of all places together
            found[ours] = f"{inside(geometry)}shared_parameters.{adapter}.{ours}"
            continue
        place, side, what = ours.rsplit(".", 2)
        suffix = suffixes[f"{side}.{what}"]
        found[ours] = f"{path_in_model(paths[place], geometry)}.adapters.{adapter}.{suffix}"
    return found


def _paths(config: Any, geometry: Geometry) -> dict[str, str]:
    """Where adapters puts the adapter of every place of peftport's."""
    layout = layout_of(geometry)["places"]
    found = {}
    for place in places(config.variant, config.cross, geometry):
        stack, layer, role = place.split(".")
        role = "ffn" if role == "block" else role
        found[place] = layout[f"{stack}.{role}"].format(layer=layer)
    return found


ADAPTERHUB = InAdapterHub(None, read, written, meant=lambda config: not config.get("phm_layer"))

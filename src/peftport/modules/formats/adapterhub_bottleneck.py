"""Bottleneck adapters and Compacter in AdapterHub folders: `double_seq_bn` (Houlsby), `seq_bn`
(Pfeiffer), `compacter`, `compacter++`."""

from __future__ import annotations

from typing import Any

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.adapterhub_layout import NAME, Hub, in_model, inside, layout_of
from peftport.modules.formats.base import Draft
from peftport.modules.formats.places import Places
from peftport.modules.module import Module
from peftport.techniques import technique
from peftport.techniques.adapter import ACTIVATIONS, places
from peftport.techniques.base import Parameters
from peftport.techniques.compacter import RULE

_SUFFIXES = {
    "adapter": {
        "down.weight": "adapter_down.0.weight",
        "down.bias": "adapter_down.0.bias",
        "up.weight": "adapter_up.weight",
        "up.bias": "adapter_up.bias",
    },
    "compacter": {
        "down.left": "adapter_down.0.W_left",
        "down.right": "adapter_down.0.W_right",
        "down.bias": "adapter_down.0.b",
        "up.left": "adapter_up.W_left",
        "up.right": "adapter_up.W_right",
        "up.bias": "adapter_up.b",
    },
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
_COMPACTER: dict[str, tuple[Any, ...]] = {
    "shared_phm_rule": (True,),
    "factorized_phm_W": (True,),
    "factorized_phm_rule": (False,),
    "shared_W_phm": (False,),
    "phm_bias": (True,),
}
# Of how a module starts and trains, or without effect in the two variants.
_NEUTRAL = {
    **{"adapter_residual_before_ln": False, "init_weights": "bert", "init_weights_seed": None},
    **{"inv_adapter_reduction_factor": None, "dropout": 0.0, "stochastic_depth": 0.0},
    **{"phm_dim": 4, "phm_rank": 1, "phm_c_init": "normal", "phm_init_range": 1e-4},
    **{"learn_phm": True, "hypercomplex_nonlinearity": "glorot-uniform"},
}


def read(hub: Hub) -> Draft:
    """Read an adapter or Compacter."""
    hub.require(_WITHOUT)
    hub.require_known(
        {"architecture", "reduction_factor", "non_linearity"}
        | _NEUTRAL.keys()
        | _WITHOUT.keys()
        | _COMPACTER.keys()
        | _VARIANTS["houlsby"].keys()
    )
    name = "compacter" if hub.config.get("phm_layer") else "adapter"
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
    if name == "compacter":
        hub.require(_COMPACTER)
        options |= {"n": hub.number("phm_dim"), "rank": hub.number("phm_rank")}
    config = technique(name).configure(options)
    return Draft(name, options, _translated(hub, name, config), hub.path)


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    config, geometry = module.config, module.geometry
    if config.variant == "pfeiffer" and config.cross:
        config = config.model_copy(update={"cross": False})  # of no effect in this variant
    options = {key: values[0] for key, values in (_WITHOUT | _COMPACTER).items()}
    options |= _NEUTRAL | _VARIANTS[config.variant]
    options |= {
        "reduction_factor": config.reduction,
        "cross_adapter": config.cross,
        "phm_layer": module.technique == "compacter",
    }
    if module.technique == "compacter":
        options |= {"non_linearity": config.activation, "phm_dim": config.n}
        options |= {"phm_rank": config.rank, "phm_init_range": config.initial_rule_std}
    else:
        options["non_linearity"] = config.nonlinearity
    names = _names(module.technique, config, geometry, NAME)
    return options, {theirs: module.tensors[ours] for ours, theirs in names.items()}


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


def _translated(hub: Hub, name: str, config: Any) -> Parameters:
    """The tensors under peftport's names; BadInput names one that is missing or surplus."""
    shapes = technique(name).shapes(config, hub.geometry)
    where = Places(_paths(config, hub.geometry))
    suffixes = {theirs: ours for ours, theirs in _SUFFIXES[name].items()}
    found = {}
    for key, tensor in hub.tensors.items():
        _, shared = hub.split(key, "shared_parameters")
        path, suffix = hub.split(key, "adapters")
        ours = shared or f"{where.find(path)}.{suffixes.get(suffix)}"
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
    for ours, theirs in _names(name, config, hub.geometry, hub.name).items():
        if ours not in found:
            raise BadInput(f"{hub.path} lacks tensor {theirs!r}.")
    return found


def _names(name: str, config: Any, geometry: Geometry, adapter: str) -> dict[str, str]:
    """peftport's name of every tensor -> its name in the model that modules are written for."""
    paths = _paths(config, geometry)
    found = {}
    for ours in technique(name).shapes(config, geometry):
        if ours == RULE:
            found[ours] = f"{inside(geometry)}shared_parameters.{adapter}.{RULE}"
            continue
        place, side, what = ours.rsplit(".", 2)
        suffix = _SUFFIXES[name][f"{side}.{what}"]
        found[ours] = f"{in_model(paths[place], geometry)}.adapters.{adapter}.{suffix}"
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

"""LoRA in PEFT folders.

Keys: `base_model.model.<path>.lora_A.weight` (rank, inputs) and `.lora_B.weight` (outputs, rank);
the scale is in the configuration alone. GPT-2's layers are stored transposed, which
`fan_in_fan_out` tells peft; the factors are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.base import Draft, Folder
from peftport.modules.formats.heads import (
    classes_of,
    read_classifier,
    saved_modules,
    written_classifier,
)
from peftport.modules.formats.lora import Factors, joined, require_shapes
from peftport.modules.formats.peft_config import classifier_kind, flag, number, refuse_unknown
from peftport.modules.formats.places import Places
from peftport.modules.module import Module
from peftport.techniques.base import Parameters
from peftport.techniques.lora import targets

_MODEL = "base_model.model."
_KEY = re.compile(re.escape(_MODEL) + r"(?P<path>.+)\.lora_(?P<factor>[AB])\.weight")
_KNOWN = frozenset(
    {
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("init_lora_weights", "lora_dropout", "fan_in_fan_out", "megatron_core"),
        *("qalora_group_size", "eva_config", "runtime_config"),
    }
)
# How factors start does not matter once they are trained, unless the host was changed for it.
_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def read(folder: Folder, path: Path, tensors: Mapping[str, Tensor]) -> Draft:
    """Read the factors, and the head that they were trained with."""
    refuse_unknown(folder, _KNOWN)
    if (bias := folder.config.get("bias", "none")) != "none":
        folder.refuse("bias", f"{bias!r}: trained biases of the host are not read")
    if (start := folder.config.get("init_lora_weights", True)) not in _STARTS:
        folder.refuse(
            "init_lora_weights",
            f"{start!r} changes the host's own weights; convert the module to plain LoRA with "
            "peft's `path_initial_model_for_weight_conversion` first",
        )
    options = {
        "rank": number(folder, "r"),
        "alpha": number(folder, "lora_alpha", float),
        "rslora": flag(folder, "use_rslora"),
    }
    found, rest = _factors(folder, path, tensors, options)
    pooling, head = read_classifier(folder, path, rest, classifier_kind(folder))
    options, body = joined(found, options, folder.geometry, path)
    return Draft("lora", options, body | head, path, pooling, classes_of(head))


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    geometry, config = module.geometry, module.config
    kind, head = written_classifier(module)
    before = f"{_MODEL}{geometry.prefix}." if kind else _MODEL
    points = targets(config, geometry)
    tensors = {
        f"{before}{linear.path}.lora_{factor}.weight": module.tensors[f"{point}.lora_{factor}"]
        for point, linear in points.items()
        for factor in "AB"
    }
    options = {
        "peft_type": "LORA",
        "r": config.rank,
        "lora_alpha": int(config.alpha) if config.alpha == int(config.alpha) else config.alpha,
        "use_rslora": config.rslora,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(linear.transposed for linear in points.values()),
        "target_modules": _named_targets(points.keys(), geometry, before.removeprefix(_MODEL)),
        "modules_to_save": saved_modules(module),
    }
    return options, tensors | {f"{_MODEL}{name}": tensor for name, tensor in head.items()}


def _factors(
    folder: Folder, path: Path, tensors: Mapping[str, Tensor], options: Mapping[str, Any]
) -> tuple[dict[str, Factors], dict[str, Tensor]]:
    """Factors by place, and the tensors that are none, named as in the model."""
    geometry = folder.geometry
    places = Places({point: linear.path for point, linear in geometry.linears.items()})
    pairs: dict[str, dict[str, tuple[str, str]]] = {}
    rest = {}
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        point = places.find(match["path"]) if match else None
        if match and point:
            pair = pairs.setdefault(point, {})
            if match["factor"] in pair:
                raise BadInput(f"{path}: {name!r} and {pair[match['factor']][0]!r} are one place.")
            pair[match["factor"]] = (name, match["path"])
        else:
            rest[name.removeprefix(_MODEL)] = tensor
    _require_complete(folder, path, pairs)
    found = {}
    for point, pair in pairs.items():
        (down, inside), (up, _) = pair["A"], pair["B"]
        rank = _by_pattern(folder, "rank_pattern", inside, options["rank"])
        alpha = _by_pattern(folder, "alpha_pattern", inside, options["alpha"])
        scale = alpha / (math.sqrt(rank) if options["rslora"] else rank)
        found[point] = Factors(tensors[down], tensors[up], scale)
        require_shapes(path, (down, up), found[point], point, rank, geometry)
    return found, rest


def _require_complete(
    folder: Folder, path: Path, pairs: Mapping[str, Mapping[str, tuple[str, str]]]
) -> None:
    """Raise BadInput where a factor is missing, or a place is missing or surplus."""
    geometry = folder.geometry
    if not pairs:
        raise BadInput(
            f"{path} has no LoRA tensor for a {geometry.family} host ({folder.host_name}): "
            "expected names such as "
            f"{_MODEL}{next(iter(geometry.linears.values())).path}.lora_A.weight."
        )
    for pair in pairs.values():
        for factor, other in ("AB", "BA"):
            if factor not in pair:
                name = pair[other][0].replace(f".lora_{other}.", f".lora_{factor}.")
                raise BadInput(f"{path} lacks tensor {name!r}.")
    listed = _listed(folder)
    if listed is None:
        return
    missing = sorted(listed - pairs.keys())
    if missing:
        raise BadInput(
            f"{path} lacks the tensors of {geometry.linears[missing[0]].path!r} "
            f"({len(missing)} places missing), which `target_modules` names."
        )
    surplus = sorted(pairs.keys() - listed)
    if surplus:
        raise BadInput(
            f"{path} has tensor {pairs[surplus[0]]['A'][0]!r} too much ({len(surplus)} places): "
            "`target_modules` does not name it."
        )


def _listed(folder: Folder) -> set[str] | None:
    """The places that the configuration names; None where it does so by other means than a list."""
    wanted = folder.config.get("target_modules")
    narrowed = any(folder.config.get(k) for k in ("exclude_modules", "layers_to_transform"))
    if not isinstance(wanted, list) or narrowed:
        return None
    prefix = folder.geometry.prefix
    return {
        point
        for point, linear in folder.geometry.linears.items()
        if any(f".{prefix}.{linear.path}".endswith(f".{target}") for target in wanted)
    }


def _by_pattern(folder: Folder, key: str, path: str, usual: Any) -> Any:
    """A place's own rank or alpha, by the first pattern that its path ends with."""
    patterns = folder.config.get(key) or {}
    if not isinstance(patterns, dict):
        folder.refuse(key, f"{patterns!r}, expected an object")
    for pattern, value in patterns.items():
        # Any regular expression may stand here; one from a stranger may run for ever.
        if not re.fullmatch(r"\^?[\w.]+", pattern):
            folder.refuse(key, f"the pattern {pattern!r} is more than a module's name")
        if not re.match(rf"(?:.*\.)?(?:{pattern})$", path):
            continue
        kind = int if key == "rank_pattern" else (int, float)
        if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < 1e9:
            folder.refuse(f"{key}.{pattern}", f"{value!r}, expected a positive number")
        return value
    return usual


def _named_targets(points: Any, geometry: Geometry, before: str) -> list[str]:
    """Layers as `target_modules` lists them: by their last parts where those mean no others."""
    paths = {point: geometry.linears[point].path for point in points}
    endings = sorted({_in_layer(point, path) for point, path in paths.items()})
    meant = {
        point
        for point, linear in geometry.linears.items()
        if any(f".{linear.path}".endswith(f".{ending}") for ending in endings)
    }
    # In a model of images and text a short name means layers of both.
    alone = meant == set(points) and not geometry.roots
    return endings if alone else [f"{before}{path}" for path in paths.values()]


def _in_layer(point: str, path: str) -> str:
    """ "decoder.3.self.q" at "model.layers.3.self_attn.q_proj" -> "self_attn.q_proj"."""
    _, layer, _ = point.split(".", 2)
    return path.partition(f".{layer}.")[2]

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
from peftport.hosts.towers import without_towers
from peftport.modules.formats.base import Draft, Folder
from peftport.modules.formats.heads import classes_of, saved_modules, written_classifier
from peftport.modules.formats.keeping import InPeft
from peftport.modules.formats.names import names_in_model
from peftport.modules.formats.peft_config import (
    classifier_kind,
    flag,
    positive_number,
    refuse_start,
    refuse_unknown,
)
from peftport.modules.formats.places import Places
from peftport.modules.formats.rest import embedding_paths, read_rest, written_embeddings
from peftport.modules.formats.stored import require_matrix
from peftport.modules.formats.token_rows import TOKENS_KEY, is_of_token_rows, read_token_rows
from peftport.modules.module import Module
from peftport.techniques.base import Parameters
from peftport.techniques.lora import targets
from peftport.techniques.lora.factors import Factors, as_options_and_tensors, require_shapes
from peftport.techniques.lora.patterns import own_alpha, own_rank

_MODEL = "base_model.model."
_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?:embedding_)?(?P<factor>[AB])")
_KNOWN = frozenset(
    {
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "bias"),
        *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
        *("init_lora_weights", "lora_dropout", "fan_in_fan_out", "megatron_core"),
        *("qalora_group_size", "eva_config", "runtime_config"),
        TOKENS_KEY,
    }
)
_LAYER = re.compile(r".*\.[^.]*\.(\d+)\.")
"""Where peft finds the number of a layer in a path."""


def read(folder: Folder, path: Path, tensors: Mapping[str, Tensor]) -> Draft:
    """Read the factors, the head that they were trained with, and embeddings that were trained."""
    refuse_unknown(folder, _KNOWN)
    refuse_start(folder)
    options = {
        "rank": positive_number(folder, "r", usual=8),
        "alpha": positive_number(folder, "lora_alpha", float),
        "rslora": flag(folder, "use_rslora"),
    }
    named = names_in_model(path, tensors, folder.geometry)
    found, others = _factors(folder, path, named, options, tensors)
    rows = {name: others.pop(name) for name in list(others) if is_of_token_rows(name)}
    rest = read_rest(folder, path, others, classifier_kind(folder))
    embeddings, lost = read_token_rows(folder, path, rows, rest.embeddings)
    options, body = as_options_and_tensors(found, options, folder.geometry, path)
    return Draft(
        "lora",
        options,
        body | rest.head | embeddings,
        path,
        rest.pooling,
        classes_of(rest.head, path),
        rest.left_out | lost,
    )


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    geometry, config = module.geometry, module.config
    kind, head = written_classifier(module)
    inside = f"{geometry.prefix}." if kind and geometry.kind == "encoder" else ""
    before, embeddings = f"{_MODEL}{inside}", written_embeddings(module, inside)
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
        "target_modules": _named_targets(points.keys(), geometry, inside) + embeddings.targets,
        "modules_to_save": (saved_modules(module) or []) + embeddings.saved or None,
    }
    if embeddings.tokens:
        options[TOKENS_KEY] = embeddings.tokens
    more = head | embeddings.tensors
    return options, tensors | {f"{_MODEL}{name}": tensor for name, tensor in more.items()}


def _factors(
    folder: Folder,
    path: Path,
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    written: Mapping[str, Tensor],
) -> tuple[dict[str, Factors], dict[str, Tensor]]:
    """Factors by place, and the tensors that are none.

    Args:
        tensors: by their names in the model. written: the same by their names in the file.
    """
    paths = {point: linear.path for point, linear in folder.geometry.linears.items()}
    places = Places(paths | embedding_paths(folder.geometry))
    pairs: dict[str, dict[str, str]] = {}
    rest = {}
    for name, tensor in tensors.items():
        match = _FACTOR.fullmatch(name)
        point = places.find(match["path"]) if match else None
        if match is None or point is None:
            rest[name] = tensor
            continue
        pair = pairs.setdefault(point, {})
        if match["factor"] in pair:
            raise BadInput(f"{path}: {name!r} and {pair[match['factor']]!r} are one place.")
        pair[match["factor"]] = name
    _require_complete(folder, path, pairs, list(written))
    called = {id(tensor): name for name, tensor in written.items()}
    made = {
        point: _pair(folder, path, point, (pair["A"], pair["B"]), tensors, options, called)
        for point, pair in pairs.items()
    }
    return made, rest


def _pair(
    folder: Folder,
    path: Path,
    point: str,
    names: tuple[str, str],
    tensors: Mapping[str, Tensor],
    options: Mapping[str, Any],
    called: Mapping[int, str],
) -> Factors:
    """The factors of one place, with the rank and the scale that the configuration gives it.

    Args:
        called: the names of tensors in the file, by `id`: of a larger model's language model they
            have its name, too, which a pattern may say.
    """
    down, up = (tensors[name] for name in names)
    whole = (f"{_MODEL}{names[0]}.weight", f"{_MODEL}{names[1]}.weight")
    for name, factor in zip(whole, (down, up), strict=True):
        require_matrix(path, name, factor)
    in_file = called.get(id(down), "").rpartition(_MODEL)[2].partition(".lora_")[0]
    paths = (in_file, names[0].rpartition(".")[0])
    rank = own_rank(folder, paths, options["rank"], down.shape[0])
    alpha = own_alpha(folder, paths, options["alpha"])
    made = Factors(down, up, alpha / (math.sqrt(rank) if options["rslora"] else rank))
    require_shapes(path, whole, made, point, rank, folder.geometry)
    return made


def _require_complete(
    folder: Folder, path: Path, pairs: Mapping[str, Mapping[str, str]], written: list[str]
) -> None:
    """Raise BadInput where a factor is missing, or a place is missing or surplus."""
    geometry = folder.geometry
    if not pairs:
        there = f"it begins with {written[0]!r}" if written else "it has no tensors at all"
        factor = next((name for name in written if ".lora_" in name), None)
        there += f", has {factor!r}" if factor not in (None, *written[:1]) else ""
        raise BadInput(
            f"{path} has no LoRA tensor for a {geometry.family} host ({folder.host_name}): "
            f"{there}, expected are names such as "
            f"{_MODEL}{next(iter(geometry.linears.values())).path}.lora_A.weight."
        )
    for pair in pairs.values():
        for factor, other in ("AB", "BA"):
            if factor not in pair:
                name = pair[other].removesuffix(other) + factor
                raise BadInput(f"{path} lacks tensor '{_MODEL}{name}.weight'.")
    listed = _listed(folder)
    if listed is None:
        return
    # T5EncoderModel and the like are one stack of a host that has two.
    stacks = {point.split(".")[0] for point in pairs}
    missing = sorted(p for p in listed - pairs.keys() if p.split(".")[0] in stacks)
    if missing:
        raise BadInput(
            f"{path} lacks the tensors of {_path(folder, missing[0])!r} "
            f"({len(missing)} places missing), which {_said_by(folder)} names."
        )
    surplus = sorted(pairs.keys() - listed - _tied_with(listed, folder))
    if surplus:
        raise BadInput(
            f"{path} has tensor {pairs[surplus[0]]['A']!r} too much ({len(surplus)} places): "
            f"{_said_by(folder)} does not name it."
        )


def _path(folder: Folder, point: str) -> str:
    """Where a place lies in the host."""
    linears = folder.geometry.linears
    return linears[point].path if point in linears else embedding_paths(folder.geometry)[point]


def _listed(folder: Folder) -> set[str] | None:
    """The places that the configuration names; None where it does so by other means than a list."""
    wanted = folder.config.get("target_modules")
    elsewise = any(folder.config.get(k) for k in ("exclude_modules", "layers_pattern"))
    if not isinstance(wanted, list) or elsewise:
        return None
    prefix = folder.geometry.prefix
    ends = [f".{without_towers(str(target))}" for target in wanted]
    linears = {point: linear.path for point, linear in folder.geometry.linears.items()}
    return {
        point
        for point, path in (linears | embedding_paths(folder.geometry)).items()
        if any(f".{prefix}.{without_towers(path)}".endswith(end) for end in ends)
        and _layer_is_meant(folder, f".{prefix}.{path}")
    }


def _tied_with(listed: set[str], folder: Folder) -> set[str]:
    """Places that peft may give factors to and not name: with `ensure_weight_tying` those that a
    tied host shares the weight of a named embedding with."""
    sides = embedding_paths(folder.geometry)
    tied = folder.config.get("ensure_weight_tying") is True and listed & sides.keys()
    return set(sides) if tied else set()


def _said_by(folder: Folder) -> str:
    """The keys that a list of places rests on."""
    narrowed = folder.config.get("layers_to_transform") not in (None, [])
    return "`target_modules` with `layers_to_transform`" if narrowed else "`target_modules`"


def _layer_is_meant(folder: Folder, path: str) -> bool:
    """Whether `layers_to_transform` leaves a layer at this path in, as peft reads it."""
    meant = folder.config.get("layers_to_transform")
    if meant in (None, []):
        return True
    if type(meant) is not int and not (
        isinstance(meant, list) and all(type(number) is int for number in meant)
    ):
        folder.refuse(
            "layers_to_transform", f"{meant!r} is no number of a layer and no list of them"
        )
    found = _LAYER.match(path)
    return found is not None and int(found[1]) in (meant if isinstance(meant, list) else [meant])


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


PEFT = InPeft("LORA", read, written, _KNOWN)

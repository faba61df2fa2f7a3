"""Finds a host's geometry on its skeleton: the layers that repeat, and what is in them.

Of a known family the data name the roles and the skeleton gives the sizes. Of any other the linear
layers are found by themselves, which is enough for LoRA.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from peftport.errors import BadInput
from peftport.hosts.configuration import configuration
from peftport.hosts.geometry import (
    Geometry,
    Linear,
    entries_of,
    families,
    laid_out,
    of_own_names,
)
from peftport.hosts.skeleton import require_points, skeleton

_log = logging.getLogger(__name__)
_READERS = ("q", "v", "query", "value", "qkv", "wqkv", "query_key_value", "in_proj", "c_attn")
"""How layers that make queries and values are called, less `_proj`, `_lin` or `_layer`."""


def discovered(config: Mapping[str, Any], host: str) -> Geometry:
    """The geometry of the host with this configuration.

    Raises:
        BadInput: see `geometry.geometry_of`.
    """
    try:
        written = json.dumps(config, sort_keys=True, default=str)
    except (TypeError, ValueError) as error:
        raise BadInput(f"host {host}: its configuration cannot be read: {error}.") from error
    return discovered_in(written, host)


@lru_cache(maxsize=64)
def discovered_in(written: str, host: str) -> Geometry:
    """The same from the configuration as JSON; the last ones are kept."""
    config = configuration(json.loads(written), host)
    family, wrapped = family_of(config)
    text = config.text_config if wrapped else config
    if family is None:
        return _unknown(config, host)
    for key, why in family.get("refused", {}).items():
        if value := getattr(text, key, None):
            raise BadInput(f"host {host}: {key} is {value!r} in its configuration: {why}.")
    model = skeleton(config, family["kind"], host, wrapped)
    return _known(family, text, model, host)


def family_of(config: Any) -> tuple[dict[str, Any] | None, bool]:
    """The family of a host's configuration, and whether it is that of the language model in it.

    A model of images and text is a host by its language model.
    """
    known = {t: entry for entry in families().values() for t in entry["model_types"]}
    text = getattr(config, "text_config", None)
    inner = known.get(getattr(text, "model_type", ""))
    return (inner, True) if text is not None and inner else (known.get(config.model_type), False)


def _known(family: dict[str, Any], text: Any, model: nn.Module, host: str) -> Geometry:
    """A host of a known family: sizes are read off the first layer, and held against all."""
    modules = dict(model.named_modules())
    roots, counts = {}, {}
    for stack in family["stacks"]:
        name, path = stack["name"], stack["path"]
        found = _where(path, modules)
        if found is None:
            raise _lacks(family, path.format(layer=0), host)
        layers = modules[found.partition(".{layer}")[0]]
        assert isinstance(layers, nn.ModuleList)
        counts[name] = len(layers)
        if found != path:
            roots[name] = found
    first = family["stacks"][0]
    root = roots.get(first["name"], first["path"]).format(layer=0)
    gates = [e for e in first["linears"] if e.get("when") == "gated"]
    gated = bool(gates) and all(f"{root}.{entry['path']}" in modules for entry in gates)
    shapes = {}
    for entry in entries_of(first, gated):
        path = f"{root}.{entry['path']}"
        if path not in modules:
            raise _lacks(family, path, host)
        shapes[entry["name"]] = _shape(modules[path])
    sizes = _sizes(shapes, text, model, host)
    made = replace(laid_out(family, sizes, counts, gated, roots), head=_head(family, text))
    require_points(model, made, host)
    return made


def _head(family: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """What a configuration says of sequence classifiers that is not what its family's have."""
    usual = (family.get("heads") or {}).get("sequence") or {}
    expected = {key: usual.get(part) for part, key in usual.get("told_by", {}).items()}
    expected |= usual.get("needs", {})
    said = {key: getattr(config, key, value) for key, value in expected.items()}
    return {key: value for key, value in said.items() if value != expected[key]}


def _lacks(family: Mapping[str, Any], path: str, host: str) -> BadInput:
    return BadInput(
        f"host {host}: family {family['family']} expects a module at {path!r}, and there is none."
    )


def _where(path: str, modules: Mapping[str, nn.Module]) -> str | None:
    """Where the layers of a stack lie: as the family has it, or within the language model."""
    before, layer, rest = path.partition(".{layer}")
    if isinstance(modules.get(before), nn.ModuleList):
        return path
    last = before.rpartition(".")[2]
    for name, module in modules.items():
        inside = name.endswith(f".{last}") and ("language_model" in name or "text_model" in name)
        if inside and isinstance(module, nn.ModuleList):
            return f"{name}{layer}{rest}"
    return None


def _shape(module: Any) -> tuple[int, int]:
    """(inputs, outputs) of a linear layer."""
    rows, columns = module.weight.shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


def _sizes(
    shapes: Mapping[str, tuple[int, int]], text: Any, model: nn.Module, host: str
) -> dict[str, int]:
    """A host's sizes, by the (inputs, outputs) of its first layer's roles."""
    if "self.o" not in shapes:
        raise BadInput(f"host {host}: its first layer has no linear layer where attention ends.")
    queries, width = shapes["self.o"]
    heads = int(text.num_attention_heads)
    size = queries // heads
    if "self.k" in shapes:
        kv_heads = shapes["self.k"][1] // size
    else:
        kv_heads = (shapes["self.qkv"][1] // size - heads) // 2
    ffn = shapes["ffn.down"][0] if "ffn.down" in shapes else int(text.intermediate_size)
    return {
        "width": width,
        "vocabulary": model.get_input_embeddings().weight.shape[0],  # type: ignore[operator]
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": size,
        "ffn": ffn,
    }


# Hosts of no known family


def _unknown(config: Any, host: str) -> Geometry:
    kind = _kind(config, host)
    model = skeleton(config, kind, host)
    roots: dict[str, str] = {}
    linears: dict[str, Linear] = {}
    counts: dict[str, int] = {}
    for stack, path, layers in _repeated(model, kind):
        roots[stack], counts[stack] = f"{path}.{{layer}}", len(layers)
        for index, layer in enumerate(layers):
            for role, module in layer.named_modules():
                if isinstance(module, nn.Linear | Conv1D) and role:
                    place = Linear(
                        f"{path}.{index}.{role}", *_shape(module), isinstance(module, Conv1D)
                    )
                    linears[f"{stack}.{index}.{role}"] = place
    if not linears:
        raise BadInput(
            f"host {host}: no layers with linear layers in them are found in a {config.model_type}."
        )
    _log.warning(
        "notice: %s: the family %r is not known here: LoRA goes by the names of its own layers, "
        "techniques that need to know a family are refused",
        *(host, config.model_type),
    )
    names = {point.rpartition(".")[2]: None for point in linears}
    targets = tuple(name for name in names if _stem(name) in _READERS) or ("all",)
    sizes = _named_sizes(config, model)
    prefix = str(model.base_model_prefix)
    return of_own_names(config.model_type, kind, sizes, roots, counts, linears, targets, prefix)


def _stem(name: str) -> str:
    for ending in ("_proj", "_lin", "_layer"):
        name = name.removesuffix(ending)
    return name.lower()


def _kind(config: Any, host: str) -> str:
    """What a model is for: by its own word, else by what transformers has for it."""
    from transformers.models.auto import modeling_auto as known

    said = " ".join(config.architectures or [])
    model_type = config.model_type
    seq2seq = model_type in known.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    if seq2seq and config.is_encoder_decoder:
        return "encoder-decoder"
    masked = model_type in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    causal = model_type in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    causal = causal and not config.is_encoder_decoder
    if causal and ("CausalLM" in said or "LMHead" in said or not masked):
        return "decoder"
    if masked or (said.endswith("Model") and model_type in known.MODEL_MAPPING_NAMES):
        return "encoder"
    raise BadInput(
        f"host {host}: a {model_type} is no language model that transformers makes of text alone."
    )


def _repeated(model: nn.Module, kind: str) -> Iterator[tuple[str, str, nn.ModuleList]]:
    """The stacks of a model: name, path, and their layers. Of several lists the largest counts."""
    found: dict[str, tuple[int, str, nn.ModuleList]] = {}
    outer: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(path.startswith(f"{o}.") for o in outer):
            continue
        outer.append(path)
        stack = kind
        if kind == "encoder-decoder":
            stack = "encoder" if "encoder" in path.split(".") else "decoder"
        weights = sum(p.numel() for p in module.parameters() if p.ndim == 2)
        if weights > found.get(stack, (0, "", module))[0]:
            found[stack] = (weights, path, module)
    for stack in sorted(found, reverse=True):
        yield stack, *found[stack][1:]


def _named_sizes(config: Any, model: nn.Module) -> dict[str, int]:
    """Sizes as configurations usually call them; none is needed for LoRA."""
    vocabulary, _ = model.get_input_embeddings().weight.shape  # type: ignore[operator]
    width = int(getattr(config, "hidden_size", 1))
    heads = int(getattr(config, "num_attention_heads", 1) or 1)
    return {
        "width": width,
        "vocabulary": int(vocabulary),
        "heads": heads,
        "kv_heads": int(getattr(config, "num_key_value_heads", heads) or heads),
        "head_dim": int(getattr(config, "head_dim", 0) or max(1, width // heads)),
        "ffn": int(getattr(config, "intermediate_size", 0) or 4 * width),
    }

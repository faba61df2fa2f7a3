"""Prefix tuning in PEFT folders: one flat tensor `prompt_embeddings` (length, 2 * layers * size),
layer-major, keys before values, heads inside; a projection network is folded away by peft itself.

In encoder-decoder hosts peft 0.21 gives decoder layer l what is stored for layer 2 l modulo the
number of stored layers, and no prefix to the encoder and the cross-attention. So a prefix is
written with twice the layers, every second one empty, and stock peft does what is meant.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.base import Draft, Folder
from peftport.modules.formats.heads import classes_of, saved_modules, written_classifier
from peftport.modules.formats.keeping import InPeft
from peftport.modules.formats.names import names_in_model
from peftport.modules.formats.peft_config import classifier_kind, positive_number, refuse_unknown
from peftport.modules.formats.rest import read_rest, written_embeddings
from peftport.modules.module import Module
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import is_embedding
from peftport.techniques.prefix import PrefixConfig, prefixed_attentions

FLAT = "prompt_embeddings"
_MODEL = "base_model."
_KNOWN = frozenset(
    {
        *("num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_layers"),
        *("num_attention_heads", "encoder_hidden_size", "prefix_projection", "init_weights"),
        "prompt_tuning_init",
    }
)


def read(folder: Folder, path: Path, tensors: Mapping[str, Tensor]) -> Draft:
    """Read keys and values, and the head that they were trained with."""
    refuse_unknown(folder, _KNOWN)
    geometry, length = folder.geometry, positive_number(folder, "num_virtual_tokens")
    if FLAT not in tensors:
        first = f", it begins with {next(iter(tensors))!r}" if tensors else ""
        raise BadInput(f"{path} lacks tensor {FLAT!r}{first}.")
    others = {n: t for n, t in tensors.items() if n != FLAT}
    others = names_in_model(path, others, geometry)
    rest = read_rest(folder, path, others, classifier_kind(folder))
    stack, layers = _stack(geometry), geometry.stacks[_stack(geometry)]
    doubled = geometry.kind == "encoder-decoder"
    stored = positive_number(folder, "num_layers") if doubled else layers
    size = geometry.kv_heads * geometry.head_dim
    expected = (length, 2 * stored * size)
    if stored < layers:
        folder.refuse("num_layers", f"{stored}, and the {stack} has {layers} layers")
    if tuple(tensors[FLAT].shape) != expected:
        raise BadInput(
            f"{path}: tensor {FLAT!r} has shape {tuple(tensors[FLAT].shape)}, expected {expected} "
            f"on a host of {layers} layers with keys of {size}."
        )
    states = tensors[FLAT].view(length, stored, 2, size)
    body = {
        f"{stack}.{layer}.self.{what}": states[:, _stored(layer, stored, doubled), half]
        for layer in range(layers)
        for half, what in enumerate(("keys", "values"))
    }
    options = {"length": length, "attentions": [f"{stack}.self"] if doubled else None}
    tensors = body | rest.head | rest.embeddings
    labels = classes_of(rest.head, path)
    return Draft("prefix", options, tensors, path, rest.pooling, labels, rest.left_out)


def holds(config: PrefixConfig, geometry: Geometry, names: Collection[str]) -> None:
    """Raise BadInput for a prefix that peft has no place or positions for, and for rows of tokens
    beside one."""
    if geometry.trait("no_prefix_in_peft"):
        raise BadInput(
            f"stock peft cannot give a {geometry.family} host a prefix: the model takes no keys "
            "and values of the past. Write it with --format peftport."
        )
    if list(prefixed_attentions(config, geometry)) != _places(geometry):
        raise BadInput(
            f"peft puts prefixes before the {_stack(geometry)}'s self-attention alone; this module "
            f"has them at {', '.join(config.attentions or ('every attention',))}. Write it with "
            "--format peftport."
        )
    if not config.shift_positions and geometry.positions != "relative":
        raise BadInput(
            "peft counts the text's positions from after the prefix; this module does not "
            "(shift_positions is false). Write it with --format adapterhub or peftport."
        )
    if rows := [name for name in names if is_embedding(name) and name.endswith(".rows")]:
        raise BadInput(
            f"peft trains rows of single tokens with LoRA alone, and the module has {rows[0]!r} "
            "beside a prefix. Write it with --format peftport."
        )


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    geometry = module.geometry
    config, body = technique("prefix").fold(module.config, geometry, module.tensors)
    layers = geometry.stacks[_stack(geometry)]
    doubled = geometry.kind == "encoder-decoder"
    stored = 2 * layers if doubled else layers
    size = geometry.kv_heads * geometry.head_dim
    states = torch.zeros(config.length, stored, 2, size)
    for layer, point in enumerate(_places(geometry)):
        for half, what in enumerate(("keys", "values")):
            states[:, _stored(layer, stored, doubled), half] = body[f"{point}.{what}"]
    kind, head = written_classifier(module)
    inside = f"{geometry.prefix}." if kind and geometry.kind == "encoder" else ""
    embeddings = written_embeddings(module, inside)
    options = {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": config.length,
        "token_dim": size,
        "num_transformer_submodules": 2 if doubled else 1,
        "num_attention_heads": geometry.kv_heads,
        "num_layers": stored,
        "encoder_hidden_size": size,
        "prefix_projection": False,
        "modules_to_save": (saved_modules(module) or []) + embeddings.saved or None,
    }
    named = {f"{_MODEL}{name}": tensor for name, tensor in (head | embeddings.tensors).items()}
    return options, {FLAT: states.flatten(1)} | named


def _stack(geometry: Geometry) -> str:
    """The stack whose self-attention peft puts prefixes before."""
    return "encoder" if geometry.kind == "encoder" else "decoder"


def _places(geometry: Geometry) -> list[str]:
    """The attentions that peft puts prefixes before, layer by layer."""
    stack = _stack(geometry)
    return [f"{stack}.{layer}.self" for layer in range(geometry.stacks[stack])]


def _stored(layer: int, stored: int, doubled: bool) -> int:
    """Where the prefix of a layer stands in the file."""
    return (2 * layer) % stored if doubled else layer


PEFT = InPeft("PREFIX_TUNING", read, written, _KNOWN, holds)

"""Twins of a tiny host: the same function by other weights, with a map between them that is known.

`permuted` shuffles hidden units, heads and feed-forward neurons; `rotated` turns the residual
stream, which RMSNorm allows once its weights are folded into what follows; `deeper` puts layers
between that do nothing; `wider` has every hidden unit twice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from peftport.hosts.geometry import Geometry, geometry_of
from tiny_hosts import build_model
from tiny_tokenizers import build_tokenizer

_READS_STREAM = ("q", "k", "v", "qkv", "up", "gate")


def write_twin(how: str, family: str, folder: Path, seed: int = 0) -> Path:
    """Write the twin of `tiny_hosts.write_host(family, ..., seed=seed)` into a folder."""
    model = build_model(family, seed)
    with torch.no_grad():
        twin = _TWINS[how](model, geometry_of(model.config.to_dict(), family))
    twin.save_pretrained(folder)
    build_tokenizer(family).save_pretrained(folder)
    return folder


def permuted(model: Any, geometry: Geometry) -> Any:
    """Shuffle hidden units, heads (of one stack alike) and the neurons of each layer, in place."""
    draw = torch.Generator().manual_seed(7)
    hidden = torch.randperm(geometry.width, generator=draw)
    heads = {stack: _head_order(geometry, draw) for stack in geometry.stacks}
    neurons = {block: torch.randperm(geometry.ffn, generator=draw) for block in geometry.blocks}
    done = set()
    for point, linear in geometry.linears.items():
        stack, layer, role = point.split(".", 2)
        query, key = heads[stack]
        unit = neurons[f"{stack}.{layer}"]
        rows, columns = {
            "q": (query, hidden),
            "k": (key, hidden),
            "v": (key, hidden),
            "qkv": (_fused(query, key, geometry, linear.fused), hidden),
            "o": (hidden, query),
            "up": (unit, hidden),
            "gate": (unit, hidden),
            "gate_up": (torch.cat([unit, geometry.ffn + unit]), hidden),
            "down": (hidden, unit),
        }[role.split(".")[1]]
        module = _within(model, geometry).get_submodule(linear.path)
        weight = module.weight.mT if linear.transposed else module.weight
        weight.copy_(weight[rows][:, columns].clone())
        if getattr(module, "bias", None) is not None:
            module.bias.copy_(module.bias[rows].clone())
        done.add(id(module))
    for name, tensor in model.named_parameters():
        if id(model.get_submodule(name.rpartition(".")[0])) not in done:
            inner = "decoder" in heads and ".decoder." in f".{name}"
            stack = "decoder" if inner else next(iter(heads))
            _permute(name, tensor, hidden, *heads[stack], geometry)
    return model


def _permute(
    name: str, tensor: Tensor, hidden: Tensor, query: Tensor, key: Tensor, geometry: Geometry
) -> None:
    """Bring a weight that is no insertion point into the order of the twin."""
    own = query[:: geometry.head_dim] // geometry.head_dim
    if "relative_attention_bias" in name:
        tensor.copy_(tensor[:, own].clone())
    elif name.endswith("sinks"):
        tensor.copy_(tensor[own].clone())
    elif name.endswith(("q_bias", "v_bias", "q_norm.weight")) and len(tensor) == len(query):
        tensor.copy_(tensor[query].clone())
    elif name.endswith("k_norm.weight") and len(tensor) == len(key):
        tensor.copy_(tensor[key].clone())
    elif ".pos_proj." in name or ".pos_q_proj." in name:
        tensor.copy_(tensor[query][..., hidden if tensor.ndim > 1 else slice(None)].clone())
    elif tensor.shape[-1] == geometry.width:
        tensor.copy_(tensor[..., hidden].clone())
    elif geometry.width in tensor.shape:
        axis = tensor.shape.index(geometry.width)
        tensor.copy_(tensor.index_select(axis, hidden).clone())


def _fused(query: Tensor, key: Tensor, geometry: Geometry, order: str | None) -> Tensor:
    """The order of the rows of a layer that makes queries, keys and values."""
    if order != "groups":
        return torch.cat([query, len(query) + key, len(query) + len(key) + key])
    size = (geometry.heads // geometry.kv_heads + 2) * geometry.head_dim
    groups = key[:: geometry.head_dim] // geometry.head_dim
    return (groups[:, None] * size + torch.arange(size)).flatten()


def rotated(model: Any, geometry: Geometry) -> Any:
    """Fold the norms' weights away and turn the residual stream, in place."""
    draw = torch.Generator().manual_seed(8)
    turn, _ = torch.linalg.qr(torch.randn(geometry.width, geometry.width, generator=draw))
    before = {}
    for point, linear in geometry.linears.items():
        role = point.split(".")[3]
        module = model.get_submodule(linear.path)
        if role in _READS_STREAM:
            norm = _norm_before(model, geometry, point)
            before[id(norm)] = norm
            module.weight.copy_((module.weight * norm.weight) @ turn)
        else:
            module.weight.copy_(turn.mT @ module.weight)
    head, last = model.get_output_embeddings(), _last_norm(model, geometry)
    head.weight.copy_((head.weight * last.weight) @ turn)
    model.get_input_embeddings().weight.copy_(model.get_input_embeddings().weight @ turn)
    for norm in (*before.values(), last):
        norm.weight.fill_(1.0)
    return model


def deeper(model: Any, geometry: Geometry) -> Any:
    """A decoder with an idle layer after each of its own."""
    config = model.config
    config.num_hidden_layers = 2 * config.num_hidden_layers
    twin = type(model)(config).eval()
    twin.load_state_dict(model.state_dict(), strict=False)
    own = model.model.layers
    for index, layer in enumerate(twin.model.layers):
        layer.load_state_dict(own[index // 2].state_dict())
        if index % 2:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return twin


def wider(model: Any, geometry: Geometry) -> Any:
    """A decoder with every hidden unit twice; what reads the stream halves the two."""
    config = type(model.config)(**model.config.to_dict())
    config.head_dim, config.hidden_size = geometry.head_dim, 2 * geometry.width
    twin = type(model)(config).eval()
    reads = {linear.path for point, linear in geometry.linears.items() if _reads(point)}
    reads.add("lm_head")
    own = dict(model.named_parameters())
    for name, tensor in twin.named_parameters():
        found, path = own[name], name.rpartition(".")[0]
        if found.shape != tensor.shape:
            axis = 1 if path in reads or "embed_tokens" in path else 0
            found = torch.cat([found, found], axis) / (2 if path in reads else 1)
        tensor.copy_(found)
    return twin


def _reads(point: str) -> bool:
    return point.split(".")[3] in _READS_STREAM


_TWINS = {"permuted": permuted, "rotated": rotated, "deeper": deeper, "wider": wider}


def _within(model: Any, geometry: Geometry) -> Any:
    """The part of a model that its family's paths begin in: encoders are loaded without a head."""
    return model.base_model if geometry.kind == "encoder" else model


def _head_order(geometry: Geometry, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Orders of the queries' and of the keys' rows: groups of heads change places whole."""
    order = torch.randperm(geometry.kv_heads, generator=draw)
    if geometry.positions == "none":  # each head has a slope of its own (ALiBi)
        order = order.sort().values
    group = geometry.heads // geometry.kv_heads
    queries = (order[:, None] * group + torch.arange(group)).flatten()
    size = torch.arange(geometry.head_dim)
    return tuple((o[:, None] * geometry.head_dim + size).flatten() for o in (queries, order))  # type: ignore[return-value]


def _norm_before(model: Any, geometry: Geometry, point: str) -> nn.Module:
    """The norm whose output a layer reads."""
    stack, layer, role = point.split(".", 2)
    if geometry.family != "t5":
        block = model.model.layers[int(layer)]
        return block.input_layernorm if role.startswith("self") else block.post_attention_layernorm
    if role in ("cross.k", "cross.v"):
        return model.encoder.final_layer_norm
    sublayers = model.get_submodule(stack).block[int(layer)].layer
    return sublayers[
        {"self": 0, "cross": 1, "ffn": len(sublayers) - 1}[role.split(".")[0]]
    ].layer_norm


def _last_norm(model: Any, geometry: Geometry) -> nn.Module:
    return model.decoder.final_layer_norm if geometry.family == "t5" else model.model.norm

"""Hosts of Llama's or Qwen3's shape with random weights, as the files of large hosts are: bfloat16,
shards.

Columns are scaled by (1 + j)^-1/2, so that singular values fall slowly, as pretrained ones do.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from peftport.hosts.fingerprint import fingerprint
from peftport.hosts.source import geometry_by_name
from peftport.modules import HostName, Module, Record, formats
from peftport.techniques import technique

_SHARD = 2 << 30


@dataclass(frozen=True)
class Shape:
    """Sizes in Llama's words."""

    width: int
    layers: int
    heads: int
    key_heads: int
    ffn: int
    vocabulary: int = 128_256
    tied: bool = False
    family: str = "llama"

    @property
    def head(self) -> int:
        """Width of a head."""
        return self.width // self.heads


SHAPES = {
    "small": Shape(1024, 2, 8, 2, 2816, vocabulary=49_152, tied=True),
    "1b": Shape(2048, 16, 32, 8, 8192, tied=True),
    "8b": Shape(4096, 32, 32, 8, 14_336),
    "small-qwen3": Shape(512, 3, 4, 2, 1536, vocabulary=49_152, tied=True, family="qwen3"),
    "1b-qwen3": Shape(2048, 20, 16, 8, 6144, vocabulary=151_936, tied=True, family="qwen3"),
    "8b-qwen3": Shape(4096, 36, 32, 8, 12_288, vocabulary=151_936, family="qwen3"),
}
_CLASSES = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}


def write_host(folder: Path, shape: Shape, seed: int) -> None:
    """Write a host of a shape, a tensor at a time, into shards of at most 2 GiB."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(_config(shape)))
    generator = torch.Generator().manual_seed(seed)
    places: dict[str, str] = {}
    shard: dict[str, Tensor] = {}

    def flush() -> None:
        name = f"model-{len(set(places.values())) + 1:05}.safetensors"
        places.update(dict.fromkeys(shard, name))
        save_file(shard, folder / name, metadata={"format": "pt"})
        shard.clear()

    for name, sizes in _sizes(shape).items():
        tensor = _random(sizes, generator)
        if sum(t.nbytes for t in shard.values()) + tensor.nbytes > _SHARD:
            flush()
        shard[name] = tensor
    flush()
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_module(folder: Path, host: Path, rank: int = 16) -> None:
    """Write a LoRA module on every linear layer of a host, with random factors."""
    made, geometry = technique("lora"), geometry_by_name(str(host))
    targets = sorted({point.split(".", 2)[2] for point in geometry.linears})
    config = made.configure({"rank": rank, "alpha": rank, "targets": targets})
    generator = torch.Generator().manual_seed(0)
    tensors = made.initial(config, geometry, generator)
    for name, tensor in tensors.items():
        tensors[name] = 0.01 * torch.randn(tensor.shape, generator=generator)
    name = HostName(name=str(host), fingerprint=fingerprint(host))
    record = Record(
        technique="lora",
        config=config.model_dump(mode="json"),
        geometry=geometry.record(),
        host=name,
        origin=name,
        task={"name": "none", "labels": ["no", "yes"], "label_words": ["no", "yes"]},
        seed=0,
    )
    formats.save(Module(record, tensors), folder, "peftport")


def _random(sizes: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(sizes) == 1:
        return torch.ones(sizes, dtype=torch.bfloat16)
    scale = torch.arange(1, sizes[1] + 1) ** -0.5
    return (torch.randn(sizes, generator=generator) * scale).to(torch.bfloat16)


def _config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": [_CLASSES[shape.family]],
        "model_type": shape.family,
        "hidden_size": shape.width,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_heads,
        "head_dim": shape.head,
        "vocab_size": shape.vocabulary,
        "tie_word_embeddings": shape.tied,
        "hidden_act": "silu",
        "torch_dtype": "bfloat16",
    }


def _sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Weights by their names in the family's files."""
    width, keys = shape.width, shape.head * shape.key_heads
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.vocabulary, width)}
    for layer in range(shape.layers):
        block = f"model.layers.{layer}"
        found |= {
            f"{block}.input_layernorm.weight": (width,),
            f"{block}.self_attn.q_proj.weight": (width, width),
            f"{block}.self_attn.k_proj.weight": (keys, width),
            f"{block}.self_attn.v_proj.weight": (keys, width),
            f"{block}.self_attn.o_proj.weight": (width, width),
            f"{block}.post_attention_layernorm.weight": (width,),
            f"{block}.mlp.gate_proj.weight": (shape.ffn, width),
            f"{block}.mlp.up_proj.weight": (shape.ffn, width),
            f"{block}.mlp.down_proj.weight": (width, shape.ffn),
        }
        if shape.family == "qwen3":
            norms = ("q_norm", "k_norm")
            found |= {f"{block}.self_attn.{norm}.weight": (shape.head,) for norm in norms}
    found["model.norm.weight"] = (width,)
    return found if shape.tied else found | {"lm_head.weight": (shape.vocabulary, width)}

"""Tiny hosts of every family, with random weights and tokenizers of their own.

Every weight is drawn from a seed made of the tensor's own name, so that any installation of
transformers that builds the same architecture gets the same host.
"""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    T5Config,
    T5ForConditionalGeneration,
)

import more_families
from tiny_tokenizers import build_tokenizer

LENGTH = 128
_LESS_ONE = ("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm")  # their weight is kept less 1


def write_host(family: str, folder: Path, *, seed: int = 0, noise: float = 0.0) -> Path:
    """Write a tiny host of `family` into `folder`; `noise` moves it away from the host of `seed`.

    `noise` is in units of each tensor's standard deviation; at 0.05 the host stands for a
    continuation of the one without noise.
    """
    model = build_model(family, seed)
    if noise:
        add_noise(model, noise, seed)
    model.save_pretrained(folder)
    build_tokenizer(family).save_pretrained(folder)
    return folder


def build_model(family: str, seed: int = 0) -> PreTrainedModel:
    """Return a tiny model of `family`, in float32 and evaluation mode, drawn from `seed`."""
    tokenizer = build_tokenizer(family)
    if family in _MODELS:
        model = _MODELS[family](tokenizer)
    else:
        model = more_families.made(family, tokenizer)
    for name, tensor in _tensors(model):
        tensor.copy_(_drawn(model, name, tensor, _generator(f"{seed}/{name}")))
    return model.eval()


def add_noise(model: PreTrainedModel, noise: float, seed: int) -> None:
    """Move every tensor of `model` by `noise` times its standard deviation, in place."""
    for name, tensor in _tensors(model):
        drawn = torch.randn(tensor.shape, generator=_generator(f"noise {seed}/{name}"))
        tensor.add_(noise * tensor.std() * drawn)


def drawn_like(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """Values for a module's tensor called `name`, large enough to show in the logits."""
    return torch.randn(tensor.shape, generator=_generator(name)) * 0.4


def digest(model: PreTrainedModel) -> str:
    """SHA-256 over the names and values of a model's parameters, as hexadecimal digits."""
    sha = hashlib.sha256()
    for name, tensor in sorted(_tensors(model)):
        sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def _tensors(model: PreTrainedModel) -> list[tuple[str, torch.Tensor]]:
    """The parameters without their gradients, tied ones once: as embeddings, where they are
    embeddings, too, whichever of its names an installation of transformers has first."""

    def embeds(named: tuple[str, torch.Tensor]) -> bool:
        return isinstance(model.get_submodule(named[0].rpartition(".")[0]), nn.Embedding)

    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, tensor in sorted(
        model.named_parameters(remove_duplicate=False), key=embeds, reverse=True
    ):
        found.setdefault(id(tensor), (name, tensor.detach()))
    return list(found.values())


def _generator(text: str) -> torch.Generator:
    return torch.Generator().manual_seed(zlib.crc32(text.encode()))


def _drawn(
    model: PreTrainedModel, name: str, tensor: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Draw a tensor at which every layer carries a signal of about the size of its input."""
    drawn = torch.randn(tensor.shape, generator=generator)
    owner = model.get_submodule(name.rpartition(".")[0])
    if tensor.ndim == 1:
        around_one = name.endswith("weight") and type(owner).__name__ not in _LESS_ONE
        return drawn * 0.1 + (1.0 if around_one else 0.0)
    if isinstance(owner, nn.Embedding):
        return drawn * 0.5
    inputs = tensor.shape[1] if isinstance(owner, nn.Linear) or tensor.ndim > 2 else tensor.shape[0]
    return drawn / inputs**0.5


def _t5(tokenizer: Any) -> PreTrainedModel:
    """v1.1: gated GELU, an untied head, and an inner width that is not the width."""
    model = T5ForConditionalGeneration(
        _t5_config(tokenizer, d_kv=6, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    )
    # transformers 5 ties the head of every new T5, and unties it when a file holds both weights.
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    model.config.tie_word_embeddings = False
    return model


def _t5_first(tokenizer: Any) -> PreTrainedModel:
    return T5ForConditionalGeneration(
        _t5_config(tokenizer, d_kv=8, feed_forward_proj="relu", tie_word_embeddings=True)
    )


def _t5_config(tokenizer: Any, **different: Any) -> T5Config:
    return T5Config(
        vocab_size=len(tokenizer) + 8,  # the real ones have more rows than tokens, too
        d_model=32,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=32,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        **different,
    )


def _bert(tokenizer: Any) -> PreTrainedModel:
    return BertForMaskedLM(
        BertConfig(
            vocab_size=len(tokenizer), max_position_embeddings=LENGTH, pad_token_id=0, **_ENCODER
        )
    )


def _roberta(tokenizer: Any) -> PreTrainedModel:
    """Its positions begin after the padding's index, so it has two rows more than its length."""
    return RobertaForMaskedLM(
        RobertaConfig(
            vocab_size=len(tokenizer),
            max_position_embeddings=LENGTH + 2,
            type_vocab_size=1,
            bos_token_id=0,
            pad_token_id=1,
            eos_token_id=2,
            **_ENCODER,
        )
    )


def _gpt2(tokenizer: Any) -> PreTrainedModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=LENGTH,
            n_embd=32,
            n_inner=64,
            n_layer=2,
            n_head=4,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


def _llama(tokenizer: Any) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=2,
            **_GROUPED,
        )
    )


def _qwen2(tokenizer: Any) -> PreTrainedModel:
    return Qwen2ForCausalLM(
        Qwen2Config(vocab_size=len(tokenizer), tie_word_embeddings=True, eos_token_id=2, **_GROUPED)
    )


def _qwen3(tokenizer: Any) -> PreTrainedModel:
    """Its heads are not the width divided by their number."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            head_dim=16,
            tie_word_embeddings=True,
            eos_token_id=2,
            **_GROUPED,
        )
    )


def _gemma3(tokenizer: Any) -> PreTrainedModel:
    """A layer that looks back over fewer tokens than the texts have, then one that sees all."""
    return Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(tokenizer),
            head_dim=16,
            query_pre_attn_scalar=24,
            sliding_window=8,
            layer_types=["sliding_attention", "full_attention"],
            **_GROUPED | {"num_key_value_heads": 1},
        )
    )


_ENCODER: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}

_GROUPED: dict[str, Any] = {
    **_ENCODER,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
}

_MODELS = {
    "t5": _t5,
    "t5-v1.0": _t5_first,
    "bert": _bert,
    "roberta": _roberta,
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma3_text": _gemma3,
}

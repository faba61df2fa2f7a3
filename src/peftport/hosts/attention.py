"""Attention with a prefix: SDPA attention, with keys and values put before the host's.

transformers lets a model take its attention function by name, for every family and for self- and
cross-attention alike. Hosts are loaded with the one registered here, so that prefix tuning needs
no cache object and works in encoders too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "peftport"
_SLOT = "_peftport_prefix"


@dataclass
class Prefix:
    """Keys and values before those of one attention.

    keys, values: (lanes, kv_heads, length, head_dim).
    bias: the T5 attention that owns the stack's relative position bias; the prefix then stands at
        the positions just before the text, as peft's past keys do. None: no position bias.
    """

    keys: Tensor
    values: Tensor
    bias: Any = None

    @property
    def length(self) -> int:
        """Number of prefix positions."""
        return self.keys.shape[2]

    def position_bias(self, queries: int) -> Tensor | None:
        """Bias of the prefix columns: (1, heads, queries, length), None without relative bias."""
        if self.bias is None:
            return None
        total = self.length + queries
        bias = self.bias.compute_bias(queries, total, past_seen_tokens=self.length)
        return bias[..., : self.length]


def set_prefix(attention: nn.Module, prefix: Prefix | None) -> None:
    """Put `prefix` before the keys and values of `attention`, or take it away with None."""
    object.__setattr__(attention, _SLOT, prefix)


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA attention with the module's prefix, if it has one.

    query: (rows, heads, queries, head_dim); key, value: (rows, kv_heads, tokens, head_dim);
    attention_mask: boolean (True attends) or additive, (rows, 1, queries, tokens).
    """
    prefix: Prefix | None = getattr(module, _SLOT, None)
    if prefix is not None:
        queries, tokens = query.shape[2], key.shape[2]
        if attention_mask is None and queries > 1 and getattr(module, "is_causal", False):
            ones = torch.ones(queries, tokens, dtype=torch.bool, device=query.device)
            attention_mask = ones.tril()[None, None]
        if attention_mask is not None:
            seen = 1.0 if attention_mask.dtype == torch.bool else 0.0
            attention_mask = functional.pad(attention_mask, (prefix.length, 0), value=seen)
        if position_bias is not None:
            before = prefix.position_bias(queries)
            if before is None:
                position_bias = functional.pad(position_bias, (prefix.length, 0))
            else:
                position_bias = torch.cat([before, position_bias], dim=-1)
        key = torch.cat([_for_rows(prefix.keys, key), key], dim=2)
        value = torch.cat([_for_rows(prefix.values, value), value], dim=2)
    if position_bias is not None:
        kwargs["position_bias"] = position_bias
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _for_rows(prefix: Tensor, like: Tensor) -> Tensor:
    """Repeat each lane's prefix for its rows: (lanes, h, n, d) -> (lanes * batch, h, n, d)."""
    return prefix.repeat_interleave(like.shape[0] // prefix.shape[0], dim=0).to(like.dtype)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)

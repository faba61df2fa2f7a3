"""Attention with a prefix: SDPA attention, with keys and values put before the host's.

transformers lets a model take its attention function by name, for every family and for self- and
cross-attention alike. Hosts are loaded with the one registered here, so that prefix tuning needs
no cache object and works in encoders too.

Where an attention looks back over a sliding window, a prefix stands at the places just before the
text and slides out of sight as any token does; so it is in peft, where it lies in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import (
    create_position_bias_mask,
    sdpa_attention_forward,
)
from transformers.masking_utils import sdpa_mask

NAME = "peftport"
_SLOT = "_peftport_prefix"
_DTYPE = "_peftport_dtype"
_MADE = "_peftport_biased"
_WATCHER = "_peftport_watcher"


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

    def position_bias(self, queries: int, seen: int = 0) -> Tensor | None:
        """Bias of the prefix columns: (1, heads, queries, length), None without relative bias.

        Args:
            seen: tokens of the text before the first query, whose keys come from a cache.
        """
        if self.bias is None:
            return None
        past = self.length + seen
        bias = self.bias.compute_bias(queries, past + queries, past_seen_tokens=past)
        return bias[..., : self.length]


def set_prefix(attention: nn.Module, prefix: Prefix | None) -> None:
    """Put `prefix` before the keys and values of `attention`, or take it away with None."""
    object.__setattr__(attention, _SLOT, prefix)


def set_attention_dtype(attention: nn.Module, dtype: torch.dtype) -> None:
    """Have `attention` compute in `dtype`; it takes and gives what it did before."""
    object.__setattr__(attention, _DTYPE, dtype)


@dataclass(frozen=True)
class Attended:
    """What an attention works on, before any prefix is put to it.

    query: (rows, heads, queries, head_dim), scaled, and rotated where the host rotates; key,
    value: (rows, kv_heads, tokens, head_dim). scores: what is added to the scores, minus infinity
    where a query must not look: (rows or 1, heads or 1, queries, tokens). softcap, s_aux,
    sliding_window: as in `_by_hand` and `attention`; None where there are none.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scores: Tensor
    softcap: float | None = None
    s_aux: Tensor | None = None
    sliding_window: int | None = None


@contextmanager
def watch_attention(attention: nn.Module, see: Callable[[Attended], None]) -> Iterator[None]:
    """Show `see` what `attention` works on whenever it runs."""
    object.__setattr__(attention, _WATCHER, see)
    try:
        yield
    finally:
        object.__setattr__(attention, _WATCHER, None)


def _attended(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    position_bias: Tensor | None,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> Attended:
    queries, tokens = query.shape[2], key.shape[2]
    scores = query.new_zeros(1, 1, queries, tokens)
    if mask is None and queries > 1 and getattr(module, "is_causal", False):
        mask = torch.ones(queries, tokens, dtype=torch.bool, device=query.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    if position_bias is not None:
        scores = scores + position_bias
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return Attended(query * scale, key, value, scores, softcap, s_aux, sliding_window)


def capped(scores: Tensor, softcap: float | None) -> Tensor:
    """Scores held between -softcap and softcap by tanh (Gemma 2), or as they are with None."""
    return scores if softcap is None else torch.tanh(scores / softcap) * softcap


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

    What is in sight of a sliding window (`sliding_window`, in tokens) is told by the mask; the
    window's size is needed for a prefix alone.

    query: (rows, heads, queries, head_dim); key, value: (rows, kv_heads, tokens, head_dim);
    attention_mask: boolean (True attends) or additive, (rows, 1, queries, tokens).
    """
    see: Callable[[Attended], None] | None = getattr(module, _WATCHER, None)
    if see is not None:
        see(_attended(module, query, key, value, attention_mask, position_bias, **kwargs))
    prefix: Prefix | None = getattr(module, _SLOT, None)
    given = query.dtype
    dtype = getattr(module, _DTYPE, given)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    causal = query.shape[2] > 1 and getattr(module, "is_causal", False)
    if position_bias is not None:
        attention_mask = _biased(position_bias, attention_mask, prefix, causal, query, key)
    elif prefix is not None:
        window = kwargs.get("sliding_window")
        attention_mask = _widened(attention_mask, prefix, causal, query, key, window)
    if prefix is not None:
        key = torch.cat([_for_rows(prefix.keys, key), key], dim=2)
        value = torch.cat([_for_rows(prefix.values, value), value], dim=2)
    if attention_mask is not None and attention_mask.dtype != torch.bool:
        attention_mask = attention_mask.to(dtype)
    if kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        attended = _by_hand(query, key, value, attention_mask, causal, **kwargs)
    else:
        attended, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return attended.to(given), None


def _by_hand(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    causal: bool,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """Attention as written in the papers, for what SDPA does not know; sizes as in `attention`.

    softcap: see `capped`. s_aux: for each head a score of looking at nothing (gpt-oss): (heads,).
    Returns (rows, queries, heads, head_dim).
    """
    groups = query.shape[1] // key.shape[1]
    key, value = (states.repeat_interleave(groups, 1) for states in (key, value))
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = capped(scores, softcap)  # (rows, heads, queries, tokens)
    if mask is None and causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if mask is not None and mask.dtype == torch.bool:
        # A query that sees nothing, as padding on the left does, gives anything but no NaN.
        hidden = ~mask & mask.any(-1, keepdim=True)
        scores = scores.masked_fill(hidden, -torch.inf)
    elif mask is not None:
        scores = scores + mask
    if s_aux is not None:
        nothing = s_aux.to(scores)[None, :, None, None].expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, nothing], dim=-1)
    shares = scores.softmax(-1)[..., : key.shape[2]]
    return (shares @ value).transpose(1, 2).contiguous()


def _widened(
    mask: Tensor | None,
    prefix: Prefix | None,
    causal: bool,
    query: Tensor,
    key: Tensor,
    window: int | None = None,
) -> Tensor | None:
    """The mask with the columns of a prefix, which every token sees if no window ends before."""
    if prefix is None:
        return mask
    if mask is None and causal:
        ones = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = ones.tril()[None, None]
    if mask is None and window is not None:
        mask = query.new_ones(1, 1, query.shape[2], key.shape[2], dtype=torch.bool)
    if mask is None:
        return None
    seen = 1.0 if mask.dtype == torch.bool else 0.0
    wide = functional.pad(mask, (prefix.length, 0), value=seen)
    if window is not None:
        wide[..., : prefix.length] &= in_sight(prefix.length, mask.sum(-1), window)
    return wide


def in_sight(length: int, text: Tensor, window: int) -> Tensor:
    """Which places of a prefix a window shows to tokens that see so many of the text: (..., length)
    from (...).

    How much of the text a token sees tells where it stands, be there padding before the text or
    keys in a cache: who sees a whole window of it sees no prefix.
    """
    before = torch.arange(length, 0, -1, device=text.device)  # from the text back: (length,)
    return text[..., None] - 1 + before < window


def _biased(
    bias: Tensor,
    mask: Tensor | None,
    prefix: Prefix | None,
    causal: bool,
    query: Tensor,
    key: Tensor,
) -> Tensor:
    """Position bias and mask as one tensor that is added to the scores.

    All layers of a T5 stack are given the same bias and mask: what the first layer makes of them is
    kept with the bias, which lives as long as the pass does.
    """
    length = prefix.length if prefix else 0
    made = getattr(bias, _MADE, None)
    if made is None or made[0] is not mask or made[1] != length:
        columns = functional.pad(bias, (length, 0))
        seen = key.shape[2] - query.shape[2]
        if prefix is not None and (b := prefix.position_bias(query.shape[2], seen)) is not None:
            columns = torch.cat([b, bias], dim=-1)
        wide = _widened(mask, prefix, causal, query, key)
        added = create_position_bias_mask(columns, wide, causal and wide is None, query, key)
        made = (mask, length, added)
        setattr(bias, _MADE, made)
    return made[2]


def _for_rows(prefix: Tensor, like: Tensor) -> Tensor:
    """Repeat each lane's prefix for its rows: (lanes, h, n, d) -> (lanes * batch, h, n, d)."""
    return prefix.repeat_interleave(like.shape[0] // prefix.shape[0], dim=0).to(like.dtype)


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)

"""A frozen host's activations and norms in fewer passes over memory, by the same formulas.

transformers writes them as chains of operations, each of which reads and writes every state, and
each of which is gone through again backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def fuse(model: nn.Module) -> None:
    """Replace what a fused form exists for; the model's weights must be frozen."""
    from transformers.activations import NewGELUActivation

    for module in list(model.modules()):
        parts: Iterator[tuple[str, Any]] = module.named_children()
        for name, part in parts:
            if isinstance(part, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
            elif _is_rms_norm(part):
                part.forward = partial(RmsNorm.apply, part.weight, part.variance_epsilon)
            elif type(part).__name__ in _LESS_ONE:
                part.forward = partial(RmsNorm.apply, 1.0 + part.weight, part.eps)


_LESS_ONE = ("GemmaRMSNorm", "Gemma2RMSNorm", "Gemma3RMSNorm")
"""Norms whose weight is kept less 1."""
_PLAIN = (
    *("T5LayerNorm", "MT5LayerNorm", "UMT5LayerNorm", "LlamaRMSNorm", "Qwen2RMSNorm"),
    *("Qwen3RMSNorm", "Qwen3MoeRMSNorm", "MistralRMSNorm", "MinistralRMSNorm", "Phi3RMSNorm"),
    *("Ministral3RMSNorm", "GraniteRMSNorm", "SmolLM3RMSNorm", "Olmo2RMSNorm", "GptOssRMSNorm"),
)


def _is_rms_norm(module: Any) -> bool:
    """T5's norm, and Llama's and its descendants': no mean, no bias."""
    return type(module).__name__ in _PLAIN


class RmsNorm(torch.autograd.Function):
    """states / rms(states) * weight (Zhang & Sennrich 2019, arXiv 1910.07467), without a gradient
    for the weight. weight (width,), states (..., width)."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, epsilon: float, states: Tensor) -> Tensor:
        square = torch.linalg.vecdot(states, states)  # (...)
        inverse = square.div_(states.shape[-1]).add_(epsilon).rsqrt_().unsqueeze(-1)
        normed = states * inverse  # (..., width)
        ctx.save_for_backward(weight, normed, inverse)
        return normed * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor]:
        weight, normed, inverse = ctx.saved_tensors
        scaled = gradient * weight  # (..., width)
        along = torch.linalg.vecdot(scaled, normed).div_(normed.shape[-1]).unsqueeze(-1)
        return None, None, scaled.addcmul_(normed, along, value=-1).mul_(inverse)

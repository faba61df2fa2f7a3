"""Fused activations and norms are transformers' own formulas, forwards and backwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.activations import NewGELUActivation
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

from peftport.hosts.fused import RmsNorm, fuse

THEIRS = [T5LayerNorm, LlamaRMSNorm, Qwen2RMSNorm, Gemma3RMSNorm]


def frozen(part: nn.Module) -> nn.Sequential:
    """A model of one part, with weights that are not all alike."""
    model = nn.Sequential(part).requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(1, 0.3, generator=torch.Generator().manual_seed(1))
    return model


def value_and_gradient(model: nn.Module, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    states = states.clone().requires_grad_()
    value = model(states)
    value.sin().sum().backward()
    return value.detach(), states.grad


@pytest.mark.parametrize("kind", [NewGELUActivation, *THEIRS], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 5.0])
def test_values_and_gradients_are_theirs(kind, scale):
    model = frozen(kind() if kind is NewGELUActivation else kind(24, eps=1e-5))
    states = scale * torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(0))
    theirs = value_and_gradient(model, states)
    fuse(model)
    ours = value_and_gradient(model, states)
    # Below zero GELU is a small difference of large terms, which the two round differently.
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=4e-6)


@pytest.mark.parametrize("family", ["t5", "llama", "qwen2", "qwen3", "gemma3_text"])
def test_every_norm_of_the_family_is_fused(tiny_host, family):
    from peftport.hosts import load_host

    model = load_host(str(tiny_host(family))).model
    norms = [part for part in model.modules() if type(part).__name__.endswith("Norm")]
    assert norms
    assert all(norm.forward.func == RmsNorm.apply for norm in norms)


@pytest.mark.parametrize("family", ["t5", "gpt2"])
def test_no_chain_of_an_activation_is_left(tiny_host, family):
    from peftport.hosts import load_host

    parts = list(load_host(str(tiny_host(family))).model.modules())
    assert any(isinstance(part, nn.GELU) for part in parts)
    assert not any(isinstance(part, NewGELUActivation) for part in parts)


def test_the_gradient_of_the_norm_is_right_in_double_precision():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, generator=generator, dtype=torch.float64)
    states = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: RmsNorm.apply(weight, 1e-6, x), states)


def test_layers_of_other_kinds_are_left_alone():
    model = nn.Sequential(nn.LayerNorm(4), nn.GELU(), nn.ReLU()).requires_grad_(False)
    before = [part.forward for part in model]
    fuse(model)
    assert [part.forward for part in model] == before

"""A few tokens of massive activation do not say how large a change is, nor where it goes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peftport.porting.correlation import Matching
from peftport.porting.fitted import Fit
from peftport.porting.massive import Tempered, tempered
from peftport.porting.methods import port_method
from peftport.porting.procrustes import SemiOrthogonal
from porting.hosts_and_texts import means_of, request_of
from porting.spaces import drawn
from porting.test_procrustes import module_of
from tiny_runs import host_in, task_in

TOKENS, SINKS = 600, 12


@given(st.integers(1, 9), st.integers(0, 10_000), st.floats(1.0, 8.0))
def test_longer_states_are_scaled_down_and_others_stay_as_they_are(width, seed, most):
    states = drawn(seed, 50, width) * drawn(seed + 1, 50, 1).exp()
    found, sizes = tempered(states, most), states.norm(dim=1)
    limit = most * sizes.median()
    usual = sizes <= limit
    assert torch.equal(found[usual], states[usual])
    assert torch.allclose(found[~usual].norm(dim=1), limit, rtol=1e-4)
    assert torch.cosine_similarity(found, states).min() > 1 - 1e-5


def test_nothing_is_scaled_where_no_state_may_be_too_long_or_most_are_nothing():
    states = torch.ones(5, 3) * torch.tensor([[1.0], [1], [1], [1], [1000]])
    assert tempered(states, 0) is states
    mostly_none = torch.zeros(5, 3)
    mostly_none[0] = 1
    assert tempered(mostly_none, 5) is mostly_none


def spaces(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """What one host computes; the other, whose neurons are those in another order, 2 times as
    large; and the same with massive states on a few tokens."""
    order = torch.randperm(width, generator=torch.Generator().manual_seed(1))
    there = drawn(0, TOKENS, width)
    here = 2 * there[:, order]
    sunk = here.clone()
    sunk[:SINKS] = 0.1 * here[:SINKS]
    sunk[:SINKS, 3] = 5000.0
    return there, here, sunk


@pytest.mark.parametrize("width", [24, 400])
@pytest.mark.parametrize("fit", [SemiOrthogonal(0.3, 1.0), Matching()], ids=["procrustes", "match"])
def test_a_change_is_no_larger_for_tokens_that_only_one_host_rests_on(fit: Fit, width: int) -> None:
    there, here, sunk = spaces(width)
    vectors = drawn(5, width, 4)
    wanted = fit.changes(there, here, None) @ vectors

    def missed(found: Fit) -> float:
        change = found.changes(there, sunk, None) @ vectors
        return float((change - wanted).norm() / wanted.norm())

    assert missed(fit) > 1, "the fault that it is for"
    assert missed(Tempered(fit, 5.0)) < 0.7
    assert missed(Tempered(fit, 5.0)) < missed(fit) / 5


@pytest.mark.parametrize("method", ["procrustes", "correlation"])
def test_how_long_a_state_may_be_is_an_option(
    method: str, tiny_host: Any, tiny_continuation: Any, tiny_task: Any
) -> None:
    origin, receiver = host_in(tiny_host("llama")), host_in(tiny_continuation("llama"))
    module = module_of("lora", origin, task_in(tiny_task))
    means = means_of(origin, receiver, texts=30)

    def ported(**options: float) -> dict[str, Tensor]:
        request = request_of(module, receiver, method, **options)
        generator = torch.Generator().manual_seed(0)
        return port_method(method).port(request, module.tensors, generator, means).tensors

    usual, none, short = ported(), ported(massive=0), ported(massive=0.5)
    assert all(torch.equal(usual[name], none[name]) for name in usual), "no state is massive here"
    assert any(not torch.equal(short[name], none[name]) for name in short)

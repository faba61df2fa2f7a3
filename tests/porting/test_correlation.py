"""Neurons in another order are found again, with their signs and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftport.porting.correlation import matched_neurons
from porting.test_procrustes import answers, missed, module_of, ported, twin
from tiny_runs import host_in, task_in

__all__ = ["twin"]


def test_neurons_are_matched_with_sign_and_size() -> None:
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(300, 6, generator=draw)
    order = torch.tensor([4, 0, 5, 1, 3, 2])
    sizes = torch.tensor([1.0, -2.0, 0.5, -1.0, 3.0, 1.0])
    other = states[:, order] * sizes + 0.01 * torch.randn(300, 6, generator=draw)
    back = matched_neurons(states - states.mean(0), other - other.mean(0))
    assert torch.allclose(other @ back.mT, states, atol=0.1)


def test_neurons_of_a_wider_space_are_left_over() -> None:
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(300, 8, generator=draw)
    back = matched_neurons(states[:, :5], states)
    assert (back != 0).sum() == 5 and (back != 0).any(1).all()


@pytest.mark.parametrize("case", ["houlsby", "lora", "prefix"])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "bert"])
def test_a_twin_in_another_order_answers_as_the_originating_host_does(
    family: str, case: str, tiny_host: Any, twin: Any, tiny_task: Path
) -> None:
    host, other = host_in(tiny_host(family)), host_in(twin("permuted", family))
    task = task_in(tiny_task)
    module = module_of(case, host, task)
    wanted = answers(host, module, task)
    bare = answers(host, None, task) if host.geometry.kind != "encoder" else wanted * 0
    found = answers(other, ported(module, host, other, "correlation"), task)
    assert missed(found, wanted, bare) < 0.01


def test_a_neuron_that_stands_still_has_no_partner() -> None:
    """What centring leaves of a constant is rounding, and was taken for a deviation."""
    one, other = (torch.randn(200, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    for states in (one, other):
        states[:, 2] = 0.37
    for first, second in ((one, one.flip(1)), (one, other)):
        matrix = matched_neurons(first - first.mean(0), second - second.mean(0))
        assert matrix.abs().max() < 2
    assert not matched_neurons(one - one.mean(0), one - one.mean(0))[2].any()

"""Classes become as frequent as the donor's, whatever constants and scales a port has added."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from peftport.porting.prior import class_scores, prior_offsets
from peftport.porting.reading import TokenRows
from peftport.techniques import technique
from peftport.training import readout_of, scores
from porting.spaces import drawn
from tiny_runs import encoded, host_in, start_of, task_in

classes = st.integers(2, 5)
seeds = st.integers(0, 10_000)
TEXTS = 80


def frequencies(found: Tensor) -> Tensor:
    return found.softmax(1).mean(0)


@given(classes, seeds)
def test_a_constant_that_a_port_has_added_is_taken_away(count, seed):
    donor, constant = drawn(seed, TEXTS, count), 3 * drawn(seed + 1, count)
    found = prior_offsets(donor, donor + constant)
    assert torch.allclose(found, constant.mean() - constant, atol=0.02)


@given(classes, seeds, st.floats(0.2, 5))
def test_classes_are_as_frequent_as_the_donors_at_the_donors_spread(count, seed, size):
    """Also where the scores of the two have nothing to do with each other."""
    donor = 2 * drawn(seed, TEXTS, count) + drawn(seed + 1, count)
    ported = size * (drawn(seed + 2, TEXTS, count) + drawn(seed + 3, count))
    shifted = ported + prior_offsets(donor, ported)
    centred = [s - s.mean(1, keepdim=True) for s in (donor, ported)]
    spread = [(s - s.mean(0)).square().mean().sqrt() for s in centred]
    wide = shifted * spread[0] / spread[1]
    assert torch.allclose(frequencies(wide), frequencies(donor), atol=0.01)


@given(classes, seeds, st.floats(0.1, 10))
def test_offsets_are_in_the_ported_module_s_own_unit(count, seed, size):
    donor, ported = drawn(seed, TEXTS, count), drawn(seed + 1, TEXTS, count)
    once, scaled = prior_offsets(donor, ported), prior_offsets(donor, size * ported)
    assert torch.allclose(scaled, size * once, atol=1e-3 * size)
    assert float(once.sum()) == pytest.approx(0, abs=1e-4)


def test_a_class_that_a_donor_never_names_leaves_numbers():
    donor = torch.tensor([[100.0, -100.0, 0.0]]).repeat(20, 1) + drawn(0, 20, 3)
    found = prior_offsets(donor, drawn(1, 20, 3))
    assert torch.isfinite(found).all()
    assert found[0] > 0 > found[1]


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_class_scores_are_those_of_a_test(family, tiny_host, tiny_task):
    host, task = host_in(tiny_host(family)), task_in(tiny_task)
    made, config, start = start_of("lora", host, [3])
    module = {n: t[0] + 0.1 * drawn(len(n), *t[0].shape) for n, t in start.items()}
    batch = next(iter(encoded(host, task, "test").evaluation_batches(100_000, 1)))
    rows, readout = batch[1], readout_of(host, task)
    read = TokenRows(rows.input_ids, rows.attention_mask, None, {})
    found = class_scores(host, technique("lora"), config, module, read, readout)
    lanes = {name: tensor[None] for name, tensor in module.items()}
    wanted = scores(host, made, config, lanes, encoded(host, task, "test"), readout)[0]
    assert torch.allclose(found, wanted[batch[0]], atol=1e-5)

"""Heads, rewritten by maps that are known, compute what the maps say."""

from __future__ import annotations

import pytest
import torch

from peftport.porting.heads import head_of, map_head
from peftport.techniques.head import head_logits, head_shapes
from porting.spaces import drawn, geometry, known_maps
from porting.test_rewriting import NARROW, WIDE, through


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_a_head_reads_the_receiver_s_states_as_it_read_the_mapped_ones(pooling):
    origin, receiver = geometry("bert", 32), geometry("bert", 48)
    head = {n: drawn(k, *s) for k, (n, s) in enumerate(head_shapes(origin, 3, pooling).items())}
    maps = known_maps(origin, receiver)
    made = map_head(head, receiver, maps)
    states, mask = drawn(5, 2, 4, 48), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    mapped_states = through(maps.states("encoder.1"), states)
    assert {n: tuple(t.shape) for n, t in made.items()} == head_shapes(receiver, 3, pooling)
    found, wanted = (
        head_logits(s, mask, {n: t[None] for n, t in tensors.items()})
        for s, tensors in ((states, made), (mapped_states, head))
    )
    assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.norm()))


def test_a_bias_of_label_words_and_no_head_at_all_stay():
    maps = known_maps(NARROW, WIDE)
    bias = {"head.bias": drawn(0, 2)}
    assert torch.equal(map_head(bias, WIDE, maps)["head.bias"], bias["head.bias"])
    assert map_head({}, WIDE, maps) == {}
    both = {"head.bias": bias["head.bias"], "decoder.0.self.q.lora_A": drawn(1, 2)}
    assert head_of(both).keys() == {"head.bias"}

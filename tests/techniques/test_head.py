"""The head of encoders: a linear map of the mean state over the text, one a lane."""

from __future__ import annotations

import pytest
import torch

from families import FAMILIES, KINDS
from peftport.techniques.head import head_logits, head_shapes, initial_head
from techniques.references import batch, drawn
from tiny_runs import host_in


@pytest.mark.parametrize("family", FAMILIES)
def test_encoders_have_a_head_and_others_have_none(family, tiny_host):
    found = head_shapes(host_in(tiny_host(family)).geometry, 3)
    expected = {"head.weight": (3, 32), "head.bias": (3,)}
    assert found == (expected if KINDS[family] == "encoder" else {})


def test_its_start_is_small_weights_and_no_bias(tiny_host):
    found = initial_head(host_in(tiny_host("bert")).geometry, 50, torch.Generator().manual_seed(0))
    assert not found["head.bias"].any()
    assert abs(float(found["head.weight"].std()) - 0.02) < 0.002


def test_it_reads_the_mean_over_the_text_and_not_the_padding():
    states = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 0, 0]])
    parameters = drawn({"head.weight": (2, 3, 6), "head.bias": (2, 3)})
    found = head_logits(states, mask, parameters)
    for row, length in enumerate([5, 2, 1, 3]):
        lane = row // 2
        pooled = states[row, :length].mean(0)
        expected = parameters["head.weight"][lane] @ pooled + parameters["head.bias"][lane]
        torch.testing.assert_close(found[row], expected)


def test_padding_of_an_encoder_does_not_move_its_class_scores(tiny_host):
    host = host_in(tiny_host("roberta"))
    inputs = batch(host.tokenizer)
    parameters = drawn({"head.weight": (1, 2, 32), "head.bias": (1, 2)})

    def scores(ids, mask):
        with torch.no_grad():
            return head_logits(host.token_states(ids, mask), mask, parameters)

    mask = inputs["attention_mask"]
    longer = {name: torch.nn.functional.pad(tensor, (0, 9)) for name, tensor in inputs.items()}
    torch.testing.assert_close(
        scores(longer["input_ids"], longer["attention_mask"]),
        scores(inputs["input_ids"], mask),
        atol=1e-5,
        rtol=0,
    )


def test_a_head_that_pools_by_the_first_token_reads_it_through_a_dense_layer_and_tanh():
    states = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(4, 5, dtype=torch.long)
    shapes = {"head.weight": (2, 3, 6), "head.bias": (2, 3)}
    parameters = drawn(shapes | {"head.dense.weight": (2, 6, 6), "head.dense.bias": (2, 6)})
    found = head_logits(states, mask, parameters)
    for row in range(4):
        one = {name: tensor[row // 2] for name, tensor in parameters.items()}
        inner = torch.tanh(one["head.dense.weight"] @ states[row, 0] + one["head.dense.bias"])
        torch.testing.assert_close(found[row], one["head.weight"] @ inner + one["head.bias"])


def test_a_head_that_pools_by_the_first_token_has_a_dense_layer_more(tiny_host):
    geometry = host_in(tiny_host("bert")).geometry
    shapes = head_shapes(geometry, 2, "first")
    assert shapes["head.dense.weight"] == (32, 32)
    assert shapes["head.dense.bias"] == (32,)
    start = initial_head(geometry, 2, torch.Generator().manual_seed(0), "first")
    assert {name: tuple(tensor.shape) for name, tensor in start.items()} == shapes
    assert not start["head.dense.bias"].any()
    assert head_shapes(geometry, 0, "first") == {}

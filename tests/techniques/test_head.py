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

"""What a port looks at on a host, and what that costs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from peftport.porting.activations import label_gradients, observe
from peftport.porting.reading import Rows
from peftport.training.readout import Readout
from techniques.references import batch
from tiny_runs import host_in


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_of_the_vocabulary_no_more_than_the_label_words_is_multiplied(
    family, tiny_host, monkeypatch
):
    """A quarter of a million tokens would cost more than the rest of a small host."""
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    places = {"decoder": torch.arange(inputs["input_ids"].numel())}
    rows = Rows(inputs["input_ids"], inputs["attention_mask"], None, places)
    linear, widths = functional.linear, []

    def noted(states, weight, bias=None):
        widths.append(len(weight))
        return linear(states, weight, bias)

    monkeypatch.setattr(functional, "linear", noted)
    points = ["decoder.0.self.v", "decoder.1.ffn.down"]
    seen = observe(host, [rows], points, points)
    gradients = label_gradients(host, rows, points, Readout(2, (5, 3)), {})
    assert host.geometry.vocabulary not in widths
    for point in points:
        assert gradients[point].shape == (1, *seen.outputs[point].shape)
        assert gradients[point].any()

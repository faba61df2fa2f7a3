"""Weights are read one at a time, as safetensors reads them, by either name they go by."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from peftport.errors import BadInput
from peftport.hosts.weights import Weights

TENSORS = {
    "h.0.double": torch.arange(6, dtype=torch.float64).view(2, 3),
    "h.0.single": torch.arange(4, dtype=torch.float32) / 3,
    "h.0.half": torch.tensor([[1.5], [-0.1]], dtype=torch.float16),
    "h.0.brain": torch.tensor([0.1, 1e30], dtype=torch.bfloat16),
    "h.0.none": torch.zeros(0, 5),
}


@pytest.fixture
def weights(tmp_path):
    save_file(TENSORS | {"h.0.counts": torch.arange(3)}, tmp_path / "model.safetensors")
    return Weights(tmp_path)


@pytest.mark.parametrize("name", TENSORS)
def test_a_weight_is_read_in_its_type_and_shape(weights, name):
    found = weights[name]
    assert found.dtype == TENSORS[name].dtype
    assert torch.equal(found, TENSORS[name])
    assert torch.equal(weights[f"transformer.{name}"], TENSORS[name])


def test_what_is_no_weight_is_refused_by_name(weights):
    with pytest.raises(
        BadInput, match=r"'h\.0\.counts' has type I64; read are F64, F32, F16, BF16"
    ):
        weights["h.0.counts"]
    with pytest.raises(BadInput, match=r"has no weight called 'h\.1\.single'"):
        weights["h.1.single"]

"""Numbers that are not finite are found without a module in memory."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from peftport.errors import BadInput
from peftport.modules import finite
from peftport.modules.finite import require_finite_file

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 33, 98])
def test_one_number_is_found_wherever_it_stands(dtype, value, place, monkeypatch, tmp_path):
    monkeypatch.setattr(finite, "_PART", 64)  # several parts, the last one shorter
    tensor = torch.linspace(-1, 1, 99).to(dtype).reshape(9, 11)
    save_file({"a": torch.ones(3), "b": tensor, "c": torch.ones(())}, tmp_path / "f")
    require_finite_file(tmp_path / "f")
    tensor.view(-1)[place] = value
    save_file({"a": torch.ones(3), "b": tensor, "c": torch.ones(())}, tmp_path / "f")
    with pytest.raises(BadInput, match=r"f: tensor 'b' has values that are not finite .*train it"):
        require_finite_file(tmp_path / "f")


def test_a_number_beyond_single_precision_is_not_finite_where_it_is_used(tmp_path):
    save_file({"a": torch.tensor([1e39, 0.0], dtype=torch.float64)}, tmp_path / "f")
    with pytest.raises(BadInput, match="not finite"):
        require_finite_file(tmp_path / "f")


def test_whole_numbers_and_empty_tensors_are_finite(tmp_path):
    save_file({"a": torch.ones(2, dtype=torch.int64), "b": torch.zeros(0, 3)}, tmp_path / "f")
    require_finite_file(tmp_path / "f")

"""A band stands for the product of its matrix with itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftport.porting import banded
from peftport.porting.banded import Banded
from porting.spaces import drawn

SHIFTS = torch.tensor([0.01, 1.0, 30.0]).double()
SHARES = torch.tensor([0.5, 2.0, 1.0]).double()


def wanted(matrix: Tensor, vectors: Tensor) -> Tensor:
    """What `solved` gives, from inverses of the whole."""
    square, unit = matrix @ matrix.mT, torch.eye(len(matrix)).to(matrix)
    inverses = [
        w * torch.linalg.inv(square + s * unit) for s, w in zip(SHIFTS, SHARES, strict=True)
    ]
    return vectors @ sum(inverses, torch.zeros_like(square))


@pytest.mark.parametrize("width", [3, 8, 64])
@pytest.mark.parametrize(("rows", "columns"), [(20, 33), (24, 24), (17, 18), (1, 5)])
def test_shifted_inverses_are_those_of_the_product(rows, columns, width, monkeypatch):
    monkeypatch.setattr(banded, "WIDTH", width)
    matrix, vectors = drawn(0, rows, columns).double(), drawn(1, 5, rows).double()
    band = Banded.of(matrix)
    assert torch.allclose(band.solved(vectors, SHIFTS, SHARES), wanted(matrix, vectors))
    assert band.norm() == pytest.approx(float((matrix @ matrix.mT).norm()))


def test_rows_of_nothing_and_rows_that_are_alike_are_no_hindrance(monkeypatch):
    monkeypatch.setattr(banded, "WIDTH", 4)
    matrix = drawn(0, 12, 20).double()
    matrix[3:9] = 0
    matrix[10] = matrix[11]
    vectors = drawn(1, 5, 12).double()
    found = Banded.of(matrix).solved(vectors, SHIFTS, SHARES)
    assert torch.allclose(found, wanted(matrix, vectors))


def test_single_precision_keeps_small_singular_values():
    """Those of a hundred thousandth, of which a square in single precision would keep nothing."""
    left, _, right = torch.linalg.svd(drawn(0, 90, 120).double(), full_matrices=False)
    values = torch.logspace(0, -5, 90, dtype=torch.double)
    matrix, vectors = left * values @ right, drawn(1, 5, 90).double()
    shift, whole = torch.tensor([1e-10]).double(), torch.ones(1).double()
    exact = vectors @ left / (values.square() + 1e-10) @ left.mT
    found = Banded.of(matrix.float()).solved(vectors.float(), shift, whole)
    assert float((found - exact).norm() / exact.norm()) < 0.02

"""A decomposition that torch gives up is made all the same."""

from __future__ import annotations

import pytest
import torch

from peftport.porting.semi_orthogonal import semi_orthogonal
from peftport.porting.svd import svd


def given_up(*_: object, **__: object) -> None:
    raise torch.linalg.LinAlgError("linalg.svd: The algorithm failed to converge")


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (3, 5, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_divide_and_conquer_fails_qr_gives_the_same(shape, dtype, monkeypatch):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    expected = svd(matrix)
    monkeypatch.setattr(torch.linalg, "svd", given_up)
    left, values, right = svd(matrix)
    assert left.shape == expected[0].shape and right.shape == expected[2].shape
    assert left.dtype == dtype
    torch.testing.assert_close(values, expected[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(left * values[..., None, :] @ right, matrix, rtol=1e-4, atol=1e-5)


def test_a_map_is_fitted_all_the_same(monkeypatch):
    covariance = torch.randn(6, 9, generator=torch.Generator().manual_seed(1))
    expected = semi_orthogonal(covariance)
    monkeypatch.setattr(torch.linalg, "svd", given_up)
    torch.testing.assert_close(semi_orthogonal(covariance), expected, rtol=1e-4, atol=1e-5)


def test_what_is_not_finite_is_not_decomposed(monkeypatch):
    monkeypatch.setattr(torch.linalg, "svd", given_up)
    with pytest.raises(torch.linalg.LinAlgError):
        svd(torch.full((2, 2), torch.nan))

"""Singular value decompositions that do not give up."""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import svd as scipy_svd
from torch import Tensor


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The thin decomposition of (..., rows, columns): left (..., rows, rank), singular values
    (..., rank) and right (..., rank, columns).

    LAPACK's divide and conquer, which torch calls, fails to converge on some matrices of nearly
    equal singular values; QR iterations, slower, do not.

    Raises:
        torch.linalg.LinAlgError: the matrix is not finite.
    """
    try:
        return tuple(torch.linalg.svd(matrix, full_matrices=False))
    except torch.linalg.LinAlgError:
        if not torch.isfinite(matrix).all():
            raise
    flat = matrix.reshape(-1, *matrix.shape[-2:]).double().cpu().numpy()
    parts = [scipy_svd(each, full_matrices=False, lapack_driver="gesvd") for each in flat]
    left, values, right = (
        torch.from_numpy(np.stack(each)).to(matrix) for each in zip(*parts, strict=True)
    )
    outer = matrix.shape[:-2]
    shaped = (each.reshape(*outer, *each.shape[1:]) for each in (left, values, right))
    return tuple(shaped)  # type: ignore[return-value]

"""The directions in which few samples of a wide space lie.

A space of 14,336 dimensions in which there are 2,000 samples is one of 2,000 to every map that is
fitted on them: what lies beside them is mapped to nothing. So maps are fitted on coordinates, and
vectors go in and out by the samples themselves. No matrix of the whole space is ever made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from peftport.errors import RunFailed

_TINY = 1e-12
_BLOCK = 256
"""Rows of which products are made in one go."""


@dataclass(frozen=True)
class Span:
    """Orthonormal directions, which are rows of factor^-1 @ samples.

    width: of the space. samples: (samples, width), None where they fill the space, whose own axes
    are the directions then. factor: lower, of the samples' products with each other.
    """

    width: int
    samples: Tensor | None = field(default=None, repr=False)
    factor: Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, *parts: Tensor) -> tuple[Span, list[Tensor]]:
        """The span of samples that come in parts, each (samples, width), and each part's
        coordinates: (samples, directions)."""
        width = parts[0].shape[1]
        if sum(map(len, parts)) >= width:
            return cls(width), list(parts)
        sizes = [float(part.norm()) + _TINY for part in parts]
        samples = torch.cat([part / size for part, size in zip(parts, sizes, strict=True)])
        lower = cholesky(gram(samples), 0.0)
        coordinates = lower.split([len(part) for part in parts])
        found = [part * size for part, size in zip(coordinates, sizes, strict=True)]
        return cls(width, samples, lower), found

    def into(self, vectors: Tensor) -> Tensor:
        """Coordinates of vectors: (vectors, width) -> (vectors, directions)."""
        if self.samples is None or self.factor is None:
            return vectors
        products = self.samples @ vectors.to(self.samples).mT  # (samples, vectors)
        return torch.linalg.solve_triangular(self.factor, products, upper=False).mT

    def out(self, coordinates: Tensor) -> Tensor:
        """Vectors of coordinates: (vectors, directions) -> (vectors, width)."""
        if self.samples is None or self.factor is None:
            return coordinates
        shares = torch.linalg.solve_triangular(
            self.factor, coordinates.to(self.factor), upper=False, left=False
        )
        return shares @ self.samples


def gram(rows: Tensor) -> Tensor:
    """The products of all rows with each other, each made once: (rows, width) -> (rows, rows)."""
    found = rows.new_empty(len(rows), len(rows))
    _fill(found, rows)
    return found


def _fill(square: Tensor, rows: Tensor) -> None:
    if len(rows) <= _BLOCK:
        torch.mm(rows, rows.mT, out=square)
        return
    half = len(rows) // 2
    upper, lower = rows[:half], rows[half:]
    _fill(square[:half, :half], upper)
    _fill(square[half:, half:], lower)
    torch.mm(lower, upper.mT, out=square[half:, :half])
    square[:half, half:] = square[half:, :half].mT


def require_finite(number: float) -> None:
    """Raise RunFailed if what was made of activations is no number."""
    if not math.isfinite(number):
        raise RunFailed("activations of a host are not finite: no map can be fitted on them")


def cholesky(square: Tensor, shift: float) -> Tensor:
    """The lower Cholesky factor of a matrix with a multiple of the identity added.

    Where few samples leave directions without variance and one stands far off (an attention sink),
    products are rounded by more than the shift: then it is raised beyond their rounding.

    Raises:
        RunFailed: the matrix holds what is no number.
    """
    trace = float(square.diagonal().sum())
    require_finite(trace)
    while True:
        shifted = square.clone()
        shifted.diagonal().add_(shift)
        lower, failed = torch.linalg.cholesky_ex(shifted)
        if not failed:
            return lower
        shift = max(10 * shift, torch.finfo(square.dtype).eps * trace, _TINY)

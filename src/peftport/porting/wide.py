"""Maps between wide spaces, applied to a module's few vectors without being made.

A polar factor P of J is (J J^T)^(-1/2) J. Its product with few vectors needs no decomposition:
the inverse root is a sum of ten shifted inverses (Hale, Higham & Trefethen 2008, SIAM J. Numer.
Anal. 46), and J is turned into a band before (`banded`). Between whitened spaces Cholesky factors
do for roots, since a turn between them is the same whichever root whitens.

Against the exact maps of `semi_orthogonal` three things differ: directions without variance are
raised by adding the least variance to all, instead of where it lacks; a constant gives no sign to a
direction in which samples do not vary; and singular values below a hundred thousandth of the
largest fade.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import normalize

from peftport.porting.banded import Banded
from peftport.porting.space_map import SpaceMap
from peftport.porting.span import Span, cholesky, gram, require_finite

WIDE = 384
"""Spaces of more dimensions, on both sides, are wide."""
_LEAST = 1e-6
"""Share of the largest variance that is added to every direction before inputs are whitened."""
_WHITENED, _CHANGES = (1e-6, 8), (1e-10, 10)
"""Share of the largest square of a singular value down to which a polar factor is right within
0.002, and by how many inverses. Below it vectors fade: samples say nothing of them."""
_POWERS = 12
_TINY = 1e-12


def are_wide(origin: Tensor, receiver: Tensor) -> bool:
    """Whether maps between spaces, of which there are samples (samples, width), are wide."""
    return min(origin.shape[1], receiver.shape[1]) > WIDE


@dataclass(frozen=True)
class Polar:
    """The polar factor of `matrix` (rows, columns); band: of its product with itself, on the
    shorter side; largest: no eigenvalue of that is larger; least, inverses: as `_CHANGES`."""

    matrix: Tensor = field(repr=False)
    band: Banded = field(repr=False)
    largest: float
    least: float
    inverses: int

    @classmethod
    def of(cls, matrix: Tensor, least: float, inverses: int, largest: float | None = None) -> Polar:
        """Prepare the polar factor, in the precision of the matrix.

        Raises:
            RunFailed: the matrix holds what is no number.
        """
        require_finite(float(matrix.sum()))
        band = Banded.of(matrix if len(matrix) <= matrix.shape[1] else matrix.mT)
        bound = band.norm() + _TINY if largest is None else largest
        return cls(matrix, band, bound, least, inverses)

    def after(self, vectors: Tensor) -> Tensor:
        """Vectors times the factor: (vectors, rows) -> (vectors, columns)."""
        vectors = vectors.to(self.matrix)
        if len(self.matrix) <= self.matrix.shape[1]:
            return self._root(vectors) @ self.matrix
        return self._root(vectors @ self.matrix)

    def _root(self, vectors: Tensor) -> Tensor:
        """Vectors times the inverse root of the square: (vectors, width)."""
        shifts, shares = torch.tensor(inverse_root(self.least, self.inverses)).double().mT
        found = self.band.solved(vectors, shifts * self.largest, shares)
        return found * math.sqrt(self.largest)

    def norm(self, samples: Tensor) -> Tensor:
        """Norm of samples (samples, rows) times the factor."""
        if len(self.matrix) <= self.matrix.shape[1]:
            return samples.norm()  # they lose nothing
        image = samples.to(self.matrix) @ self.matrix  # (samples, columns)
        shift, whole = image.new_full((1,), self.least * self.largest), image.new_ones(1)
        return (image * self.band.solved(image, shift, whole)).sum().sqrt()


@cache
def inverse_root(least: float, inverses: int) -> tuple[tuple[float, float], ...]:
    """Shifts s and shares w for which the sum of w / (x + s) is x^(-1/2) on [least, 1]."""
    from scipy.special import ellipj, ellipkm1

    whole, modulus = float(ellipkm1(least)), math.sqrt(least)
    found = []
    for place in range(inverses):
        at = (place + 0.5) * whole / inverses
        # Beyond the middle the functions are told by those before it, which lose no digits.
        sn, cn, dn, _ = map(float, ellipj(min(at, whole - at), 1 - least))
        if at < whole / 2:
            shift, share = least * (sn / cn) ** 2, dn / cn**2
        else:
            shift, share = (cn / sn) ** 2, dn / (modulus * sn**2)
        found.append((shift, 2 * whole * modulus / (math.pi * inverses) * share))
    return tuple(found)


@dataclass(frozen=True)
class WideInputMap(SpaceMap):
    """The map between wholly whitened wide spaces.

    spans: of the originating and the receiving host's samples. fade, whiten: Cholesky factors of
    both covariances there. turn: between the whitened spaces.
    """

    mean: Tensor
    centre: Tensor
    spans: tuple[Span, Span] = field(repr=False)
    fade: Tensor = field(repr=False)
    turn: Polar = field(repr=False)
    whiten: Tensor = field(repr=False)
    size: Tensor

    def weight(self, weight: Tensor) -> Tensor:
        """A weight that reads the originating host's inputs, for the receiving one's."""
        rows = weight.reshape(-1, weight.shape[-1]).to(self.fade)
        origin, receiver = self.spans
        turned = self.turn.after(origin.into(rows) @ self.fade)
        found = torch.linalg.solve_triangular(self.whiten, turned, upper=False, left=False)
        return (self.size * receiver.out(found)).view(*weight.shape[:-1], -1).to(weight.dtype)


@dataclass(frozen=True)
class WideChange:
    """The map of changes between wide spaces: `change @ vectors`, (receiver, origin) @ (origin,
    vectors). spans: of the originating and the receiving host's samples."""

    spans: tuple[Span, Span] = field(repr=False)
    turn: Polar = field(repr=False)
    size: Tensor

    def __matmul__(self, vectors: Tensor) -> Tensor:
        """Changes of the originating host's output as changes of the receiving one's."""
        origin, receiver = self.spans
        turned = self.turn.after(origin.into(vectors.mT))
        return (self.size * receiver.out(turned)).mT.to(vectors.dtype)


def fit_wide_input(origin: Tensor, receiver: Tensor) -> WideInputMap:
    """Fit the map of inputs on activations (samples, width) of the same tokens."""
    (there, mean), (here, centre) = _centred(origin), _centred(receiver)
    (left, (there,)), (right, (here,)) = Span.of(there), Span.of(here)
    fade, whiten = _whitener(there), _whitener(here)
    joint = _over(here.mT @ there, fade)
    joint = _over(joint.mT.contiguous(), whiten)
    turn = Polar.of(joint, *_WHITENED, largest=1.0)  # singular values are correlations
    size = there.norm() / (turn.norm(fade) + _TINY)
    return WideInputMap(mean, centre, (left, right), fade, turn, whiten, size)


def fit_wide_output(
    origin: Tensor, receiver: Tensor, gradients: tuple[Tensor, Tensor] | None, weight: float
) -> WideChange:
    """Fit the map of changes; arguments as for `semi_orthogonal.fit_output`."""
    slopes = [] if gradients is None else [each.flatten(0, -2) for each in gradients]
    left, (there, *ours) = Span.of(_centred(origin)[0], *slopes[:1])
    right, (here, *theirs) = Span.of(_centred(receiver)[0], *slopes[1:])
    joint = _unit_product(there, here)
    for one, other in zip(ours, theirs, strict=True):
        joint += weight * _unit_product(one, other)
    turn = Polar.of(joint, *_CHANGES)
    return WideChange((left, right), turn, here.norm() / (turn.norm(there) + _TINY))


def _over(rows: Tensor, factor: Tensor) -> Tensor:
    """Rows (rows, width) times the inverse of a transposed Cholesky factor."""
    return torch.linalg.solve_triangular(factor.mT, rows, upper=True, left=False)


def _unit_product(one: Tensor, other: Tensor) -> Tensor:
    return (one.mT @ other).div_(one.norm() * other.norm() + _TINY)


def _centred(states: Tensor) -> tuple[Tensor, Tensor]:
    """States about their mean, and the mean."""
    mean = states.mean(0, dtype=torch.double).to(states.dtype)
    return states - mean, mean


def _whitener(centred: Tensor) -> Tensor:
    """The Cholesky factor of samples' products, with the least variance added."""
    product = gram(centred.mT)
    return cholesky(product, _LEAST * _largest(product) + _TINY)


def _largest(square: Tensor) -> float:
    """The largest eigenvalue of a product of a matrix with itself, within some per cent."""
    vector = square.new_ones(len(square))
    for _ in range(_POWERS):
        vector = normalize(square @ vector, dim=0)
    return float((square @ vector).norm())

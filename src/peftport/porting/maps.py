"""Maps between the spaces of two hosts, fitted on their activations of the same tokens.

A semi-orthogonal map is the polar factor of a cross-covariance: the solution of the orthogonal
Procrustes problem (Schoenemann 1966), and of its relaxation to other widths. Theseus (arXiv
2602.12952) ports linear layers by such maps; BiCo (arXiv 2605.28444) fits those of outputs on
gradients. Here both are in one fit: a module's change of an output counts by what it does to the
states that follow, and by what it does to the label words.

Narrow spaces are decomposed in double precision as the formulas say. In wide ones the same maps
come from Cholesky factors and the eigenvectors of one product, a fifth of the work.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peftport.porting.svd import svd

_TINY = 1e-12
_LEAST = 1e-6
"""Share of the largest variance below which a direction counts as one without any."""
_WIDE = 384
"""Spaces of more dimensions on both sides are wide."""
_POWERS = 50
"""Products by which the largest variance of a wide space is found."""
_MEANS = 0.01
"""Weight of the means beside the centred samples: enough where the samples say nothing."""


@dataclass(frozen=True)
class InputMap:
    """From the receiving host's inputs to the originating one's: x -> matrix (x - centre) + mean.

    matrix: (origin, receiver). mean: (origin,). centre: (receiver,).
    """

    matrix: Tensor
    mean: Tensor
    centre: Tensor

    def weight(self, weight: Tensor) -> Tensor:
        """A weight that reads the originating host's inputs, for the receiving one's: (..., origin)
        -> (..., receiver). Goes with `bias`."""
        return weight @ self.matrix

    def bias(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The bias that goes with `weight`, so that the centre is read as the mean."""
        return bias + weight @ (self.mean - self.matrix @ self.centre)

    def linear(self) -> Tensor:
        """The map without a constant that still takes the centre to the mean: (origin, receiver).

        For weights that have no bias to take up the constant, as LoRA's.
        """
        square = self.centre @ self.centre
        if square < _TINY:
            return self.matrix
        rest = self.mean - self.matrix @ self.centre  # (origin,)
        return self.matrix + torch.outer(rest, self.centre) / square


@dataclass(frozen=True)
class Spread:
    """How centred samples are spread over the directions of their space, in double precision.

    shares: of the samples' whole variance in each direction, rising: (width,), of sum 1.
    directions: a column each, (width, width).
    """

    shares: Tensor
    directions: Tensor

    @property
    def _floor(self) -> Tensor:
        return self.shares[-1] * _LEAST + _TINY

    def root(self, power: float) -> Tensor:
        """The covariance, of trace 1, raised to power / 2: (width, width).

        Directions of next to no variance are taken for larger than they are, by up to a millionth
        of the largest.
        """
        values = self.shares.clamp_min(self._floor).pow(power / 2)
        return (self.directions * values) @ self.directions.mT

    def still(self, vector: Tensor) -> Tensor:
        """The part of a vector in the directions in which the samples do not vary: (width,)."""
        still = self.directions[:, self.shares <= self._floor]  # (width, directions)
        return still @ (still.mT @ vector.double())


def spread(centred: Tensor) -> Spread:
    """How centred samples (samples, width) are spread."""
    values, directions = torch.linalg.eigh(centred.double().mT @ centred.double())
    return Spread(values / (values.sum() + _TINY), directions)


def covariance(origin: Tensor, receiver: Tensor) -> Tensor:
    """Cross-covariance of unit size: (samples, origin), (samples, receiver) -> (origin, receiver).

    The columns are not centred.
    """
    return origin.mT @ receiver / (origin.norm() * receiver.norm() + _TINY)


def semi_orthogonal(covariance: Tensor) -> Tensor:
    """The semi-orthogonal matrix nearest to a covariance: (origin, receiver), singular values 1."""
    if min(covariance.shape) > _WIDE:
        return polar(covariance.double()).to(covariance.dtype)
    left, _, right = svd(covariance.double())
    return (left @ right).to(covariance.dtype)


def polar(matrix: Tensor) -> Tensor:
    """The polar factor of a matrix, by the eigenvectors of its product with itself.

    Of singular values that are so small that rounding made them, nothing is taken, where `svd`
    would pair their vectors at random.
    """
    if len(matrix) > matrix.shape[1]:
        return polar(matrix.mT).mT
    squares, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    least = 4 * torch.finfo(matrix.dtype).eps * squares[-1]
    scales = torch.where(squares > least, squares.clamp_min(least).rsqrt(), 0.0)
    return (vectors * scales) @ (vectors.mT @ matrix)


@dataclass(frozen=True)
class _Samples:
    """One space's samples (samples, width) about their mean, in double precision."""

    mean: Tensor
    centred: Tensor
    spread: Spread

    @classmethod
    def of(cls, states: Tensor) -> _Samples:
        mean = states.double().mean(0)
        centred = states.double() - mean
        return cls(mean, centred, spread(centred))

    def constant(self) -> Tensor:
        """What is constant in the samples, beside the size of their mean: (width,)."""
        return self.spread.still(self.mean) / (self.mean.norm() + _TINY)


def _constants(origin: _Samples, receiver: _Samples) -> Tensor:
    """A little of the means, where the samples say nothing: (origin, receiver).

    What a LayerNorm gives is constant in one direction, in which only the means tell the two
    spaces' signs from each other. Anywhere else the samples tell, and means would bend the map.
    """
    return _MEANS * torch.outer(origin.constant(), receiver.constant())


def _size(wanted: Tensor, found: Tensor) -> Tensor:
    """What makes mapped samples as large as those of the space that they come to.

    Fitted, because what a map takes along of the samples hangs on both widths.
    """
    return wanted.norm() / (found.norm() + _TINY)


def fit_input(origin: Tensor, receiver: Tensor, whitening: float = 0.0) -> InputMap:
    """Fit the map of inputs on activations (samples, width) of the same tokens.

    whitening: 0 fits a turn and one scale. 1 fits the turn between whitened spaces, which recovers
    any linear relation of the two, whatever their widths; between them the turn is fitted on
    spaces partly whitened.
    """
    if whitening == 1 and min(origin.shape[1], receiver.shape[1]) > _WIDE:
        return _fit_wide_input(origin, receiver)
    there, here = _Samples.of(origin), _Samples.of(receiver)
    matrix = _turn(there, here, whitening)
    matrix = matrix * _size(there.centred, here.centred @ matrix.mT)
    kept = (tensor.to(origin.dtype) for tensor in (matrix, there.mean, here.mean))
    return InputMap(*kept)


def _turn(there: _Samples, here: _Samples, whitening: float) -> Tensor:
    """The map of inputs but for its size: (origin, receiver)."""
    if not whitening:
        joint = covariance(there.centred, here.centred)
        return semi_orthogonal(joint + _constants(there, here))
    fade, whiten = there.spread.root(-whitening), here.spread.root(-whitening)
    joint = covariance(there.centred @ fade, here.centred @ whiten)
    turn = semi_orthogonal(joint + _constants(there, here))
    return there.spread.root(whitening) @ turn @ whiten


def _fit_wide_input(origin: Tensor, receiver: Tensor) -> InputMap:
    """The map between wholly whitened wide spaces.

    A turn between whitened spaces is the same whichever root whitens them, so that Cholesky factors
    do. Their directions without variance are taken for larger than they are by adding the least
    variance to all. What is constant has no sign here: `InputMap` takes the means over.
    """
    means = [states.double().mean(0).to(states.dtype) for states in (origin, receiver)]
    there, here = origin - means[0], receiver - means[1]
    own = here.mT @ here  # (receiver, receiver)
    fade, whiten = _lower_root(there.mT @ there), _lower_root(own)
    joint = torch.linalg.solve_triangular(whiten, here.mT @ there, upper=False)
    joint = torch.linalg.solve_triangular(fade, joint.mT.contiguous(), upper=False)
    turn = polar(joint)  # (origin, receiver)
    matrix = fade @ torch.linalg.solve_triangular(whiten, turn, upper=False, left=False)
    found = ((matrix @ own) * matrix).sum().clamp_min(0).sqrt()
    return InputMap(matrix * (there.norm() / (found + _TINY)), *means)


def _lower_root(product: Tensor) -> Tensor:
    """The Cholesky factor of samples' products, with the least variance added: (width, width)."""
    vector = product.new_ones(len(product))
    for _ in range(_POWERS):
        vector = torch.nn.functional.normalize(product @ vector, dim=0)
    least = _LEAST * (product @ vector).norm() + _TINY
    return torch.linalg.cholesky(product + least * torch.eye(len(product), dtype=product.dtype))


def fit_output(
    origin: Tensor,
    receiver: Tensor,
    gradients: tuple[Tensor, Tensor] | None = None,
    weight: float = 0.0,
) -> Tensor:
    """Fit the map that takes changes of an output to the receiving host: (receiver, origin).

    Args:
        origin, receiver: activations (samples, width) of the same tokens.
        gradients: of the label words' scores at both hosts' outputs, (..., samples, width) each.
        weight: of the gradients' covariance beside the activations'.
    """
    if min(origin.shape[1], receiver.shape[1]) > _WIDE:
        there, here = (states - states.double().mean(0).to(states) for states in (origin, receiver))
        joint = covariance(there, here)
    else:
        both = _Samples.of(origin), _Samples.of(receiver)
        there, here = both[0].centred, both[1].centred
        joint = covariance(there, here) + _constants(*both)
    if gradients is not None:
        slopes = (each.flatten(0, -2).to(joint) for each in gradients)
        joint = joint + weight * covariance(*slopes)
    turn = semi_orthogonal(joint).mT
    return (turn * _size(here, there @ turn.mT)).to(origin.dtype)

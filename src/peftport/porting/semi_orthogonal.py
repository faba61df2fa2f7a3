"""Maps between the spaces of two hosts, fitted on their activations of the same tokens.

A semi-orthogonal map is the polar factor of a cross-covariance: the solution of the orthogonal
Procrustes problem (Schoenemann 1966), and of its relaxation to other widths. Theseus (arXiv
2602.12952) ports linear layers by such maps; BiCo (arXiv 2605.28444) fits those of outputs on
gradients. Here both are in one fit: a module's change of an output counts by what it does to the
states that follow, and by what it does to the label words.

Here narrow spaces are decomposed as the formulas say, in double precision; the same maps between
wide ones are in `wide`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from peftport.porting.space_map import SpaceMap
from peftport.porting.svd import svd
from peftport.porting.wide import WideChange, are_wide, fit_wide_input, fit_wide_output

_TINY = 1e-12
_LEAST = 1e-6
"""Share of the largest variance below which a direction counts as one without any."""
_MEANS = 0.01
"""Weight of the means beside the centred samples: enough where the samples say nothing."""


Change = Tensor | WideChange
"""A map of changes (receiver, origin), by which vectors (origin, vectors) are multiplied."""


@dataclass(frozen=True)
class InputMap(SpaceMap):
    """From the receiving host's inputs to the originating one's: x -> matrix (x - centre) + mean.

    matrix: (origin, receiver). mean: (origin,). centre: (receiver,).
    """

    matrix: Tensor
    mean: Tensor
    centre: Tensor

    def weight(self, weight: Tensor) -> Tensor:
        """Its product with the matrix."""
        return weight @ self.matrix


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
    left, _, right = svd(covariance.double())
    return (left @ right).to(covariance.dtype)


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


def fit_input(origin: Tensor, receiver: Tensor, whitening: float = 0.0) -> SpaceMap:
    """Fit the map of inputs on activations (samples, width) of the same tokens.

    whitening: 0 fits a turn and one scale. 1 fits the turn between whitened spaces, which recovers
    any linear relation of the two, whatever their widths; between them the turn is fitted on
    spaces partly whitened.
    """
    if whitening == 1 and are_wide(origin, receiver):
        return fit_wide_input(origin, receiver)
    return fit_turn(origin, receiver, whitening)


def fit_turn(origin: Tensor, receiver: Tensor, whitening: float = 0.0) -> InputMap:
    """`fit_input` as a matrix, however wide the spaces are."""
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


def fit_output(
    origin: Tensor,
    receiver: Tensor,
    gradients: tuple[Tensor, Tensor] | None = None,
    weight: float = 0.0,
) -> Change:
    """Fit the map that takes changes of an output to the receiving host: (receiver, origin).

    Args:
        origin, receiver: activations (samples, width) of the same tokens.
        gradients: of the label words' scores at both hosts' outputs, (..., samples, width) each.
        weight: of the gradients' covariance beside the activations'.
    """
    if are_wide(origin, receiver):
        return fit_wide_output(origin, receiver, gradients, weight)
    there, here = _Samples.of(origin), _Samples.of(receiver)
    joint = covariance(there.centred, here.centred) + _constants(there, here)
    if gradients is not None:
        joint = joint + weight * covariance(*(g.flatten(0, -2).double() for g in gradients))
    turn = semi_orthogonal(joint).mT
    return (turn * _size(here.centred, there.centred @ turn.mT)).to(origin.dtype)

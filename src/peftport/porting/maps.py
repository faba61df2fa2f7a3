"""Maps between the spaces of two hosts, fitted on their activations of the same tokens.

A semi-orthogonal map is the polar factor of a cross-covariance: the solution of the orthogonal
Procrustes problem (Schoenemann 1966), and of its relaxation to other widths. Theseus (arXiv
2602.12952) ports linear layers by such maps; BiCo (arXiv 2605.28444) fits those of outputs on
gradients. Here both are in one fit: a module's change of an output counts by what it does to the
states that follow, and by what it does to the label words.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-12
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


def covariance(origin: Tensor, receiver: Tensor) -> Tensor:
    """Cross-covariance of unit size: (samples, origin), (samples, receiver) -> (origin, receiver).

    The columns are not centred.
    """
    return origin.mT @ receiver / (origin.norm() * receiver.norm() + _TINY)


def semi_orthogonal(covariance: Tensor) -> Tensor:
    """The semi-orthogonal matrix nearest to a covariance: (origin, receiver), singular values 1."""
    left, _, right = torch.linalg.svd(covariance.double(), full_matrices=False)
    return (left @ right).to(covariance.dtype)


def root(centred: Tensor, power: float) -> Tensor:
    """The covariance of centred samples (samples, width), of unit size, raised to power / 2.

    Directions of next to no variance are taken for larger than they are, by up to a millionth of
    the largest.
    """
    values, vectors = torch.linalg.eigh((centred.mT @ centred).double())
    values = values.clamp_min(values[-1] * 1e-6 + _TINY)
    values = values / values.mean()
    return ((vectors * values.pow(power / 2)) @ vectors.mT).to(centred.dtype)


def fit_input(origin: Tensor, receiver: Tensor, whitening: float = 0.0) -> InputMap:
    """Fit the map of inputs on activations (samples, width) of the same tokens.

    whitening: 0 fits a turn and one scale. 1 fits the turn between whitened spaces, which follows
    any linear relation of the two; between them the turn is fitted on spaces partly whitened.
    """
    mean, centre = origin.mean(0), receiver.mean(0)
    there, here = origin - mean, receiver - centre
    scale = there.norm() / (here.norm() + _TINY)
    if not whitening:
        return InputMap(semi_orthogonal(_joint(there, here, mean, centre)) * scale, mean, centre)
    fade, whiten = root(there, -whitening), root(here, -whitening)
    turn = semi_orthogonal(_joint(there @ fade, here @ whiten, mean @ fade, centre @ whiten))
    return InputMap(root(there, whitening) @ turn @ whiten * scale, mean, centre)


def _joint(there: Tensor, here: Tensor, mean: Tensor, centre: Tensor) -> Tensor:
    """Covariance of centred samples, and a little of their means.

    What a LayerNorm gives is constant in one direction, in which only the means tell the two
    spaces' signs from each other.
    """
    return covariance(there, here) + _MEANS * covariance(mean[None], centre[None])


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
    there, here = origin - origin.mean(0), receiver - receiver.mean(0)
    joint = _joint(there, here, origin.mean(0), receiver.mean(0))
    if gradients is not None:
        joint = joint + weight * covariance(*(g.flatten(0, -2) for g in gradients))
    return semi_orthogonal(joint).mT * (here.norm() / (there.norm() + _TINY))

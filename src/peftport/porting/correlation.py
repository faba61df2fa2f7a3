"""Correlation: neurons of the two hosts are matched one to one by how their activations correlate.

Klimaszewski et al. 2024 (arXiv 2403.18804): the absolute correlation of every two neurons on the
same tokens, and the assignment that has most of it. Signs are kept, and the spaces that a module
reads and those that it changes are matched separately.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from peftport.porting.map_based import MappedMethod
from peftport.porting.semi_orthogonal import InputMap

_TINY, _STILL = 1e-12, 1e-6


@dataclass(frozen=True)
class Matching:
    """Fits maps that give each neuron one partner, with the sign and the ratio of deviations.

    Between spaces of other widths the neurons that are left over have none.
    """

    @property
    def uses_gradients(self) -> bool:
        """Neurons are matched by activations alone."""
        return False

    def inputs(self, origin: Tensor, receiver: Tensor) -> InputMap:
        """The map of what a module reads."""
        mean, centre = origin.mean(0), receiver.mean(0)
        return InputMap(matched_neurons(origin - mean, receiver - centre), mean, centre)

    def prefixes(self, origin: Tensor, receiver: Tensor) -> InputMap:
        """The map of keys or values."""
        return self.inputs(receiver, origin)

    def changes(
        self, origin: Tensor, receiver: Tensor, gradients: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """The map of what a module changes: (receiver, origin)."""
        return matched_neurons(receiver - receiver.mean(0), origin - origin.mean(0))


def matched_neurons(one: Tensor, other: Tensor) -> Tensor:
    """The map from the second of two spaces to the first: (one, other), a nonzero entry for each
    pair of neurons.

    Args:
        one, other: centred activations (samples, width) of the same tokens.
    """
    sizes = [states.norm(dim=0) for states in (one, other)]
    # What is left of a constant one after centring is rounding, of which no ratio says anything.
    still = [size <= _STILL * size.max() for size in sizes]
    correlation = (one / (sizes[0] + _TINY)).mT @ (other / (sizes[1] + _TINY))
    rows, columns = linear_sum_assignment(-correlation.abs().numpy())
    matrix = torch.zeros_like(correlation)
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if still[0][row] or still[1][column]:
            continue
        ratio = sizes[0][row] / (sizes[1][column] + _TINY)
        matrix[row, column] = torch.sign(correlation[row, column]) * ratio
    return matrix


class Correlation(MappedMethod):
    """Neurons matched by correlation."""

    name = "correlation"
    about = "Neurons matched one to one by how their activations correlate on unlabelled text."
    limits = (
        "Hosts of one kind. Works where the neurons of one host are those of the other in another "
        "order; hosts pretrained independently have no such neurons."
    )
    source = "Klimaszewski et al. 2024 (arXiv 2403.18804)"

    def fit(self, options: object) -> Matching:
        """There is one way."""
        return Matching()

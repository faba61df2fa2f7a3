"""What every map of what a module reads has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

_TINY = 1e-12


class SpaceMap(ABC):
    """From the receiving host's inputs to the originating one's, so that the centre is read as the
    mean.

    mean: of the originating host's inputs, (origin,). centre: of the receiving one's, (receiver,).
    """

    mean: Tensor
    centre: Tensor

    @abstractmethod
    def weight(self, weight: Tensor) -> Tensor:
        """A weight that reads the originating host's inputs, for the receiving one's: (..., origin)
        -> (..., receiver). Goes with `bias`."""

    def bias(self, weight: Tensor, bias: Tensor) -> Tensor:
        """The bias that goes with `weight`, so that the centre is read as the mean."""
        return bias + weight @ self.mean - self.weight(weight) @ self.centre

    def linear(self, weight: Tensor) -> Tensor:
        """The weight that reads the centre as the mean without a bias: (outputs, origin) ->
        (outputs, receiver).

        For weights that have no bias to take up the constant, as LoRA's.
        """
        mapped, square = self.weight(weight), self.centre @ self.centre
        if square < _TINY:
            return mapped
        rest = weight @ self.mean - mapped @ self.centre  # (outputs,)
        return mapped + torch.outer(rest, self.centre) / square

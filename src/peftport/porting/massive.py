"""Massive activations: tokens whose states are many times as large as those of all others.

A language model puts them on a token or two of each text, mostly on the first one, as a place for
attention to rest (Xiao et al. 2024, arXiv 2309.17453; Sun et al. 2024, arXiv 2402.17762). With a
token for the beginning of a text it is that one, which other hosts have not; without, it is the
text's own first token, which on the other host is a token like others. What such states hold is a
constant. They say nothing of how two hosts' spaces go together, and yet have nearly all of a
layer's variance: maps that are to keep sizes would make a change for all tokens as large as they
are.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from peftport.porting.fitted import Fit
from peftport.porting.semi_orthogonal import Change, InputMap
from peftport.porting.space_map import SpaceMap

USUAL_MOST = 5.0
"""How many times as long as the median a state may be, where nothing else is said."""


def tempered(states: Tensor, most: float) -> Tensor:
    """States (samples, width), those that are more than `most` times as long as the median scaled
    down to that; all as they are where `most` is 0."""
    sizes = states.norm(dim=1, keepdim=True)
    limit = most * sizes.median()
    if not limit > 0 or not (sizes > limit).any():
        return states
    return states * (limit / sizes.clamp_min(limit))


@dataclass(frozen=True)
class Tempered:
    """Fits maps as another fit does, on tempered samples."""

    fit: Fit
    most: float

    @property
    def uses_gradients(self) -> bool:
        """Whether `changes` wants the gradients of the label words' scores."""
        return self.fit.uses_gradients

    def inputs(self, origin: Tensor, receiver: Tensor) -> SpaceMap:
        """The map of what a module reads."""
        return self.fit.inputs(*self._both(origin, receiver))

    def prefixes(self, origin: Tensor, receiver: Tensor) -> InputMap:
        """The map of keys or values, from the originating host to the receiving one."""
        return self.fit.prefixes(*self._both(origin, receiver))

    def changes(
        self, origin: Tensor, receiver: Tensor, gradients: tuple[Tensor, Tensor] | None
    ) -> Change:
        """The map of what a module changes: (receiver, origin)."""
        return self.fit.changes(*self._both(origin, receiver), gradients)

    def _both(self, origin: Tensor, receiver: Tensor) -> tuple[Tensor, Tensor]:
        return tempered(origin, self.most), tempered(receiver, self.most)

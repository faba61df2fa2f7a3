"""Procrustes: rewrite a module through semi-orthogonal maps between the two hosts' activations.

Sources: Theseus (arXiv 2602.12952) for semi-orthogonal maps of inputs and outputs of linear
layers, BiCo (arXiv 2605.28444) for fitting those of outputs on gradients. What is ours: both in
one fit, the gradients being those of the label words' scores, which needs no label; and the same
maps for Adapter, Compacter, prefixes and heads. A change dW of a weight becomes P dW M.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from torch import Tensor

from peftport.porting.map_based import MappedMethod, MappedOptions
from peftport.porting.semi_orthogonal import Change, InputMap, fit_input, fit_output, fit_turn
from peftport.porting.space_map import SpaceMap


class ProcrustesOptions(MappedOptions):
    """How the maps are fitted."""

    gradients: float = Field(
        0.3, ge=0, description="weight of the label words' gradients beside the activations"
    )
    whitening: float = Field(
        1.0,
        ge=0,
        le=1,
        description="how far inputs are whitened before they are mapped; 1 is wholly",
    )


@dataclass(frozen=True)
class SemiOrthogonal:
    """Fits semi-orthogonal maps."""

    gradients: float = 0.0
    whitening: float = 0.0

    @property
    def uses_gradients(self) -> bool:
        """Whether maps of changes are fitted on gradients, too."""
        return self.gradients > 0

    def inputs(self, origin: Tensor, receiver: Tensor) -> SpaceMap:
        """The map of what a module reads."""
        return fit_input(origin, receiver, self.whitening)

    def prefixes(self, origin: Tensor, receiver: Tensor) -> InputMap:
        """The map of keys or values: a turn, since a prefix need not lie where texts' keys do."""
        return fit_turn(receiver, origin)

    def changes(
        self, origin: Tensor, receiver: Tensor, gradients: tuple[Tensor, Tensor] | None
    ) -> Change:
        """The map of what a module changes: (receiver, origin)."""
        return fit_output(origin, receiver, gradients, self.gradients)


class Procrustes(MappedMethod):
    """Semi-orthogonal maps between the two hosts' spaces."""

    name = "procrustes"
    about = (
        "Semi-orthogonal maps between the two hosts' spaces, fitted on their activations on "
        "unlabelled text and on the gradients of the label words."
    )
    limits = (
        "Hosts of one kind (encoder, decoder or encoder-decoder). Both are run on the texts. "
        "Without label words the maps are fitted on activations alone, and lose much."
    )
    source = "Theseus (arXiv 2602.12952), BiCo (arXiv 2605.28444)"
    Options = ProcrustesOptions

    def fit(self, options: ProcrustesOptions) -> SemiOrthogonal:
        """How the options say."""
        return SemiOrthogonal(options.gradients, options.whitening)

"""Copy: every tensor goes over as it is (Sabry & Belz 2024, arXiv 2401.14228)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from peftport.porting.account import Account
from peftport.porting.base import (
    Made,
    MethodOptions,
    PortMethod,
    Request,
    matched,
)
from peftport.porting.layers import Pairing, Pairs, pair_layers
from peftport.techniques import technique
from peftport.techniques.base import Parameters

if TYPE_CHECKING:
    from peftport.porting.means import Means


class CopyOptions(MethodOptions):
    """Whether a copy goes to hosts of other depth, and how."""

    layers: Pairing | None = Field(
        None, description="how layers are paired where depths differ; null: each with its own"
    )


class Copy(PortMethod):
    """Needs hosts that differ in depth at most; works while the receiver is a short
    continuation."""

    name = "copy"
    about = "Every tensor as it is. For hosts of equal geometry that share a pretraining."
    limits = (
        "Between hosts that were pretrained independently nothing of the module survives. Other "
        "depths want --layers, and a prefix cannot go to a deeper host."
    )
    source = "Sabry & Belz 2024, arXiv 2401.14228"
    rows = "copied"
    Options: ClassVar[type[MethodOptions]] = CopyOptions

    def refusal(self, request: Request) -> str | None:
        """Only where zeros change nothing can a layer be left as it is: an attention reads a
        prefix whatever is in it."""
        deeper = None in (_pairs(request) or {}).values()
        name = request.donor.technique
        if deeper and not technique(name).gates:
            return (
                f"the receiving host is deeper, and no {name} leaves a layer without a partner as "
                "it is"
            )
        return super().refusal(request)

    def account(self, request: Request) -> Account:
        """Copied where name and shape agree, layers going by their partners where paired."""
        return matched(request, self.name, _pairs(request))

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """The donor's tensors; what it lacks starts as the technique starts it, and zeros, which
        change nothing, stand in layers without a partner."""
        pairs = _pairs(request)
        if request.options.layers == "cka":
            from peftport.porting.similarity import layer_pairs

            assert means is not None
            pairs = layer_pairs("cka", means, request)
        account, result = matched(request, self.name, pairs), request.scratch(generator)
        for entry in account.entries:
            if entry.target is None:
                continue
            if entry.source is not None:
                result[entry.target] = donor[entry.source].clone()
            elif entry.intended:
                result[entry.target] = torch.zeros(entry.shape)
        return Made(result, account)


def _pairs(request: Request) -> Pairs | None:
    """The pairs that were asked for, as far as shapes tell; None where none were."""
    if request.options.layers is None:
        return None
    return pair_layers(request.options.layers, request.origin.stacks, request.receiver.stacks)

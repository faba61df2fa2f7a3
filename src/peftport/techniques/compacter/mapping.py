"""Compacters for another host: mapped as the adapters that compute the same, and factored again
where that loses little."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import Tensor

from peftport.porting.rewriting import Mapped
from peftport.techniques.adapter.mapping import AdapterByMaps
from peftport.techniques.base import Parameters
from peftport.techniques.compacter.core import RULE, Compacter, CompacterConfig, weight
from peftport.techniques.compacter.kronecker import factor

if TYPE_CHECKING:
    from peftport.porting.base import Request


class CompacterByMaps(AdapterByMaps):
    """A compacter's weights are made dense, and then an adapter's."""

    everywhere = frozenset({RULE})

    def dense(self, request: Request, donor: Parameters) -> Parameters:
        """The donor as an adapter's tensors."""
        return densified(request.config, donor)

    def sources(self, name: str, names: Collection[str]) -> list[str]:
        """Both factors of an adapter's weight, or the tensor itself."""
        side = name.removesuffix("weight")
        factors = [f"{side}left", f"{side}right"] if name.endswith(".weight") else []
        return [each for each in names if each == name or each in factors]

    def finished(self, made: Mapped, request: Request, donor: Parameters) -> Mapped:
        """A compacter again, where that loses no more than the tolerance."""
        return _factored(made, request, donor, request.options.tolerance)


def densified(config: CompacterConfig, donor: Parameters) -> Parameters:
    """A compacter's tensors as those of the adapter that computes the same."""
    lanes = {name: tensor[None] for name, tensor in donor.items()}
    sides = {name.rpartition(".")[0] for name in donor if name.endswith(".left")}
    made: Parameters = {n: t for n, t in donor.items() if n.endswith(".bias") and n != RULE}
    for side in sides:
        made[f"{side}.weight"] = weight(lanes, side)[0].mT.contiguous()
    return made


def _factored(made: Mapped, request: Request, donor: Parameters, tolerance: float) -> Mapped:
    """The adapter as a compacter again, where that loses no more than the tolerance."""
    config, geometry = request.config, request.receiver
    weights = {n: t.mT for n, t in made.tensors.items() if n.endswith(".weight") and t.ndim == 2}
    weights = {n: t for n, t in weights.items() if not n.startswith("head.")}
    if any(side % config.n for weight in weights.values() for side in weight.shape):
        return made
    rule, factors, lost = factor(list(weights.values()), donor[RULE], config.rank)
    details = {**made.details, "factoring_loses": round(lost, 4)}
    if lost > tolerance:
        return Mapped(made.technique, made.config, made.tensors, details)
    tensors: dict[str, Tensor] = {n: t for n, t in made.tensors.items() if n not in weights}
    for name, (left, right) in zip(weights, factors, strict=True):
        side = name.removesuffix(".weight")
        tensors[f"{side}.left"], tensors[f"{side}.right"] = left, right
    again = config.model_copy(update={"reduction": made.config.reduction})
    whole = Compacter().shapes(again, geometry)
    ordered = {n: (rule if n == RULE else tensors[n]) for n in whole}
    heads = {n: t for n, t in tensors.items() if n.startswith("head.")}
    return Mapped("compacter", again, ordered | heads, details)

"""What the port methods that map activations share: options, account, and the way to a module."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from peftport.hosts.fingerprint import fingerprint
from peftport.hosts.geometry import Geometry
from peftport.hosts.precision import bf16_is_fast
from peftport.modules import Record
from peftport.porting.account import Account, Entry, idle, left_over
from peftport.porting.aside import on_disk
from peftport.porting.base import Made, MethodOptions, PortMethod, Request, RowMap
from peftport.porting.copy import Copy
from peftport.porting.estimate import (
    CostEstimate,
    Load,
    estimated,
    is_large,
    largest_layer,
    loaded,
    streams,
    weights_of,
)
from peftport.porting.fitted import Fit
from peftport.porting.layers import Pairing, Pairs, pair_layers, partner_of
from peftport.porting.layerwise import How, map_module, scored_states
from peftport.porting.map_costs import MapCosts, mapping_costs
from peftport.porting.massive import USUAL_MOST, Tempered
from peftport.porting.rewriting import ByMaps, by_maps, rewriting_of
from peftport.porting.similarity import layer_pairs
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import OUTPUT
from peftport.techniques.head import BIAS, dense_in, head_shapes

if TYPE_CHECKING:
    from peftport.porting.embeddings import EmbeddingPair
    from peftport.porting.means import Means

_PRIOR = "so that classes are as frequent as the donor's on the texts"


class MappedOptions(MethodOptions):
    """What every method that maps activations can be told."""

    layers: Pairing = Field("proportional", description="how layers are paired where depths differ")
    places: int = Field(4096, ge=64, description="tokens that each map is fitted on")
    prior: bool = Field(
        True, description="whether classes are to be as frequent as under the donor, on the texts"
    )
    massive: float = Field(
        USUAL_MOST,
        ge=0,
        description="how many times as long as the median a token's state may be; longer ones are "
        "scaled down to that before maps are fitted, and 0 is none",
    )
    prefix_steps: int = Field(200, ge=0, description="steps of the fit of each attention's prefix")
    tolerance: float = Field(
        0.01, ge=0, le=1, description="share of a compacter that factoring it again may lose"
    )


class MappedMethod(PortMethod):
    """A method that fits maps between the two hosts' spaces and rewrites the module by them."""

    needs = frozenset({"weights", "texts"})
    rows = "mapped"
    Options: ClassVar[type[MethodOptions]] = MappedOptions

    def ports(self, name: str) -> bool:
        """Those whose folders say how maps rewrite them."""
        return isinstance(rewriting_of(name), ByMaps)

    @abstractmethod
    def fit(self, options: Any) -> Fit:
        """How each map is fitted."""

    def _tempered(self, options: Any) -> Fit:
        """The fit, on what is no massive activation."""
        return Tempered(self.fit(options), options.massive)

    def row_map(
        self, request: Request, pair: EmbeddingPair, means: Means, generator: torch.Generator
    ) -> RowMap:
        """What is read goes by the map of changes, fitted on both hosts' rows of the same tokens;
        what scores the states behind the last norm goes by the map of these."""
        fit = self._tempered(request.options)
        if pair.side == OUTPUT:
            return fit.inputs(*scored_states(request, means, generator)).linear
        change = fit.changes(*pair.samples(request.options.places), None)
        return lambda rows: (change @ rows.mT).mT

    def carries_last(self, donor: Record, receiver: Geometry) -> bool:
        """Maps are of what layers compute, and such a head reads what is behind the last norm."""
        return False

    def refusal(self, request: Request) -> str | None:
        """Maps go between hosts of one kind, and a head's dense layer to no narrower one."""
        here, there = request.origin, request.receiver
        if here.kind != there.kind:
            return f"its maps go between hosts of one kind, not from {here.kind} to {there.kind}"
        dense = dense_in(request.shapes)
        if dense is not None and dense.bias is None:
            return (
                "the module's head has a dense layer without a bias, and maps need one; copy "
                "carries it between hosts of one width"
            )
        if dense is not None and here.width > there.width:
            return (
                f"the module's head has a dense layer as wide as its host ({here.width}), which "
                f"the receiving host ({there.width}) has no room for"
            )
        return super().refusal(request)

    def account(self, request: Request) -> Account:
        """Everything is mapped but layers without a partner, as far as shapes tell."""
        how = request.options.layers
        pairs = pair_layers(how, request.origin.stacks, request.receiver.stacks)
        body = by_maps(request.donor.technique).shapes(request)
        head = head_shapes(request.receiver, request.classes, request.donor.head)
        return mapped_account(self.name, request, pairs, body | head)

    def estimate(self, request: Request, load: Load) -> CostEstimate:
        """Four passes over the texts on each host, and the maps."""
        tokens, hosts = load.all_tokens, (request.origin, request.receiver)
        weights = sum(map(weights_of, hosts))
        maps = mapping_costs(request, min(request.options.places, tokens))
        whole, weights_held = loaded(hosts)
        low = bf16_is_fast() and not whole
        if low and any(map(is_large, hosts)):
            weights_held *= 0.5
        held = self.samples(request, load) + weights_held
        passes = 8.0 * tokens * weights * (0.5 if low else 1.0)
        found = estimated(hosts, passes + maps.products, held, self.written(request), 8.0 * weights)
        temporary = sum(map(on_disk, _behind(hosts, maps, tokens)))
        return replace(found, temporary=temporary)

    def samples(self, request: Request, load: Load) -> float:
        """Those of one pair of layers, with its maps, and what is kept for later where that is no
        file."""
        tokens, hosts = load.all_tokens, (request.origin, request.receiver)
        maps = mapping_costs(request, min(request.options.places, tokens))
        held = sum(maps.seen) + maps.squares
        if any(map(is_large, hosts)):  # a layer's graph over a part, or the fit of one map
            held = max(4.0 * max(map(largest_layer, hosts)), maps.samples + maps.squares)
        return held + sum(size - on_disk(size) for size in _behind(hosts, maps, tokens))

    def loads(self, request: Request) -> bool:
        """Where whole hosts are run again on the way."""
        return by_maps(request.donor.technique).runs_hosts

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """Fit maps on both hosts and rewrite the donor; to its own host it is copied."""
        assert means is not None
        if fingerprint(means.origin.folder) == fingerprint(means.receiver.folder):
            copy = Copy()
            return copy.port(
                copy.request(request.donor, request.shapes, request.receiver), donor, generator
            )
        options = request.options
        pairs = layer_pairs(options.layers, means, request)
        how = How(
            pairs,
            self._tempered(options),
            options.places,
            options.prior,
        )
        made = map_module(request, donor, means, how, generator)
        made = by_maps(request.donor.technique).finished(made, request, donor)
        shapes = {name: tuple(tensor.shape) for name, tensor in made.tensors.items()}
        account = mapped_account(self.name, request, pairs, shapes)
        record = {"technique": made.technique, "config": made.config.model_dump(mode="json")}
        if request.receiver.kind != "encoder" and BIAS in made.tensors:
            record["head"] = "words"
        return Made(made.tensors, account, record, made.details)


def _behind(hosts: tuple[Geometry, Geometry], maps: MapCosts, tokens: int) -> list[float]:
    """Bytes of what is kept for later, each of which may be a file: what goes into the layers, and
    between large hosts what is seen of a pair of them."""
    seen = maps.seen if any(map(is_large, hosts)) else ()
    return [*(float(streams(geometry, tokens)) for geometry in hosts), *seen]


def mapped_account(method: str, request: Request, pairs: Pairs, shapes: Shapes) -> Account:
    """What became of every tensor of a mapped module.

    Args:
        shapes: of the tensors that the receiving host's module has.
    """
    rewriting = request.rewriting
    used = set(rewriting.everywhere)
    entries = []
    for name, shape in shapes.items():
        source = partner_of(name, pairs)
        if source is None:
            entries.append(idle(name, shape))
            continue
        made_of = rewriting.sources(source, request.shapes)
        if not made_of:
            prior = name == BIAS
            why = _PRIOR if prior else "the module has no such tensor"
            entries.append(Entry(None, name, "initialised", shape, why=why, intended=prior))
            continue
        used.update(made_of)
        why = "" if made_of == [source] else f"of {', '.join(made_of)}"
        entries.append(Entry(made_of[0], name, "mapped", shape, scale=1.0, why=why))
    for name, shape in request.shapes.items():
        if name not in used:
            entries.append(left_over(name, shape))
    return Account(method, tuple(entries))

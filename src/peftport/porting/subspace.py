"""Subspaces of the receiving host's weights: data-free ports of LoRA.

`subspace` is the reading of Cross-LoRA (arXiv 2508.05232) that works: for hosts of one width its
least squares give the receiving host's singular vectors, so that the change is projected on them;
for other widths the change is written in the originating host's singular vectors and read in the
receiving one's. `prolora` (LoRA-X, arXiv 2501.16559; ProLoRA, arXiv 2506.04244) carries the part of
a change within the originating weight's main subspace into the receiving one's, and the rest into
what is orthogonal to that.

The change is kept as its two factors throughout: no matrix of a weight's size is made but the
weights themselves, which are read one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from peftport.porting.account import Account
from peftport.porting.base import Made, MethodOptions, PortMethod, Request, RowMap
from peftport.porting.estimate import (
    CostEstimate,
    Load,
    estimated,
    largest_layer,
    weights_of,
)
from peftport.porting.heads import head_of
from peftport.porting.layers import Pairs, pair_layers, partner_of
from peftport.porting.map_based import mapped_account
from peftport.porting.rewriting import by_factors, has_factors
from peftport.porting.svd import svd
from peftport.techniques.base import Parameters

if TYPE_CHECKING:
    from peftport.porting.embeddings import EmbeddingPair
    from peftport.porting.means import Means

_EXACT = 384
"""Weights whose smaller side is no longer, or is filled by the blocks, are decomposed exactly."""
_MORE, _ROUNDS = 16, 2
"""Of the randomised decomposition: directions beyond the rank in a block, and further blocks."""


class SubspaceOptions(MethodOptions):
    """How much of a weight counts as its subspace."""

    layers: Literal["proportional", "every"] = Field(
        "proportional", description="how layers are paired where depths differ"
    )
    rank: int = Field(64, ge=1, description="singular vectors that span a weight's subspace")


class Subspace(PortMethod):
    """Cross-LoRA.

    splits: whether the originating weight is needed where shapes are equal, too.
    """

    name = "subspace"
    about = "LoRA projected on the main subspaces of the receiving weights. Needs no text."
    limits = (
        "LoRA only. It aligns nothing: it keeps what the two hosts' weights have in common. For "
        "other widths the signs of singular vectors are a convention."
    )
    source = "Cross-LoRA (arXiv 2508.05232)"
    needs = frozenset({"weights"})
    rows = "mapped"
    splits: ClassVar[bool] = False
    Options: ClassVar[type[MethodOptions]] = SubspaceOptions

    def ports(self, name: str) -> bool:
        """Those whose changes of weights are products of two factors."""
        return has_factors(name)

    def account(self, request: Request) -> Account:
        """Both factors of every target are mapped."""
        return mapped_account(self.name, request, _pairs(request), request.wanted)

    def estimate(self, request: Request, load: Load) -> CostEstimate:
        """Every weight that is changed is read, and multiplied with a block six times."""
        hosts = (request.origin, request.receiver)
        weights = sum(map(weights_of, hosts))
        block = request.options.rank + _MORE
        held = 8 * max(map(largest_layer, hosts))
        return estimated((), 12.0 * weights * block, held, self.written(request), 2.0 * weights)

    def refusal(self, request: Request) -> str | None:
        """A head reads activations, which weights say nothing of."""
        if any(name.startswith("head.weight") for name in request.shapes) and (
            request.origin.width != request.receiver.width
        ):
            return "an encoder's head cannot be carried to another width without texts"
        return super().refusal(request)

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """Rewrite the factors of every target."""
        assert means is not None
        pairs, rank = _pairs(request), request.options.rank
        rewriting = by_factors(request.donor.technique)
        points = rewriting.points(request.config, request.receiver)
        partners = {point: partner_of(point, pairs) for point in points}
        paired = {point: partner for point, partner in partners.items() if partner is not None}
        wanted = request.wanted
        # A place without a partner gets zeros, which change nothing.
        idle = {name for name in wanted if partner_of(name, pairs) is None}
        made = head_of(donor) | {name: torch.zeros(wanted[name]) for name in idle}
        needed = [
            (point, partner if self.reads_origin(request, point, partner) else None)
            for point, partner in paired.items()
        ]
        for (point, partner), (here, there) in zip(
            paired.items(), _weights(means, needed), strict=True
        ):
            up, down = rewriting.factors(donor, partner)
            receiver = singular_vectors(here, rank, generator)
            origin = None if there is None else singular_vectors(there, rank, generator)
            made |= rewriting.of_factors(point, *self.carried(up, down, receiver, origin))
        tensors = {name: made[name] for name in wanted}
        return Made(tensors, self.account(request))

    def reads_origin(self, request: Request, point: str, partner: str) -> bool:
        """Whether the originating weight is needed, too."""
        here, there = request.receiver.linears[point], request.origin.linears[partner]
        return self.splits or (here.inputs, here.outputs) != (there.inputs, there.outputs)

    def carried(
        self,
        up: Tensor,
        down: Tensor,
        receiver: tuple[Tensor, Tensor],
        origin: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """The factors (outputs, r), (r, inputs) on the receiving host.

        receiver, origin: left (outputs, rank) and right (inputs, rank) singular vectors.
        """
        left, right = origin or (None, None)
        return (
            self.side_carried(up, receiver[0], left),
            self.side_carried(down.mT, receiver[1], right).mT,
        )

    def side_carried(self, factor: Tensor, receiver: Tensor, origin: Tensor | None) -> Tensor:
        """One side of a change, (width, r), on the receiving host, by the singular vectors (width,
        rank) of that side."""
        if origin is None:
            return receiver @ (receiver.mT @ factor)
        rank = min(receiver.shape[1], origin.shape[1])
        return receiver[:, :rank] @ (origin[:, :rank].mT @ factor)

    def row_map(
        self, request: Request, pair: EmbeddingPair, means: Means, generator: torch.Generator
    ) -> RowMap:
        """By the right singular vectors of both embeddings; of rows the tokens tell the place."""
        rank = request.options.rank
        here = singular_vectors(pair.here, rank, generator)[1]
        there = None
        if self.splits or pair.there.shape[1] != pair.here.shape[1]:
            there = singular_vectors(pair.there, rank, generator)[1]
        return lambda rows: self.side_carried(rows.mT, here, there).mT


def _pairs(request: Request) -> Pairs:
    """Layers of the receiving host and their partners."""
    return pair_layers(request.options.layers, request.origin.stacks, request.receiver.stacks)


class ProLora(Subspace):
    """ProLoRA."""

    name = "prolora"
    about = "LoRA's part within the originating weight's subspace, and the rest, each to its like."
    limits = "LoRA only, between hosts of one width. It aligns nothing: both parts are projected."
    source = "LoRA-X (arXiv 2501.16559), ProLoRA (arXiv 2506.04244)"
    splits = True

    def refusal(self, request: Request) -> str | None:
        """Both hosts' weights must have the same shapes."""
        if refused := super().refusal(request):
            return refused
        points = by_factors(request.donor.technique).points
        here, there = (points(request.config, g) for g in (request.origin, request.receiver))
        if {p.split(".", 2)[2]: (x.inputs, x.outputs) for p, x in here.items()} != {
            p.split(".", 2)[2]: (x.inputs, x.outputs) for p, x in there.items()
        }:
            return "it needs hosts whose weights have the same shapes"
        return None

    def side_carried(self, factor: Tensor, receiver: Tensor, origin: Tensor | None) -> Tensor:
        """One side of a change, split and projected by itself."""
        assert origin is not None
        return _split(factor, origin, receiver)


def _split(factor: Tensor, origin: Tensor, receiver: Tensor) -> Tensor:
    """Project a factor's part in the originating subspace on the receiving one, and the rest on
    what is orthogonal to it: (width, r)."""
    inside = origin @ (origin.mT @ factor)
    rest = factor - inside
    return receiver @ (receiver.mT @ inside) + rest - receiver @ (receiver.mT @ rest)


def singular_vectors(
    weight: Tensor, rank: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The first left (outputs, rank) and right (inputs, rank) singular vectors of a weight.

    Exact for small weights; for large ones randomised (Halko et al. 2011, arXiv 0909.4061). The
    largest entry of every right vector is positive, which is a convention and no alignment.
    """
    rank = min(rank, *weight.shape)
    if min(weight.shape) <= max(_EXACT, (1 + _ROUNDS) * (rank + _MORE)):
        left, _, right = svd(weight.float())
        left, right = left[:, :rank], right[:rank].mT
    else:
        left, right = _randomised(weight, rank, generator)
    largest = right.abs().argmax(0)
    signs = torch.sign(right[largest, torch.arange(rank)])
    return left * signs, right * signs


def _randomised(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The best vectors within a block Krylov space of the weight, which holds all directions that
    the iteration has passed (Musco & Musco 2015, arXiv 1504.05477).

    Weights stored in bfloat16 are multiplied in it, several times as fast as in float32: they
    lose nothing, and a basis that is rounded is as good a start for the next round."""
    if weight.dtype != torch.bfloat16:
        weight = weight.float()

    def times(matrix: Tensor, basis: Tensor) -> Tensor:
        return (matrix @ basis.to(weight.dtype)).float()

    noise = torch.randn(weight.shape[1], rank + _MORE, generator=generator)
    basis = _orthonormal(times(weight, noise))  # (outputs, rank + more), wider with each round
    image = times(weight.mT, basis)  # (inputs, rank + more), likewise
    for _ in range(_ROUNDS):
        following = _orthonormal(times(weight, image[:, -noise.shape[1] :]), beside=basis)
        basis = torch.cat([basis, following], dim=1)
        image = torch.cat([image, times(weight.mT, following)], dim=1)
    _, mixed = torch.linalg.eigh(image.mT @ image)
    mixed = mixed[:, -rank:].flip(1)  # (directions, rank), largest first
    scaled = image @ mixed  # (inputs, rank): right vectors times singular values
    right = _orthonormal(scaled)
    return basis @ mixed, torch.where((scaled * right).sum(0) < 0, -right, right)


def _orthonormal(basis: Tensor, beside: Tensor | None = None) -> Tensor:
    """An orthonormal basis of the columns, of what is orthogonal to `beside` if that is given.

    By Cholesky QR, twice (Yamamoto et al. 2015), which is products alone: Householder's QR waits at
    each column while the next weight is being read."""
    for _ in range(2):
        if beside is not None:
            basis = torch.addmm(basis, beside, beside.mT @ basis, alpha=-1)
        factor, failed = torch.linalg.cholesky_ex(basis.mT @ basis)
        if failed:
            basis = torch.linalg.qr(basis)[0]
        else:
            basis = torch.linalg.solve_triangular(factor.mT, basis, upper=True, left=False)
    return basis


def _weights(
    means: Means, points: Sequence[tuple[str, str | None]]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The weights of the receiving host, and those of the originating one that are named; the next
    are read ahead."""

    def read(point: str, partner: str | None) -> tuple[Tensor, Tensor | None]:
        origin = None if partner is None else means.origin.linear(partner)
        return means.receiver.linear(point), origin

    with ThreadPoolExecutor(1) as reader:
        ahead = [reader.submit(read, *each) for each in points[:1]]
        for following in points[1:]:
            found = ahead.pop().result()
            ahead.append(reader.submit(read, *following))
            yield found
        for last in ahead:
            yield last.result()

"""Which layer of the originating host serves each layer of the receiving one.

A layer without a partner gets a module that changes nothing, and no layer serves twice: what a
module does would otherwise be done more than once. The order of layers is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from peftport.errors import BadInput

Pairing = Literal["proportional", "every", "cka"]
Pairs = Mapping[str, str | None]
"""Layer of the receiving host ("encoder.1") -> that of the originating one, or None."""


def pair_layers(
    how: str,
    origin: Mapping[str, int],
    receiver: Mapping[str, int],
    similarity: Mapping[str, Tensor] | None = None,
) -> dict[str, str | None]:
    """Pair the layers of two hosts, stack by stack.

    Args:
        how: "proportional": as far up in its stack as its partner, the last with the last.
            "every": the first with the first, and from there every k-th of the deeper host.
            "cka": by likeness, in the order that keeps most of it (LoRASuite, arXiv 2505.13515).
        origin, receiver: stack -> number of layers.
        similarity: stack -> likeness (receiver layers, origin layers), for "cka"; as long as it is
            not known, "cka" pairs as "proportional" does.

    Raises:
        BadInput: an unknown way, or hosts that have not the same stacks.
    """
    if how not in get_args(Pairing):
        raise BadInput(f"unknown pairing of layers {how!r}. Known: {', '.join(get_args(Pairing))}.")
    if origin.keys() != receiver.keys():
        raise BadInput(
            f"layers of {' and '.join(origin)} cannot be paired with those of "
            f"{' and '.join(receiver)}."
        )
    pairs: dict[str, str | None] = {}
    for stack, layers in receiver.items():
        if how == "cka" and similarity is not None and origin[stack] != layers:
            partners = order_keeping(similarity[stack])
        else:
            partners = _spread(origin[stack], layers, from_first=how == "every")
        for layer, partner in enumerate(partners):
            pairs[f"{stack}.{layer}"] = None if partner is None else f"{stack}.{partner}"
    return pairs


def _spread(origin: int, receiver: int, from_first: bool) -> list[int | None]:
    """For each receiving layer its partner, by position alone."""
    fewer, more = sorted((origin, receiver))
    step = more // fewer
    places = [i * step if from_first else -(-(i + 1) * more // fewer) - 1 for i in range(fewer)]
    if receiver <= origin:
        return list(places)
    served = {place: layer for layer, place in enumerate(places)}
    return [served.get(layer) for layer in range(receiver)]


def layer_of(name: str) -> str:
    """The layer of a place or a tensor: "encoder.1" of "encoder.1.self.q"."""
    return ".".join(name.split(".", 2)[:2])


def partner_of(name: str, pairs: Pairs) -> str | None:
    """The originating host's place or tensor for one of the receiving host ("encoder.1.self.q");
    None where its layer has no partner. What belongs to no layer, as a head, keeps its name."""
    layer = layer_of(name)
    partner = pairs.get(layer, layer)
    return None if partner is None else partner + name.removeprefix(layer)


def order_keeping(similarity: Tensor) -> list[int | None]:
    """One-to-one partners of rows among columns that keep the order and most likeness in all.

    As many are paired as there are on the smaller side. Of equal choices the earlier rows and
    columns are taken.

    Args:
        similarity: (receiver layers, origin layers).
    """
    rows: list[list[float]] = similarity.tolist()
    count, columns = len(rows), len(rows[0])
    # best[i][j]: of the rows from i and the columns from j on.
    best = [[0.0] * (columns + 1) for _ in range(count + 1)]
    for i in reversed(range(count)):
        for j in reversed(range(columns)):
            best[i][j] = max(_choices(rows, best, i, j))
    partners: list[int | None] = [None] * count
    i = j = 0
    while i < count and j < columns:
        paired, skip_row, skip_column = _choices(rows, best, i, j)
        if paired >= max(skip_row, skip_column):
            partners[i] = j
            i, j = i + 1, j + 1
        elif skip_row >= skip_column:
            i += 1
        else:
            j += 1
    return partners


def _choices(
    rows: Sequence[Sequence[float]], best: Sequence[Sequence[float]], i: int, j: int
) -> tuple[float, float, float]:
    """Likeness to come when row i and column j are paired, or either is left out.

    One side may be left out only as long as the other one still finds partners.
    """
    count, columns = len(rows), len(rows[0])
    paired = rows[i][j] + best[i + 1][j + 1]
    skip_row = best[i + 1][j] if count - i > columns - j else float("-inf")
    skip_column = best[i][j + 1] if columns - j > count - i else float("-inf")
    return paired, skip_row, skip_column


def linear_cka(one: Tensor, other: Tensor) -> Tensor:
    """Likeness of two layers' states of the same tokens (samples, width), between 0 and 1.

    Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414).
    """
    one, other = (states.double() - states.double().mean(0) for states in (one, other))
    shared = torch.linalg.norm(one.mT @ other) ** 2
    return shared / (torch.linalg.norm(one.mT @ one) * torch.linalg.norm(other.mT @ other) + 1e-30)

"""What the maps of a port take: multiplications, bytes seen of a pair of layers, and bytes that a
fit holds."""

from __future__ import annotations

from typing import NamedTuple

from peftport.porting.activations import first_readers, width_at
from peftport.porting.base import Request
from peftport.porting.layers import layer_of, pair_layers, partner_of
from peftport.porting.rewriting import by_maps
from peftport.porting.wide import WIDE

_DOUBLE = 2.0
"""What a product in double precision takes beside one in single."""
_DECOMPOSED = 40.0
"""Operations of a singular value decomposition, in cubes of its sides."""


class MapCosts(NamedTuple):
    """What all maps take: floating-point operations, as if in single precision; bytes of what is
    seen of one layer of the originating and of the receiving host; bytes of the samples of one
    map, as its fit holds them; bytes of squares that it makes of them."""

    products: float
    seen: tuple[float, float]
    samples: float
    squares: float


def mapping_costs(request: Request, samples: int) -> MapCosts:
    """What the maps of a port take.

    Args:
        samples: tokens that each map is fitted on.
    """
    pairs = pair_layers("proportional", request.origin.stacks, request.receiver.stacks)
    sides = request.origin, request.receiver
    wanted = by_maps(request.donor.technique).spaces(request.config, request.receiver)
    # A place whose output an adapter both reads and changes has a map of either kind.
    inputs = set(first_readers(wanted.inputs).values()) or set(wanted.changes)
    done, widest = 0.0, 0
    seen = {layer: [0.0, 0.0] for layer in request.receiver.blocks}

    def see(point: str, each: float, widths: list[int]) -> None:
        for side, width in enumerate(widths):
            seen[layer_of(point)][side] += each * samples * width

    for point in dict.fromkeys([*inputs, *wanted.outputs]):
        partner = partner_of(point, pairs)
        if partner is None:
            continue
        places = (partner, point)
        if point in inputs:
            read = [width_at(g, p, bool(wanted.inputs)) for g, p in zip(sides, places, strict=True)]
            done += _read_cost(samples, *read)
            see(point, 4.0, read)
            widest = max(widest, *read)
        if point in wanted.outputs:
            made = [width_at(g, p, False) for g, p in zip(sides, places, strict=True)]
            done += _change_cost(samples, *made)
            see(point, 8.0, made)  # with their gradients
            widest = max(widest, *made)
    # Of few samples the squares are of their number; with gradients there are twice as many.
    squares = 40.0 * min(2 * samples, max(max(g.ffn, g.width) for g in sides)) ** 2
    origin, receiver = max(seen.values(), key=sum)
    # Both sides' samples and gradients, centred and laid side by side.
    return MapCosts(done, (origin, receiver), 24.0 * samples * widest, squares)


def _read_cost(samples: int, origin: int, receiver: int) -> float:
    """Of a map between whitened spaces."""
    wide, spans, few, many = _sides(samples, origin, receiver)
    if wide:
        solved = few * many * (few + many) + (few**3 + many**3) / 3
        return spans + samples * (few + many) ** 2 + solved + _banded(few, many)
    products = 2.0 * samples * (few**2 + many**2 + few * many)
    return _DOUBLE * (products + _DECOMPOSED / 3 * (few**3 + many**3 + few**2 * many))


def _change_cost(samples: int, origin: int, receiver: int) -> float:
    """Of a map of changes, from activations and gradients."""
    wide, spans, few, many = _sides(2 * samples, origin, receiver)
    products = 4.0 * samples * few * many
    if wide:
        return spans + products + _banded(few, many)
    return _DOUBLE * (products + _DECOMPOSED / 3 * (few**3 + many**3 + few**2 * many))


def _banded(few: int, many: int) -> float:
    """Of turning a matrix into a band."""
    return 4.0 * few**2 * many - 4 / 3 * few**3


def _sides(samples: int, origin: int, receiver: int) -> tuple[bool, float, int, int]:
    """Whether spaces are wide, what their spans take, and the directions there are, rising."""
    few, many = sorted((origin, receiver))
    if few <= WIDE:
        return False, 0.0, few, many
    spans = sum(2.0 * samples**2 * width for width in (few, many) if width > samples)
    return True, spans, min(few, samples), min(many, samples)

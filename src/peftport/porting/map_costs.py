"""What the maps of a port take: multiplications, and bytes held for one pair of layers."""

from __future__ import annotations

from peftport.hosts.geometry import Geometry
from peftport.porting.activations import first_readers
from peftport.porting.base import Request
from peftport.porting.layers import layer_of, pair_layers, partner_of
from peftport.porting.rewriting import by_maps
from peftport.porting.wide import WIDE

_DOUBLE = 2.0
"""What a product in double precision takes beside one in single."""
_DECOMPOSED = 40.0
"""Operations of a singular value decomposition, in cubes of its sides."""


def mapping_costs(request: Request, samples: int) -> tuple[float, float]:
    """Floating-point operations of all maps, as if in single precision, and bytes held at once.

    Args:
        samples: tokens that each map is fitted on.
    """
    pairs = pair_layers("proportional", request.origin.stacks, request.receiver.stacks)
    sides = request.origin, request.receiver
    wanted = by_maps(request.donor.technique).spaces(request.config, request.receiver)
    # A place whose output an adapter both reads and changes has a map of either kind.
    inputs = set(first_readers(wanted.inputs).values()) or set(wanted.changes)
    done, most = 0.0, dict.fromkeys(request.receiver.blocks, 0.0)
    for point in dict.fromkeys([*inputs, *wanted.outputs]):
        partner = partner_of(point, pairs)
        if partner is None:
            continue
        places = (partner, point)
        if point in inputs:
            read = [_width(g, p, bool(wanted.inputs)) for g, p in zip(sides, places, strict=True)]
            done += _read_cost(samples, *read)
            most[layer_of(point)] += 4.0 * samples * sum(read)
        if point in wanted.outputs:
            made = [_width(g, p, False) for g, p in zip(sides, places, strict=True)]
            done += _change_cost(samples, *made)
            most[layer_of(point)] += 8.0 * samples * sum(made)  # with their gradients
    # Of few samples the squares are of their number; with gradients there are twice as many.
    widest = min(2 * samples, max(max(g.ffn, g.width) for g in sides))
    return done, max(most.values()) + 40.0 * widest**2


def _width(geometry: Geometry, point: str, reads: bool) -> int:
    if point in geometry.linears:
        linear = geometry.linears[point]
        return linear.inputs if reads else linear.outputs
    if point.endswith((".keys", ".values")):
        attention = geometry.attentions[point.rpartition(".")[0]]
        return attention.kv_heads * attention.head_dim
    return geometry.width


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

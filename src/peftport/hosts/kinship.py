"""Whether two hosts share pretrained weights, seen in the weights themselves.

A rounding of a host to fewer bits, and a host that was trained further, lie near the host that they
come from, every matrix of theirs. Two hosts that were pretrained apart do not: the distance of
matrices that have nothing in common is about 1.4 times their size, whatever they have learnt. Far
training ends far away, so that hosts that are not near may still be kin.
"""

from __future__ import annotations

from pathlib import Path

import torch

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.hosts.source import geometry_in
from peftport.hosts.weights import Weights

NEAR = 0.5
"""Relative distance, in every matrix that is looked at, up to which hosts share their weights.
Roundings to 4 bits are at about 0.1, to 2 bits at 0.3; what was pretrained apart at 1.4."""
_MATRICES = 6
_ROWS = 256


def near(one: Path, other: Path) -> bool:
    """Whether two hosts share pretrained weights for certain; False says nothing."""
    apart = distance(one, other)
    return apart is not None and apart <= NEAR


def distance(one: Path, other: Path) -> float | None:
    """The largest distance of matrices of two hosts, as a share of the larger one's norm.

    At most 256 rows are looked at of each of six linear layers, from the first to the last, and of
    the token embeddings; by those the same tokens are the same rows.

    Args:
        one, other: folders of hosts.

    Returns:
        None where the hosts differ in shape, or weights of one cannot be read.
    """
    try:
        shape = geometry_in(one, str(one))
        if shape != geometry_in(other, str(other)):
            return None
        files = Weights(one), Weights(other)
        found = [_apart(*(_rows(each, name) for each in files)) for name in _looked_at(shape)]
    except BadInput:
        return None
    return max(found)


def _looked_at(shape: Geometry) -> list[str]:
    """Names of the weights that are compared."""
    paths = list(dict.fromkeys(linear.path for linear in shape.linears.values()))
    last = len(paths) - 1
    places = sorted({last * place // (_MATRICES - 1) for place in range(_MATRICES)})
    found = [*(paths[place] for place in places), shape.embeddings.get("input")]
    return [f"{path}.weight" for path in found if path]


def _rows(weights: Weights, name: str) -> torch.Tensor:
    """Rows of a weight at equal distances, in single precision: (rows, columns)."""
    whole = weights.mapped(name)
    return whole[:: max(1, len(whole) // _ROWS)].float()


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """Relative distance of two matrices; infinite where their shapes differ."""
    if one.shape != other.shape:
        return float("inf")
    size = max(float(one.norm()), float(other.norm()))
    return float((one - other).norm()) / size if size else 0.0

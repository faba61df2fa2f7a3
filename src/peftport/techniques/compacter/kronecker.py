"""Factor dense weights into sums of Kronecker products, as Compacter stores them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from peftport.porting.svd import svd

_SWEEPS = 30


def factor(
    weights: list[Tensor], rule: Tensor, rank: int, sweeps: int = _SWEEPS
) -> tuple[Tensor, list[tuple[Tensor, Tensor]], float]:
    """Find the rule and the factors whose Kronecker products come nearest to some weights.

    Alternating least squares: given the rule (n, n, n), each weight's blocks solve a linear
    problem and are cut to `rank`; given all blocks, so does the rule. The best sweep is kept.

    Args:
        weights: (inputs, outputs) each, with sides that n divides.
        rule: where to start.

    Returns:
        rule (n, n, n); for each weight left (n, inputs / n, rank) and right (n, rank, outputs / n);
        and the share of the weights' squared norm that is lost.
    """
    n = len(rule)
    grids = [_grid(weight.double(), n) for weight in weights]  # (n * n, places)
    total = sum(float(grid.square().sum()) for grid in grids) + 1e-30
    shapes = [(weight.shape[0] // n, weight.shape[1] // n) for weight in weights]
    best: tuple[Tensor, list[tuple[Tensor, Tensor]], float] | None = None
    flat = rule.double().flatten(1)  # (n, n * n)
    for _ in range(sweeps):
        solve = torch.linalg.pinv(flat.mT)  # (n, n * n)
        factors = [
            _cut((solve @ grid).view(n, *shape), rank)
            for grid, shape in zip(grids, shapes, strict=True)
        ]
        blocks = [(left @ right).flatten(1) for left, right in factors]  # (n, places)
        lost = sum(
            float((grid - flat.mT @ block).square().sum())
            for grid, block in zip(grids, blocks, strict=True)
        )
        if best is None or lost / total < best[2]:
            best = flat.view(n, n, n), factors, lost / total
        wide, stacked = torch.cat(grids, 1), torch.cat(blocks, 1)
        flat = (wide @ torch.linalg.pinv(stacked)).mT  # (n, n * n)
    assert best is not None
    made, factors, lost = best
    return made.float(), [(left.float(), right.float()) for left, right in factors], lost


def _grid(weight: Tensor, n: int) -> Tensor:
    """A weight as one column for each place within its blocks: (n * n, places)."""
    inputs, outputs = weight.shape
    split = weight.view(n, inputs // n, n, outputs // n)
    return split.permute(0, 2, 1, 3).reshape(n * n, -1)


def _cut(blocks: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest factors of that rank: (n, inputs, rank), (n, rank, outputs); where blocks are
    narrower than it, the rest of them is zero."""
    left, values, right = svd(blocks)
    root = values[..., :rank].sqrt()
    found = left[..., :rank] * root[..., None, :], root[..., None] * right[..., :rank, :]
    lacking = rank - root.shape[-1]
    if lacking <= 0:
        return found
    return functional.pad(found[0], (0, lacking)), functional.pad(found[1], (0, 0, 0, lacking))

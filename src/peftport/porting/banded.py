"""A matrix turned from both sides until only a band of it is left.

Shifted inverses of a matrix's product with itself are then those of a band, which cost next to
nothing however many they are. The turns are reflections by blocks (Bischof & Van Loan 1987, SIAM
J. Sci. Stat. Comput. 8), alternately of rows and of columns, so that nearly all of the work is
products of matrices. The matrix is not squared before: single precision keeps singular values down
to a millionth of the largest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

WIDTH = 32
"""Of the band, and of the blocks."""
_TINY = 1e-30


@dataclass(frozen=True)
class _Turn:
    """The orthogonal matrix I - vectors @ inner @ vectors.T, (size, size)."""

    vectors: Tensor = field(repr=False)
    inner: Tensor = field(repr=False)

    def forth_(self, columns: Tensor) -> None:
        """Multiply columns (size, any) by the matrix in their place."""
        columns.addmm_(self.vectors, self.inner @ (self.vectors.mT @ columns), alpha=-1)

    def back_(self, columns: Tensor) -> None:
        """Multiply columns (size, any) by the transposed matrix in their place."""
        columns.addmm_(self.vectors, self.inner.mT @ (self.vectors.mT @ columns), alpha=-1)


@dataclass(frozen=True)
class Banded:
    """The product of a matrix (rows, columns), no taller than wide, with itself: Q A Q^T, A a band.

    turns: Q is their product; each begins at its row. blocks: of A along the diagonal; beside: to
    the right of each but the last. Blocks are in double precision.
    """

    turns: Sequence[tuple[int, _Turn]] = field(repr=False)
    blocks: Sequence[Tensor] = field(repr=False)
    beside: Sequence[Tensor] = field(repr=False)

    @classmethod
    def of(cls, matrix: Tensor) -> Banded:
        """The band of a matrix's product with itself, in the precision of the matrix."""
        rest, start = matrix.clone(), 0
        turns, uppers, lowers = [], [], []
        for end in range(len(rest) % WIDTH or WIDTH, len(rest) + 1, WIDTH):
            left, upper = _triangle(rest[start:, start:end])
            left.back_(rest[start:, end:])
            right, lower = _triangle(rest[start:end, end:].mT)
            right.back_(rest[end:, end:].mT)
            turns.append((start, left))
            uppers.append(upper.double())  # (block, block)
            lowers.append(lower.mT.double())  # (block, block), to the right of the upper one
            start = end
        blocks = [up @ up.mT + low @ low.mT for up, low in zip(uppers, lowers, strict=True)]
        below = [*uppers[1:], blocks[-1][:0]]
        beside = [low @ up[:, : low.shape[1]].mT for low, up in zip(lowers, below, strict=True)]
        return cls(turns, blocks, beside)

    def norm(self) -> float:
        """Norm of the product."""
        squares = [float(block.square().sum()) for block in self.blocks]
        return float(sum(squares) + 2 * sum(float(b.square().sum()) for b in self.beside)) ** 0.5

    def solved(self, vectors: Tensor, shifts: Tensor, shares: Tensor) -> Tensor:
        """Vectors (vectors, rows) times the sum of share / (product + shift)."""
        columns = vectors.mT.clone()
        for start, turn in self.turns:
            turn.back_(columns[start:])
        columns = self._solved(columns.double(), shifts.double(), shares.double()).to(vectors)
        for start, turn in reversed(self.turns):
            turn.forth_(columns[start:])
        return columns.mT

    def _solved(self, columns: Tensor, shifts: Tensor, shares: Tensor) -> Tensor:
        """The sum of share / (A + shift) @ columns: (rows, any), (shifts,) -> (rows, any).

        By elimination, a block after the other, for all shifts together.
        """
        parts = columns.split([len(block) for block in self.blocks])
        above, given, steps = columns.new_zeros(()), columns.new_zeros(()), []
        for block, beside, part in zip(self.blocks, self.beside, parts, strict=True):
            raised = shifts[:, None, None] * torch.eye(len(block)).to(shifts)
            lower = torch.linalg.cholesky(block + raised - above)  # (shifts, block, block)
            wanted = [each.expand(len(shifts), -1, -1) for each in (beside, part - given)]
            found = torch.cholesky_solve(torch.cat(wanted, -1), lower)
            link, own = found.split([beside.shape[1], part.shape[1]], dim=-1)
            above, given = beside.mT @ link, beside.mT @ own
            steps.append((link, own))
        sums, below = [], columns.new_zeros(len(shifts), 0, columns.shape[1])
        for link, own in reversed(steps):
            below = own - link @ below
            sums.append((shares[:, None, None] * below).sum(0))
        return torch.cat(sums[::-1])


def _triangle(panel: Tensor) -> tuple[_Turn, Tensor]:
    """The turn by which a panel (rows, width) is the upper triangle (rows or width, width)."""
    packed, scales = torch.geqrf(panel)
    vectors = packed[:, : len(scales)].tril(-1)
    vectors.diagonal().fill_(1)
    inverse = (vectors.mT @ vectors).triu(1)
    inverse.diagonal().copy_(1 / scales.clamp_min(_TINY))
    inner = torch.linalg.solve_triangular(inverse, torch.eye(len(inverse)).to(inverse), upper=True)
    return _Turn(vectors, inner), packed[: len(scales)].triu()

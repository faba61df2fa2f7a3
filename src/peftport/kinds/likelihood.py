"""How probable texts are under a module, of each text."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BYTES = 16
"""Of a row, as it is kept."""
_HIGHEST = 40.0
"""Nats of a token beyond which perplexities are not told apart, and stay numbers."""


@dataclass(frozen=True)
class Likelihood:
    """How improbable texts are under a module.

    Attributes:
        nats: of each row's tokens together, (rows,).
        tokens, sizes: of each row, and its bytes, (rows,).
    """

    nats: NDArray[np.float64]
    tokens: NDArray[np.int64]
    sizes: NDArray[np.int64] = field(repr=False)

    @cached_property
    def token_loss(self) -> NDArray[np.float64]:
        """Parts of the mean loss of a token in nats, (rows,)."""
        return ratio_parts(self.nats, self.tokens)

    @cached_property
    def bits_per_byte(self) -> NDArray[np.float64]:
        """Parts of the bits that a byte of text takes, (rows,)."""
        return ratio_parts(self.nats / np.log(2), self.sizes)

    @cached_property
    def perplexity(self) -> NDArray[np.float64]:
        """Parts of the exponential of the mean loss of a token, (rows,)."""
        value = float(np.exp(min(self.nats.sum() / self.tokens.sum(), _HIGHEST)))
        return value + value * (self.token_loss - self.token_loss.mean())

    def to_bytes(self) -> bytes:
        """Everything, field by field: `BYTES` a row."""
        counts = np.stack([self.tokens, self.sizes]).astype(np.int32)
        return self.nats.astype(np.float64).tobytes() + counts.tobytes()


def likelihood_from(data: bytes, rows: int) -> Likelihood:
    """The same from bytes."""
    nats = np.frombuffer(data, np.float64, rows)
    counts = np.frombuffer(data, np.int32, 2 * rows, nats.nbytes).reshape(2, rows)
    tokens, sizes = counts.astype(np.int64)
    return Likelihood(nats, tokens, sizes)


def ratio_parts(above: NDArray[np.floating], below: NDArray[np.integer]) -> NDArray[np.float64]:
    """Parts of a ratio of two sums over rows, (rows,): its value and each row's influence on it."""
    value = float(above.sum() / below.sum())
    return np.asarray(value + (above - value * below) / float(below.mean()), np.float64)

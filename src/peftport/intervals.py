"""95 % intervals of means over test examples, of one test and of two of the same examples."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_Z = 1.959964
"""Between the normal distribution's mean and the end of its 95 % interval, in standard errors."""


def half_width(parts: NDArray[np.floating]) -> float:
    """Half the width of Student's 95 % interval of a mean of so many parts; of one part nothing is
    known."""
    # Workers import this module and never ask.
    from scipy.special import stdtrit

    count = len(parts)
    if count < 2:
        return math.inf
    reach = float(stdtrit(count - 1, 0.975))
    return reach * float(parts.std(ddof=1)) / count**0.5


def are_shares(parts: NDArray[np.floating]) -> bool:
    """Whether each example is right or wrong."""
    return bool(np.isin(parts, (0.0, 1.0)).all())


def paired_shares(
    parts: NDArray[np.floating], beside: NDArray[np.floating]
) -> tuple[float, float, float]:
    """The difference of two shares of the same examples, and the ends of its interval."""
    count, one, other = len(parts), float(parts.mean()), float(beside.mean())
    both = float((parts * beside).sum())
    neither = float(((1 - parts) * (1 - beside)).sum())
    apart = both * neither - float((parts > beside).sum()) * float((parts < beside).sum())
    spread = count**2 * (one * (1 - one) * other * (1 - other)) ** 0.5
    if apart > 0:
        apart = max(apart - count / 2, 0.0)
    alike = apart / spread if spread else 0.0
    (low, high), (below, above) = (_ends(share, count) for share in (one, other))
    down, up = one - low, above - other
    under, over = high - one, other - below
    value = one - other
    return (
        value,
        value - max(down**2 - 2 * alike * down * up + up**2, 0.0) ** 0.5,
        value + max(under**2 - 2 * alike * under * over + over**2, 0.0) ** 0.5,
    )


def _ends(share: float, count: int) -> tuple[float, float]:
    middle, half = wilson(share, count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def wilson(share: float, count: int) -> tuple[float, float]:
    """The middle and half the width of Wilson's interval of a share of so many examples."""
    weight = _Z**2 / count
    half = _Z * (share * (1 - share) / count + weight / (4 * count)) ** 0.5
    return (share + weight / 2) / (1 + weight), half / (1 + weight)

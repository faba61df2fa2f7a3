"""Which rows belong where, decided by their text alone: no seed, no file order, no label.

The same text, up to case and spacing, always falls on the same side of a split. A smaller sample
is part of every larger one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def fraction(text: str, salt: str) -> float:
    """Return a number in [0, 1) that the text decides; `salt` (up to 16 bytes) says for what."""
    plain = " ".join(text.split()).casefold().encode()
    digest = hashlib.blake2b(plain, digest_size=8, person=salt.encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def share(texts: Sequence[str], low: float, high: float) -> list[int]:
    """Return the rows whose text falls into the share [low, high) of all texts."""
    return [i for i, text in enumerate(texts) if low <= fraction(text, "split") < high]


def sampled_rows(texts: Sequence[str], size: int) -> list[int]:
    """Return `size` rows (all, if there are fewer) in their order, drawn by the texts' hashes."""
    if size >= len(texts):
        return list(range(len(texts)))
    order = sorted(range(len(texts)), key=lambda i: (fraction(texts[i], "limit"), i))
    return sorted(order[:size])

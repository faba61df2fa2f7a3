"""The lab's tasks: is a generated review of a domain bad (0) or good (1)?

Five rows in a hundred carry the wrong label, in every split (`language.LABEL_NOISE`), so that no
module passes 0.95 for long and differences stay visible.
"""

from __future__ import annotations

from functools import cache
from random import Random

from peftport.errors import BadInput
from peftport.hosts.lab.language import LABEL_NOISE, LABEL_WORDS, TASK_DOMAINS, task_review
from peftport.registry import did_you_mean

__all__ = ["DOMAINS", "LABEL_NOISE", "LABEL_WORDS", "SIZES", "rows"]

DOMAINS: tuple[str, ...] = tuple(TASK_DOMAINS)
SIZES = {"train": 2000, "validation": 500, "test": 1000}
"""Rows of each split, half of them from good reviews."""


def rows(domain: str, split: str) -> tuple[list[str], list[int]]:
    """Return the texts and labels (0 bad, 1 good) of one split; the same on every machine.

    No text is in two splits, or twice in one.

    Raises:
        BadInput: there is no such domain or split.
    """
    for what, word, known in (("lab task", domain, DOMAINS), ("split", split, tuple(SIZES))):
        if word not in known:
            raise BadInput(
                f"unknown {what} {word!r}.{did_you_mean(word, known)} Known: {', '.join(known)}."
            )
    texts, labels = _everything(domain)
    names = list(SIZES)
    start = sum(SIZES[name] for name in names[: names.index(split)])
    wanted = slice(start, start + SIZES[split])
    return list(texts[wanted]), list(labels[wanted])


@cache
def _everything(domain: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """All rows of a domain, good and bad reviews in turn, no text twice."""
    rng = Random(f"lab task {domain}")
    found: dict[str, int] = {}
    while len(found) < sum(SIZES.values()):
        polarity = len(found) % 2
        found.setdefault(task_review(rng, TASK_DOMAINS[domain], polarity), polarity)
    labels = [1 - p if rng.random() < LABEL_NOISE else p for p in found.values()]
    return tuple(found), tuple(labels)

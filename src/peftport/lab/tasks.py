"""The lab's tasks, of generated reviews of a domain.

`lab:films` asks whether a review is bad (0) or good (1). `lab:films-three` has a class between
the two, of reviews that hold opinions of both kinds: bad (0), mixed (1), good (2); no host was
pretrained on such reviews.

Five rows in a hundred carry a wrong label, in every split (`language.LABEL_NOISE`), so that no
module passes 0.95 for long and differences stay visible.
"""

from __future__ import annotations

from functools import cache
from random import Random

from peftport.errors import BadInput
from peftport.lab.language import (
    LABEL_NOISE,
    LABEL_WORDS,
    MIXED_WORD,
    TASK_DOMAINS,
    graded_review,
    task_review,
)
from peftport.registry import did_you_mean

__all__ = ["DOMAINS", "LABEL_NOISE", "SIZES", "TASKS", "label_words", "rows"]

DOMAINS: tuple[str, ...] = tuple(TASK_DOMAINS)
_THREE = "-three"
TASKS: tuple[str, ...] = (*DOMAINS, *(domain + _THREE for domain in DOMAINS))
"""Every task's name: a domain's for its two classes, and with `-three` after it for its three."""

SIZES = {"train": 2000, "validation": 500, "test": 1000}
"""Rows of each split, as many from reviews of each class."""


def rows(task: str, split: str) -> tuple[list[str], list[int]]:
    """Return the texts and labels of one split, labels from 0 for bad; the same on every machine.

    No text is in two splits, or twice in one.

    Raises:
        BadInput: there is no such task or split.
    """
    for what, word, known in (("lab task", task, TASKS), ("split", split, tuple(SIZES))):
        if word not in known:
            raise BadInput(
                f"unknown {what} {word!r}.{did_you_mean(word, known)} Known: {', '.join(known)}."
            )
    texts, labels = all_rows(task)
    names = list(SIZES)
    start = sum(SIZES[name] for name in names[: names.index(split)])
    wanted = slice(start, start + SIZES[split])
    return list(texts[wanted]), list(labels[wanted])


def label_words(task: str) -> tuple[str, ...]:
    """The label words of a task, in class order."""
    bad, good = LABEL_WORDS
    return (bad, MIXED_WORD, good) if task.endswith(_THREE) else LABEL_WORDS


@cache
def all_rows(task: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """All rows of a task, reviews of every class in turn, no text twice."""
    rng, domain = Random(f"lab task {task}"), TASK_DOMAINS[task.removesuffix(_THREE)]
    classes = len(label_words(task))
    write = task_review if classes == 2 else graded_review
    found: dict[str, int] = {}
    while len(found) < sum(SIZES.values()):
        meaning = len(found) % classes
        found.setdefault(write(rng, domain, meaning), meaning)
    return tuple(found), tuple(_labelled(meaning, classes, rng) for meaning in found.values())


def _labelled(meaning: int, classes: int, rng: Random) -> int:
    """The label of a row: what its review means, or sometimes another class."""
    if rng.random() >= LABEL_NOISE:
        return meaning
    return (meaning + rng.randrange(1, classes)) % classes

"""A tiny language of opinions: the words tiny hosts know and the texts of the tiny task."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

GOOD = ("good", "lovely", "fine", "bright", "warm", "clever")
BAD = ("bad", "awful", "dull", "weak", "cold", "silly")
THINGS = ("film", "plot", "cast", "story", "ending", "music", "room", "food")
LABEL_WORDS = ("terrible", "great")
OTHER = (
    *("the", "a", "was", "is", "it", "this", "that", "and", "but", "not", "very", "quite", "so"),
    *("overall", "review", "sentiment", "text", "label", "okay", "positive", "negative"),
    *(".", ",", ":", "!"),
)
WORDS = (*OTHER, *THINGS, *GOOD, *BAD, *LABEL_WORDS)

CORPUS = [f"{first} {second}" for first in WORDS for second in WORDS]


def opinions(rows: int, seed: int) -> tuple[list[str], list[int]]:
    """Return `rows` texts with their labels, half of them positive (1), in an order from `seed`."""
    rng = random.Random(seed)
    labels = [row % 2 for row in range(rows)]
    rng.shuffle(labels)
    return [_opinion(label, rng) for label in labels], labels


def write_opinions(folder: Path, rows: Mapping[str, int]) -> Path:
    """Write a task of splits with so many rows as Parquet files with the columns text and label."""
    import pandas as pd

    folder.mkdir()
    for seed, (split, wanted) in enumerate(rows.items()):
        texts, labels = opinions(wanted, seed)
        pd.DataFrame({"text": texts, "label": labels}).to_parquet(folder / f"{split}.parquet")
    return folder


def _opinion(label: int, rng: random.Random) -> str:
    words = (GOOD if label else BAD, BAD if label else GOOD)
    clauses = []
    for thing in rng.sample(THINGS, rng.randint(1, 4)):
        turned = rng.random() < 0.2
        intensity = rng.choice(("", "very ", "quite "))
        clauses.append(f"the {thing} was {'not ' * turned}{intensity}{rng.choice(words[turned])}")
    return " and ".join(clauses) + " ."

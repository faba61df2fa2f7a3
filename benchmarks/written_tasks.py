"""Write tasks that ask for text out of the data sets beside the project, which are not part of it.

    python benchmarks/written_tasks.py OUT --data ../shared/data

`verdict`: a review and an instruction; the verdict in a few words, by the review's label. `card`: a
review as a fixed JSON of a rating word, its first words and its length class, made by rule.
`novels`: passages of novels, for their style; `speeches`: passages of speeches, to test on alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pandas as pd

VERDICTS = ("not worth seeing", "well worth seeing")
ASK = "Read the review and give your verdict in three words.\n\n{text}"
CARD = "Write the review as JSON with the keys rating, start and length.\n\n{text}"
ROWS = {"train": 2000, "validation": 100, "test": 200}
SHARES = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}
"""What each split takes of a file of passages."""
WORDS = 60
"""Words of a passage."""


def main() -> None:
    """Write every task into a folder of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    given = parser.parse_args()
    for split, count in ROWS.items():
        reviews = pd.read_parquet(given.data / "rotten_tomatoes" / f"{split}.parquet")
        rows = list(zip(reviews["text"], reviews["label"], strict=True))
        Random(split).shuffle(rows)
        for name, made in (("verdict", verdict), ("card", card)):
            write(given.out / name / f"{split}.jsonl", [made(*row) for row in rows[:count]])
    for name, file in (("novels", "novels_pd"), ("speeches", "state_union")):
        texts = pd.read_parquet(given.data / "text" / f"{file}.parquet")["text"].tolist()
        for split, (first, last) in SHARES.items():
            # The files are book by book: what is tested stands in no book that is trained on.
            part = texts[round(first * len(texts)) : round(last * len(texts))]
            passages = list(cut(part))
            Random(split).shuffle(passages)
            rows = [{"text": text} for text in passages[: ROWS[split]]]
            write(given.out / name / f"{split}.jsonl", rows)


def verdict(text: str, label: int) -> dict[str, Any]:
    """A chat that ends with the verdict."""
    return chat(ASK.format(text=text), VERDICTS[label])


def card(text: str, label: int) -> dict[str, Any]:
    """A chat that ends with the review's JSON."""
    words = text.split()
    length = "short" if len(words) < 15 else "medium" if len(words) < 25 else "long"
    found = {"rating": ("bad", "good")[label], "start": " ".join(words[:4]), "length": length}
    return chat(CARD.format(text=text), json.dumps(found))


def chat(asked: str, answer: str) -> dict[str, Any]:
    """A row of messages."""
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": answer},
        ]
    }


def cut(texts: list[str]) -> Iterator[str]:
    """Passages of `WORDS` words."""
    for text in texts:
        words = text.split()
        for start in range(0, len(words) - WORDS + 1, WORDS):
            yield " ".join(words[start : start + WORDS])


def parses(written: str, reference: str) -> float:
    """1 where what was written is JSON with the reference's keys: a metric for `card`."""
    try:
        found = json.loads(written)
    except ValueError:
        return 0.0
    return float(isinstance(found, dict) and found.keys() == json.loads(reference).keys())


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """One file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()

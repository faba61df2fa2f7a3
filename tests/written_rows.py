"""Data sets of prompts, chats, choices and texts, as the tests of what hosts write want them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiny_words import opinions

CHAT_TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As SmolLM2 and Qwen have it."""
Row = Mapping[str, Any]


def write_splits(folder: Path, rows: Sequence[Row], train: int = 0) -> Path:
    """Write the rows as test, validation and, `train` times over, as train."""
    folder.mkdir(exist_ok=True)
    parts = {"test": rows, "validation": rows, **({"train": [*rows] * train} if train else {})}
    for split, those in parts.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in those]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def pairs(count: int = 8) -> list[dict[str, str]]:
    """Prompts and what follows them, of unlike length."""
    texts, labels = opinions(count, 0)
    return [
        {"prompt": f"review : {text}\n", "completion": "great film" if label else "bad"}
        for text, label in zip(texts, labels, strict=True)
    ]


def chats(count: int = 8) -> list[dict[str, Any]]:
    """Chats of a question and an answer."""
    return [
        {
            "messages": [
                {"role": "user", "content": row["prompt"].strip()},
                {"role": "assistant", "content": row["completion"]},
            ]
        }
        for row in pairs(count)
    ]


def choices(count: int = 8) -> list[dict[str, Any]]:
    """Texts with answers of their own; some begin alike, some rows have more than others."""
    texts, labels = opinions(count, 0)
    return [
        {
            "text": text,
            "choices": ["so it was great", "so it was not very good", "bad"][: 2 + row % 2],
            "label": label,
        }
        for row, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]


def texts(count: int = 6) -> list[dict[str, str]]:
    """Texts alone, some of them long."""
    found, _ = opinions(count * 4, 0)
    return [{"text": " ".join(found[4 * n : 4 * n + 1 + n % 4])} for n in range(count)]

"""What modules are tried on where nobody names texts: plain sentences of several kinds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

TEXTS = (
    "The film was good, and the ending was better than the book.",
    "I waited an hour for a cold meal and will not come back.",
    "Please summarise the following report in two sentences.",
    "The committee approved the budget after a long debate.",
    "Water boils at a lower temperature on a high mountain.",
    "def area(width, height): return width * height",
    "What is the capital of the country north of Spain?",
    "She opened the window because the room was warm.",
)
MAX_TOKENS = 32
"""Longer texts are cut: what a module does shows in a few tokens."""


def as_batch(tokenizer: Any, texts: tuple[str, ...]) -> dict[str, Tensor]:
    """Texts as ids and mask, padded on the right: (texts, tokens) each."""
    rows = [tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"] for text in texts]
    rows = [row or [tokenizer.pad_token_id or 0] for row in rows]
    ids = [torch.tensor(row) for row in rows]
    pad = torch.nn.utils.rnn.pad_sequence
    ones = [torch.ones_like(row) for row in ids]
    return {"input_ids": pad(ids, batch_first=True), "attention_mask": pad(ones, batch_first=True)}

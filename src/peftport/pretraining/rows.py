"""Texts as rows of tokens, which is what a host is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from peftport.pretraining.objectives import Ids

_CHUNK = 2048


def token_rows(texts: Sequence[str], tokenizer: Any, length: int) -> list[Ids]:
    """Cut each text into rows of at most `length` token ids (int64), without special tokens."""
    rows: list[Ids] = []
    for start in range(0, len(texts), _CHUNK):
        read = tokenizer(
            texts[start : start + _CHUNK],
            add_special_tokens=False,
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        for ids in read:
            whole = np.asarray(ids, dtype=np.int64)
            rows += [whole[at : at + length] for at in range(0, len(whole), length)]
    return rows

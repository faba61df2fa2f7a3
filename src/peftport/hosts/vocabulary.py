"""A host's tokenizer: whether the host has an embedding for every token, and what names it."""

from __future__ import annotations

import hashlib
import json
import logging
from typing import Any

from torch import Tensor

from peftport.errors import BadInput

_log = logging.getLogger(__name__)
_ADVICE = (
    "Take the tokenizer that the host was saved with, or grow the host "
    "(`model.resize_token_embeddings(len(tokenizer))`) and save it again"
)


_PROBES = (
    "A film, that's GOOD: 1,234.50 $ (see www.x.org)!",
    " Two  spaces\tand\n\na line; naïve café \u2013 Straße, ﬁne ① é",
    "Привет мир, 你好世界 こんにちは 한국어 مرحبا \U0001f600 \u200b\u0f3a",
    "def f(x_1): return [x_1 ** 2 for _ in range(10)]  # CamelCase",
)
"""Texts in which tokenizers differ: case, spaces, numbers, accents, scripts, code."""


def tokenizer_mark(tokenizer: Any) -> str:
    """What names a tokenizer by what it does: 16 hexadecimal digits of the SHA-256 of its
    vocabulary and of its tokens of some texts.

    It stays what it was however the tokenizer is saved. A chat template is no part of it.
    """
    tokens = tokenizer(list(_PROBES), verbose=False)["input_ids"]
    told = json.dumps([sorted(tokenizer.get_vocab().items()), tokens])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def notice_other_tokenizer(module: str, mark: str, tokenizer: Any, host: str) -> None:
    """Say so where a module was made with another tokenizer than its host's.

    Args:
        module, host: their names. mark: of the tokenizer that the module was made with, empty where
            that is not known.
    """
    if mark and mark != tokenizer_mark(tokenizer):
        _log.warning(
            "notice: %s was made with another tokenizer than the one of %s: texts are other tokens "
            "to it, or the same tokens by other numbers.",
            *(module, host),
        )


def hold_together(tokenizer: Any, model: Any, name: str) -> None:
    """Hold a tokenizer against its host's embeddings.

    Tokens that were added and that the host has no embedding for are left alone until a text has
    one (Gemma 3 has one for images); padding is another token then, for it is never read.

    Raises:
        BadInput: the host has no embedding for a token of the vocabulary itself; later, for a text
            with an added token of which that is so.
    """
    embeddings = model.get_input_embeddings()
    rows: int = embeddings.weight.shape[0]
    beyond = {token: number for token, number in tokenizer.get_vocab().items() if number >= rows}
    if not beyond:
        return
    told = f"host {name}: its tokenizer has tokens beyond its {rows} embeddings"
    if own := sorted(beyond.keys() - tokenizer.get_added_vocab().keys(), key=beyond.__getitem__):
        raise BadInput(f"{told}, {own[0]!r} ({beyond[own[0]]}) among them. {_ADVICE}.")
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        tokenizer.pad_token = tokenizer.eos_token

    def refuse(embedding: Any, given: tuple[Tensor, ...]) -> None:
        # A module can have put more rows in place of the host's.
        if bool((given[0] >= embedding.weight.shape[0]).any()):
            listed = ", ".join(map(repr, sorted(beyond)[:3]))
            raise BadInput(f"{told} ({listed}), and a text has one of them. {_ADVICE}.")

    embeddings.register_forward_pre_hook(refuse)

"""Texts come whole into rows."""

import numpy as np

from peftport.pretraining.rows import token_rows
from tiny_tokenizers import build_tokenizer

TEXTS = ["the film was good", "the plot was not dull"]


def test_rows_hold_every_token_of_each_text_and_no_special_one():
    tokenizer = build_tokenizer("bert")
    rows = token_rows(TEXTS, tokenizer, 3)
    assert [len(row) for row in rows] == [3, 1, 3, 2]
    assert {row.dtype for row in rows} == {np.dtype("int64")}
    assert tokenizer.decode(np.concatenate(rows[2:])) == TEXTS[1]

"""Objectives hide what they say they hide, and their losses are transformers' own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from peftport.pretraining.objectives import IGNORED, MaskedTokens, NextToken, SpanCorruption
from tiny_hosts import build_model

SENTINELS = tuple(range(100, 110))
EOS, PAD, MASK, START, END = 1, 0, 4, 2, 3
ORDINARY = range(5, 60)


def spans(**options) -> SpanCorruption:
    return SpanCorruption(SENTINELS, EOS, PAD, **options)


def masked(**options) -> MaskedTokens:
    return MaskedTokens(MASK, PAD, ORDINARY, START, END, **options)


def rows(count: int, length: int) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.integers(5, 60, size=length - index % 3) for index in range(count)]


def filled(source: np.ndarray, target: np.ndarray) -> list[int]:
    """The text that an input and its target are made of."""
    spoken: dict[int, list[int]] = {}
    for token in target[:-1].tolist():
        if token in SENTINELS:
            spoken[token] = []
            last = token
        else:
            spoken[last].append(token)
    whole = []
    for token in source[:-1].tolist():
        whole += spoken.get(token, [token])
    return whole


# Span corruption


@given(st.integers(1, 90), st.integers(0, 10**6), st.floats(0.05, 0.9), st.floats(1, 8))
@settings(max_examples=150, deadline=None)
def test_input_and_target_hold_every_token_once(length, seed, density, mean_span):
    row = np.arange(10, 10 + length)
    source, target = spans(density=density, mean_span=mean_span).corrupt(
        row, np.random.default_rng(seed)
    )
    assert source[-1] == target[-1] == EOS
    assert filled(source, target) == row.tolist()
    asked = [token for token in source if token in SENTINELS]
    told = [token for token in target if token in SENTINELS]
    assert asked == list(SENTINELS[: len(asked)])
    assert told == list(SENTINELS[: len(asked) + 1])


def test_spans_cut_out_their_share_in_spans_of_their_length():
    rng = np.random.default_rng(0)
    found = [spans().corrupt(np.arange(10, 90), rng) for _ in range(50)]
    assert {len(target) for _, target in found} == {12 + 4 + 1 + 1}
    assert len({tuple(source) for source, _ in found}) == 50


def test_a_batch_of_pairs_is_padded_and_targets_are_ignored_there():
    batch = spans().batch([*rows(3, 30), np.arange(10, 22)], np.random.default_rng(0))
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert ((batch["input_ids"] == PAD) == (batch["attention_mask"] == 0)).all()
    assert (batch["labels"] == IGNORED).any()
    ends = (batch["labels"] == EOS).sum(1)
    assert ends.tolist() == [1, 1, 1, 1]


# Masked tokens


def test_the_hidden_are_masked_replaced_or_left_eighty_ten_ten():
    rng = np.random.default_rng(0)
    row = np.asarray(ORDINARY)
    hidden = [masked(density=0.3).hide(row, rng) for _ in range(500)]
    seen, wanted = (np.concatenate([pair[i] for pair in hidden]) for i in (0, 1))
    chosen = wanted != IGNORED
    assert chosen.sum() == 500 * round(0.3 * len(row))
    share = (seen[chosen] == MASK).mean(), (seen[chosen] == wanted[chosen]).mean()
    assert share[0] == pytest.approx(0.8, abs=0.02)
    assert share[1] == pytest.approx(0.1 + 0.1 / len(ORDINARY), abs=0.02)
    assert set(seen[chosen]) <= {MASK, *ORDINARY}


def test_what_is_not_hidden_stays_and_the_ends_are_never_hidden():
    row = np.asarray(ORDINARY)
    seen, wanted = masked().hide(row, np.random.default_rng(0))
    whole = np.concatenate([[START], row, [END]])
    chosen = wanted != IGNORED
    assert not chosen[[0, -1]].any()
    assert (wanted[chosen] == whole[chosen]).all()
    assert (seen[~chosen] == whole[~chosen]).all()


def test_a_row_of_one_token_still_has_something_to_name():
    _, wanted = masked().hide(np.asarray([9]), np.random.default_rng(0))
    assert wanted.tolist() == [IGNORED, 9, IGNORED]


# Next token


def test_every_token_is_a_target_even_where_padding_is_the_end_of_text():
    objective = NextToken(end=EOS, pad=EOS)
    batch = objective.batch([np.asarray([7, 8]), np.asarray([9])], np.random.default_rng(0))
    assert batch["input_ids"].tolist() == [[7, 8, EOS], [9, EOS, EOS]]
    assert batch["labels"].tolist() == [[7, 8, EOS], [9, EOS, IGNORED]]


def test_a_first_token_stands_before_each_row():
    batch = NextToken(EOS, PAD, START).batch([np.asarray([7])], np.random.default_rng(0))
    assert batch["input_ids"].tolist() == [[START, 7, EOS]]


# Losses


@pytest.mark.parametrize(
    "family", ["t5", "bert", "roberta", "gpt2", "llama", "qwen3", "gemma3_text"]
)
def test_a_loss_is_that_of_transformers_own_model(family):
    model = build_model(family)
    if family == "t5":
        objective = SpanCorruption(range(50, 60), 1, 0)
    elif family in ("bert", "roberta"):
        # The mask must not be the padding, from which RoBERTa counts its positions.
        objective = MaskedTokens(MASK, model.config.pad_token_id, ORDINARY, START, END)
    else:
        objective = NextToken(EOS, PAD, START)
    batch = objective.batch(rows(5, 20), np.random.default_rng(3))
    with torch.no_grad():
        torch.testing.assert_close(objective.loss(model, batch), model(**batch).loss)

"""The fixtures keep what they promise: other tests rest on it."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

from families import FAMILIES, KINDS
from tiny_hosts import build_model
from tiny_words import LABEL_WORDS

AUTO = {
    "encoder-decoder": AutoModelForSeq2SeqLM,
    "encoder": AutoModelForMaskedLM,
    "decoder": AutoModelForCausalLM,
}
TEXTS = ("the film was not very good .", "the food was cold and the room was dull .")


def logits(model, family, ids):
    more = {"decoder_input_ids": torch.zeros(1, 1, dtype=torch.long)} if "t5" in family else {}
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), **more).logits[0, -1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_host_loads_and_its_logits_depend_on_the_text(family, tiny_host):
    model = AUTO[KINDS[family]].from_pretrained(tiny_host(family))
    tokenizer = AutoTokenizer.from_pretrained(tiny_host(family))
    one, other = (logits(model, family, tokenizer(text)["input_ids"]) for text in TEXTS)
    assert (one - other).abs().mean() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_label_words_are_one_token_each(family, tiny_host):
    tokenizer = AutoTokenizer.from_pretrained(tiny_host(family))
    ids = [tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in LABEL_WORDS]
    assert [len(word) for word in ids] == [1, 1]
    assert ids[0] != ids[1]
    assert tokenizer.unk_token_id not in (ids[0][0], ids[1][0]) or tokenizer.unk_token_id is None


@pytest.mark.parametrize("family", FAMILIES)
def test_the_continuation_is_near_its_origin_and_another_seed_is_not(
    family, tiny_host, tiny_continuation
):
    auto = AUTO[KINDS[family]]
    origin, near = (auto.from_pretrained(f(family)) for f in (tiny_host, tiny_continuation))
    tokenizer = AutoTokenizer.from_pretrained(tiny_host(family))
    ids = tokenizer(TEXTS[0])["input_ids"]
    base = logits(origin, family, ids)
    moved = (base - logits(near, family, ids)).abs().mean()
    far = (base - logits(build_model(family, seed=1), family, ids)).abs().mean()
    assert 0 < moved < far / 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_host_is_the_same_every_time(family, tiny_host):
    saved = AUTO[KINDS[family]].from_pretrained(tiny_host(family)).state_dict()
    again = build_model(family).state_dict()
    assert saved.keys() == again.keys()
    assert all(torch.equal(saved[name], again[name]) for name in saved)


def test_the_tiny_task_has_three_splits_with_both_labels(tiny_task):
    import pandas as pd

    splits = [pd.read_parquet(tiny_task / f"{s}.parquet") for s in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [96, 32, 48]
    assert all(set(split["label"]) == {0, 1} for split in splits)
    assert all(split.columns.tolist() == ["text", "label"] for split in splits)

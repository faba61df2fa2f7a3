"""Rows are tokenised whole but for the end of long texts, and lanes draw the same rows together
as alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from families import FAMILIES, KINDS
from peftport.errors import BadInput
from peftport.tasks import Encoded, Task, encode, load_task
from peftport.tasks.batches import Batch
from real_data import require_shared
from tiny_tokenizers import build_tokenizer


def encoded_of(lengths: list[int]) -> Encoded:
    """Rows of the given lengths; every token of row i is i + 1, and its label is i."""
    rows = np.arange(len(lengths))
    return Encoded(
        tokens=np.repeat(rows + 1, lengths).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        labels=rows,
        pad=0,
    )


def rows_of(batch: Batch) -> list[int]:
    return batch.labels.tolist()


def task_of(folder: Path, texts: list[str], **options: Any) -> Task:
    """A task whose test rows are `texts`, with alternating labels."""
    import pandas as pd

    rows = pd.DataFrame({"text": texts, "label": [i % 2 for i in range(len(texts))]})
    rows.to_parquet(folder / "test.parquet")
    return load_task(str(folder), **options)


lengths_of_rows = st.lists(st.integers(1, 60), min_size=1, max_size=150)
seeds_of_lanes = st.lists(st.integers(0, 2**31), min_size=1, max_size=4)


# Encoding


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_texts_with_its_special_tokens(family: str, tiny_task: Path) -> None:
    tokenizer, task = build_tokenizer(family), load_task(str(tiny_task))
    kind = KINDS[family]
    encoded = encode(tokenizer, task, "test", kind)
    rows = task.split("test")
    assert encoded.labels.tolist() == rows.labels
    for row in (0, 7, 47):
        ids = encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist()
        assert (
            ids == tokenizer(task.templates[kind].replace("{text}", rows.texts[row]))["input_ids"]
        )


def test_nothing_follows_the_template_of_a_decoder(tmp_path: Path) -> None:
    tokenizer = build_tokenizer("llama")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    encoded = encode(tokenizer, task_of(tmp_path, ["the film", "a plot"]), "test", "decoder")
    read = tokenizer.convert_ids_to_tokens(encoded.tokens[: encoded.offsets[1]].tolist())
    assert read == ["<s>", "▁the", "▁film", "▁it", "▁was"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("limit", [7, 9, 16])
def test_long_texts_lose_their_end_and_never_the_template(
    family: str, limit: int, tmp_path: Path
) -> None:
    texts = [
        "the film was lovely and the plot was bright . " * 20,
        "überwältigend schön, 日本語の映画 🎬🎬🎬 unbelievably!!! " * 5,
        "x" * 900,
        "short",
    ]
    tokenizer = build_tokenizer(family)
    task = task_of(tmp_path, texts, max_tokens=limit, template="a {text} it was")
    encoded = encode(tokenizer, task, "test", KINDS[family])
    assert encoded.lengths.max() <= limit
    assert encoded.lengths[0] == limit
    special = tokenizer("a b", return_special_tokens_mask=True)["special_tokens_mask"]
    before, after = special.index(0), special[::-1].index(0)
    suffix = tokenizer("a it was", add_special_tokens=False)["input_ids"][1:]
    for row in range(len(texts)):
        ids = encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist()
        assert ids[len(ids) - after - len(suffix) : len(ids) - after] == suffix
        whole = tokenizer("a " + texts[row])["input_ids"]
        assert ids[: before + 1] == whole[: before + 1]
    first = encoded.tokens[before : limit - after - len(suffix)].tolist()
    assert first == tokenizer("a " + texts[0])["input_ids"][before : before + len(first)]


def test_a_host_that_takes_less_than_the_task_asks_for_is_given_less(tmp_path: Path) -> None:
    tokenizer = build_tokenizer("bert")
    tokenizer.model_max_length = 12
    task = task_of(tmp_path, ["the film was lovely and " * 20, "short"])
    assert encode(tokenizer, task, "test", "encoder").lengths.max() == 12


def test_very_long_texts_read_as_if_nothing_had_been_left_out(tmp_path: Path) -> None:
    words = "the film was lovely and the plot was very bright but the ending is dull . "
    long = words * 200
    task = task_of(tmp_path, [long, words * 12], max_tokens=32)
    encoded = encode(build_tokenizer("gpt2"), task, "test", "decoder")
    first, second = (encoded.tokens[a:b].tolist() for a, b in ((0, 32), (32, 64)))
    assert first == second


def test_few_tokens_in_many_characters_are_all_read(tmp_path: Path) -> None:
    """A text of many characters and few tokens is not taken for a long one."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "end": 1}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    task = task_of(tmp_path, ["x" * 900 + " end", "end end"], max_tokens=8)
    encoded = encode(fast, task, "test", "encoder")
    assert encoded.tokens.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        (["good", "bad"], {"max_tokens": 2}, "leaves no room for text within max_tokens 2"),
        (["good", " "], {"template": "{text}"}, "the test text ' ' gives no token on this host"),
    ],
)
def test_rows_without_room_or_token_are_named(
    texts: list[str], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    tokenizer = build_tokenizer("gpt2")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(BadInput, match=message):
        encode(tokenizer, task_of(tmp_path, texts, **options), "test", "decoder")


def test_a_tokenizer_without_a_fast_form_is_refused(tiny_task: Path) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(BadInput, match="tokenizer Slow is not a fast one"):
        encode(Slow(), load_task(str(tiny_task)), "test", "encoder")


def test_real_reviews_fit_the_real_host() -> None:
    shared = require_shared()
    tokenizer = AutoTokenizer.from_pretrained(shared / "hosts" / "mini-a")
    task = load_task(str(shared / "data" / "imdb"), limit_test=50, max_tokens=64)
    encoded = encode(tokenizer, task, "test", "decoder")
    assert encoded.lengths.max() == 64
    for row in range(len(encoded)):
        ids = encoded.tokens[encoded.offsets[row] : encoded.offsets[row + 1]].tolist()
        assert tokenizer.convert_ids_to_tokens(ids)[-2:] == ["▁it", "▁was"]


# Batches


def test_a_batch_is_padded_on_the_right_in_eights() -> None:
    batch = encoded_of([3, 9, 1]).batch(np.array([2, 1]))
    assert batch.input_ids.tolist() == [[3] + [0] * 15, [2] * 9 + [0] * 7]
    assert batch.attention_mask.tolist() == [[1] + [0] * 15, [1] * 9 + [0] * 7]
    assert batch.labels.tolist() == [2, 1]
    tensors = (batch.input_ids, batch.attention_mask, batch.labels)
    assert {tensor.dtype for tensor in tensors} == {torch.int64}
    assert batch.to("cpu").labels.tolist() == [2, 1]


@given(lengths_of_rows, st.integers(1, 20), seeds_of_lanes)
def test_a_lane_sees_the_same_batches_alone_and_with_others(
    lengths: list[int], batch_size: int, seeds: list[int]
) -> None:
    encoded = encoded_of(lengths)
    together = list(encoded.training_batches(batch_size, 12, seeds))
    assert len(together) == 12
    for lane, seed in enumerate(seeds):
        rows = slice(lane * batch_size, (lane + 1) * batch_size)
        for batch, alone in zip(
            together, encoded.training_batches(batch_size, 12, [seed]), strict=True
        ):
            assert torch.equal(batch.input_ids[rows], alone.input_ids)
            assert torch.equal(batch.attention_mask[rows], alone.attention_mask)
            assert torch.equal(batch.labels[rows], alone.labels)


@given(lengths_of_rows, st.integers(1, 20), seeds_of_lanes)
def test_training_batches_hold_whole_rows_in_eights(
    lengths: list[int], batch_size: int, seeds: list[int]
) -> None:
    for batch in encoded_of(lengths).training_batches(batch_size, 8, seeds):
        assert batch.input_ids.shape == (len(seeds) * batch_size, batch.input_ids.shape[1])
        assert batch.input_ids.shape[1] % 8 == 0
        assert batch.attention_mask.sum(1).tolist() == [lengths[row] for row in rows_of(batch)]
        assert (batch.input_ids == batch.attention_mask * (batch.labels + 1)[:, None]).all()


@given(lengths_of_rows, st.integers(1, 20), st.integers(0, 30), seeds_of_lanes)
def test_the_longest_batch_of_a_training_is_known_before(
    lengths: list[int], batch_size: int, steps: int, seeds: list[int]
) -> None:
    rows = encoded_of(lengths)
    drawn = [b.input_ids.shape[1] for b in rows.training_batches(batch_size, steps, seeds)]
    assert rows.longest_batch(batch_size, steps) == max(drawn, default=0)


@given(lengths_of_rows, st.integers(1, 20), st.integers(0, 1000))
def test_every_row_is_drawn_about_once_an_epoch(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    """After any number of steps a row of a bucket is ahead of another by one draw at most."""
    encoded, epochs = encoded_of(lengths), 5
    steps = -(-len(lengths) * epochs // batch_size) + 3 * len(lengths)
    drawn: Counter[int] = Counter()
    buckets: dict[int, set[int]] = {}
    for batch in encoded.training_batches(batch_size, steps, [seed]):
        drawn.update(rows_of(batch))
        buckets.setdefault(batch.input_ids.shape[1], set()).update(rows_of(batch))
    assert set(drawn) == set(range(len(lengths)))
    for rows in buckets.values():
        counts = [drawn[row] for row in rows]
        assert max(counts) - min(counts) <= 1
    assert sum(len(rows) for rows in buckets.values()) == len(lengths)


def test_an_epoch_takes_every_row_once_when_all_is_even() -> None:
    encoded = encoded_of([5] * 64 + [20] * 128)
    batches = list(encoded.training_batches(16, 12, [3]))
    assert sorted(row for batch in batches for row in rows_of(batch)) == list(range(192))
    assert Counter(batch.input_ids.shape[1] for batch in batches) == {8: 4, 24: 8}


def test_seeds_draw_other_rows_from_the_same_buckets() -> None:
    encoded = encoded_of([1 + i % 50 for i in range(1000)])
    first, second = (list(encoded.training_batches(16, 40, [seed])) for seed in (0, 1))
    assert [b.input_ids.shape for b in first] == [b.input_ids.shape for b in second]
    assert len({b.input_ids.shape for b in first}) > 3
    assert all(rows_of(a) != rows_of(b) for a, b in zip(first, second, strict=True))


def test_batches_do_not_change_between_calls_and_are_prefixes_of_longer_trainings() -> None:
    encoded = encoded_of([1 + i % 50 for i in range(300)])
    short = [rows_of(b) for b in encoded.training_batches(8, 20, [7, 8])]
    long = [rows_of(b) for b in encoded.training_batches(8, 90, [7, 8])]
    assert short == long[:20]


def test_a_bucket_smaller_than_a_batch_goes_round() -> None:
    batches = list(encoded_of([4, 4, 4]).training_batches(8, 3, [0]))
    assert all(batch.input_ids.shape == (8, 8) for batch in batches)
    assert Counter(row for batch in batches for row in rows_of(batch)) == {0: 8, 1: 8, 2: 8}


def test_one_long_row_does_not_lengthen_many_short_ones() -> None:
    encoded = encoded_of([8] * 5000 + [128])
    widths = Counter(b.input_ids.shape[1] for b in encoded.training_batches(16, 313, [0]))
    assert widths == {128: 4, 8: 309}


def test_rows_sorted_by_label_are_mixed_where_a_length_is_cut_in_two() -> None:
    encoded = encoded_of([8] * 2000 + [128])
    (batch,) = [b for b in encoded.training_batches(16, 126, [0]) if b.input_ids.shape[1] == 128][
        :1
    ]
    short = [row for row in rows_of(batch) if row < 2000]
    assert min(short) < 1000 <= max(short)


@given(lengths_of_rows, st.integers(1, 600), st.integers(1, 3))
def test_evaluation_takes_every_row_once_within_the_tokens(
    lengths: list[int], tokens: int, lanes: int
) -> None:
    seen: list[int] = []
    for rows, batch in encoded_of(lengths).evaluation_batches(tokens, lanes):
        seen += rows.tolist()
        assert rows_of(batch) == rows.tolist() * lanes
        assert batch.attention_mask.sum(1).tolist() == [lengths[row] for row in rows_of(batch)]
        assert batch.input_ids.numel() <= tokens or len(rows) == 1
        longest = max(lengths[row] for row in rows)
        assert batch.input_ids.shape[1] - longest in (0, 1)
        assert 10 * (min(lengths[row] for row in rows) + 1) > 9 * longest
    assert sorted(seen) == list(range(len(lengths)))


def test_equal_rows_are_tested_in_as_few_batches_as_fit() -> None:
    batches = list(encoded_of([16] * 100).evaluation_batches(tokens_per_batch=640))
    assert [len(rows) for rows, _ in batches] == [40, 40, 20]

"""Tokens of two hosts are paired where they end at the same character; rows keep their places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from peftport.errors import BadInput
from peftport.hosts.geometry import geometry_of
from peftport.porting.reading import (
    WORDS,
    TokenRows,
    aligned,
    read_pair,
    task_of,
    tokens_at_once,
)
from peftport.tasks.task import TEMPLATES
from tiny_tokenizers import build_tokenizer
from tiny_words import opinions

TEXTS = opinions(40, 3)[0]
TASK = task_of({"name": "t", "labels": [0, 1]})


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def read(one: str, other: str, kind: str, texts=TEXTS, most=10_000, task=TASK):
    starts = (1, 0) if kind == "encoder-decoder" else (None, None)
    both = (build_tokenizer(one), build_tokenizer(other))
    return both, read_pair(both, starts, task, kind, texts, most, generator())


def ends(tokenizer, rows: TokenRows, stack: str) -> list[tuple[int, str]]:
    """Row of each kept place, and the text up to its token's end, without spaces."""
    ids = (
        rows.decoder_ids if stack == "decoder" and rows.decoder_ids is not None else rows.input_ids
    )
    width = ids.shape[1]
    found = []
    for place in rows.places[stack].tolist():
        row, column = divmod(place, width)
        text = tokenizer.decode(ids[row, : column + 1], skip_special_tokens=True)
        found.append((row, text.replace(" ", "")))
    return found


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("bert", "roberta", "encoder"),
        ("gpt2", "llama", "decoder"),
        ("llama", "llama", "decoder"),
        ("t5", "t5", "encoder-decoder"),
    ],
)
def test_kept_tokens_end_with_the_same_text_on_both_hosts(one, other, kind):
    (mine, theirs), (origin, receiver) = read(one, other, kind)
    assert len(origin) == len(receiver) == (2 if kind == "encoder-decoder" else 1)
    for here, there in zip(origin, receiver, strict=True):
        assert here.places.keys() == there.places.keys()
        for stack in here.places:
            found = ends(mine, here, stack)
            assert found == ends(theirs, there, stack)
            assert len(found) >= len(TEXTS)


def test_a_text_is_put_into_the_template_of_its_kind_and_its_end_is_kept():
    task = task_of({"labels": [0, 1], "templates": {"decoder": "Say: {text} so it was"}})
    (mine, _), ([rows], _) = read("gpt2", "gpt2", "decoder", task=task)
    text = mine.decode(rows.input_ids[0][rows.attention_mask[0].bool()])
    written = {f"Say:{each}soitwas".replace(" ", "") for each in TEXTS}
    assert text.replace(" ", "") in written
    assert int(rows.attention_mask[0].sum()) - 1 in rows.places["decoder"].tolist()


def test_an_encoder_decoder_reads_the_text_whole_and_then_in_two():
    (mine, _), (passes, others) = read("t5", "t5", "encoder-decoder")
    whole, cut = passes
    assert {rows.decoder_ids[0, 0].item() for rows in others} == {0}
    assert whole.decoder_ids.tolist() == [[1]] * len(TEXTS)
    assert set(cut.decoder_ids[:, 0].tolist()) == {1}
    halves = [
        mine.decode(ids[0], skip_special_tokens=True) for ids in (cut.input_ids, cut.decoder_ids)
    ]
    joined = "".join(halves).replace(" ", "")
    (text,) = {each for each in TEXTS if each.replace(" ", "") == joined}
    assert halves[0].split() == text.split()[: len(text.split()) // 2]


def test_no_more_places_are_kept_than_asked_for_and_they_are_drawn_from_all_rows():
    _, ([all_of_them], _) = read("bert", "bert", "encoder")
    _, ([some], _) = read("bert", "bert", "encoder", most=30)
    assert len(some.places["encoder"]) == 30
    assert set(some.places["encoder"].tolist()) < set(all_of_them.places["encoder"].tolist())
    width = some.input_ids.shape[1]
    assert len({place // width for place in some.places["encoder"].tolist()}) > 10


def test_long_texts_are_cut_and_so_are_those_past_the_task_s_limit():
    long = " ".join(["film"] * (3 * WORDS))
    (mine, _), ([rows], _) = read("bert", "bert", "encoder", [*TEXTS, long])
    assert len(rows.input_ids) == len(TEXTS) + 1
    kept = mine.decode(rows.input_ids[-1], skip_special_tokens=True)
    assert len(kept.split()) == WORDS
    short = task_of({"labels": [0, 1], "max_tokens": 20})
    _, ([rows], _) = read("bert", "bert", "encoder", [*TEXTS, long], task=short)
    assert rows.input_ids.shape[1] <= 20
    assert len(rows.input_ids) == len(TEXTS) + 1


def test_a_text_without_spaces_is_cut_for_the_host_that_takes_more_tokens_and_its_template_is_not():
    task = task_of({"labels": [0, 1], "max_tokens": 24, "templates": {"decoder": "{text} so"}})
    wide = [f"{number}" + "\u5f71\u7247\u5f88\u597d" * 40 for number in range(20)]
    (mine, theirs), ([origin], [receiver]) = read("gpt2", "llama", "decoder", wide, task=task)
    assert len(origin.input_ids) == len(receiver.input_ids) == len(wide)
    assert 18 < max(rows.attention_mask.sum(1).max() for rows in (origin, receiver)) <= 24
    for tokenizer, rows in ((mine, origin), (theirs, receiver)):
        assert tokenizer.decode(rows.input_ids[0][rows.attention_mask[0].bool()]).endswith(" so")


def test_texts_with_answers_that_do_not_fit_are_left_out_and_counted(caplog):
    answers = ["yes"] * 30 + ["a very long answer of many words " * 6] * 10
    both = (build_tokenizer("llama"), build_tokenizer("llama"))

    def asked(limit: int):
        task = task_of({"labels": [0, 1], "max_tokens": limit})
        given = [f"film {number}" for number in range(40)]
        return read_pair(both, (None, None), task, "decoder", given, 100, generator(), answers)[0]

    assert len(asked(24)[0].input_ids) == 30
    assert "10 of 40 texts do not fit into max_tokens 24" in caplog.text
    with pytest.raises(BadInput, match="0 of 40 texts fit into max_tokens 3, too few"):
        asked(3)


def test_too_few_texts_are_refused():
    with pytest.raises(BadInput, match="3 texts are too few to fit maps on"):
        read("bert", "bert", "encoder", [*TEXTS[:3], " "])


@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        ([(0, 3), (3, 7)], [(0, 3), (3, 7)], [(0, 0), (1, 1)]),
        ([(0, 3), (3, 7)], [(0, 1), (1, 3), (3, 5), (5, 7)], [(0, 1), (1, 3)]),
        ([(0, 2), (2, 7)], [(0, 3), (3, 7)], [(1, 1)]),
        ([(0, 2)], [(0, 3)], []),
        ([(0, 0), (0, 4), (0, 0)], [(0, 0), (0, 2), (2, 4), (0, 0)], [(0, 0), (1, 2), (2, 3)]),
        ([(0, 0), (0, 4)], [(0, 4), (0, 0)], [(1, 0)]),
        ([(0, 4), (0, 0)], [(0, 2), (2, 4), (0, 0)], [(0, 1), (1, 2)]),
        ([], [(0, 2)], []),
    ],
)
def test_tokens_are_paired_by_their_ends_and_special_ones_at_the_edges(one, other, pairs):
    assert aligned(one, other) == pairs


cuts = st.sets(st.integers(1, 12), min_size=1).map(sorted)


@given(cuts, cuts)
def test_all_common_ends_are_paired_once_and_in_order(one, other):
    spans = [[(a, b) for a, b in zip([0, *c], c, strict=False)] for c in (one, other)]
    pairs = aligned(*spans)
    assert [spans[0][i][1] for i, _ in pairs] == sorted(set(one) & set(other))
    assert [spans[1][j][1] for _, j in pairs] == sorted(set(one) & set(other))
    assert aligned(*reversed(spans)) == [(j, i) for i, j in pairs]


@given(st.integers(1, 200), st.integers(1, 5), st.integers(1, 3), st.data())
def test_parts_hold_every_place_of_the_whole_once(count, width, answer, data):
    ids = torch.arange(count * width).view(count, width)
    decoder = 1000 + torch.arange(count * answer).view(count, answer)
    places = {
        stack: torch.tensor(sorted(data.draw(st.sets(st.integers(0, most - 1), min_size=1))))
        for stack, most in (("encoder", count * width), ("decoder", count * answer))
    }
    rows = TokenRows(ids, torch.ones_like(ids), decoder, places)
    for stack, whole in (("encoder", ids), ("decoder", decoder)):
        found = []
        for part in rows.parts():
            of = part.input_ids if stack == "encoder" else part.decoder_ids
            found.append(of.flatten()[part.places[stack]])
        assert torch.equal(torch.cat(found), whole.flatten()[places[stack]])


def test_what_a_record_does_not_say_of_its_task_is_usual():
    task = task_of({})
    assert (task.name, task.labels, task.label_words) == ("unknown", (), None)
    assert (task.templates, task.max_tokens) == (TEMPLATES, 128)
    said = task_of(
        {"label_words": ["a", "b"], "templates": {"decoder": "{text}!"}, "max_tokens": 9}
    )
    assert (said.label_words, said.max_tokens) == (("a", "b"), 9)
    assert said.templates == {**TEMPLATES, "decoder": "{text}!"}


def test_no_special_token_stands_between_a_decoder_s_template_and_its_word():
    """Some tokenizers end every text with one."""
    (ending, _), ([rows], _) = read("t5", "llama", "decoder")
    assert ending("film")["input_ids"][-1] == ending.eos_token_id
    last = rows.attention_mask.sum(1) - 1
    assert ending.eos_token_id not in rows.input_ids[torch.arange(len(last)), last].tolist()


def llama(width: int, ffn: int, heads: int, key_heads: int):
    sizes = {"hidden_size": width, "intermediate_size": ffn, "num_hidden_layers": 2}
    attention = {"num_attention_heads": heads, "num_key_value_heads": key_heads}
    return geometry_of({"model_type": "llama", **sizes, **attention}, "llama")


def test_the_wider_a_host_the_more_tokens_are_read_at_a_time():
    """A layer of an 8B has 218,103,808 weights and takes and gives 81,920 numbers a token."""
    assert tokens_at_once(llama(576, 1536, 9, 3)) == 512
    assert tokens_at_once(llama(2048, 8192, 32, 8)) == 690
    assert tokens_at_once(llama(4096, 14_336, 32, 8)) == 2 * 218_103_808 // (4 * 81_920) == 1331

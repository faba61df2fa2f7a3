"""Prompts with answers become tokens of which the answer's alone are asked for."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from families import KINDS
from peftport.errors import BadInput
from peftport.limits import write_chat
from peftport.tasks import encode, load_task
from peftport.tasks.pairs import IGNORED, Written, chat, encode_pairs, turns_of
from tiny_tokenizers import build_tokenizer
from tiny_words import WORDS
from written_rows import CHAT_TEMPLATE, chats, pairs, write_splits

WRITERS = ("gpt2", "llama", "qwen2", "gemma3_text", "t5")


@pytest.fixture
def task(tmp_path):
    return load_task(str(write_splits(tmp_path / "pairs", pairs())))


@pytest.fixture
def talk(tmp_path):
    def load(**options):
        return load_task(str(write_splits(tmp_path / "chats", chats())), **options)

    return load


def templated(family: str = "qwen2", template: str = CHAT_TEMPLATE):
    tokenizer = build_tokenizer(family)
    tokenizer.chat_template = template
    return tokenizer


# Tokens


@pytest.mark.parametrize("family", WRITERS)
def test_labels_are_the_answer_s_tokens_at_the_places_before_them(family, task):
    tokenizer = build_tokenizer(family)
    read = encode(tokenizer, task, "test", KINDS[family])
    rows = np.array([3, 0, 5])
    batch = read.batch(rows)
    for place, row in enumerate(rows):
        prompt = tokenizer(pairs()[row]["prompt"])["input_ids"]
        answer = tokenizer(pairs()[row]["completion"], add_special_tokens=False)["input_ids"]
        if KINDS[family] == "decoder":
            answer = tokenizer(pairs()[row]["prompt"] + pairs()[row]["completion"])["input_ids"]
            answer = answer[len(prompt) :]
        answer = [*answer, tokenizer.eos_token_id]
        labels = batch.labels[place]
        assert labels[labels != IGNORED].tolist() == answer
        shown = batch.input_ids[place][batch.attention_mask[place].bool()].tolist()
        first = int((labels != IGNORED).nonzero()[0])
        if KINDS[family] == "encoder-decoder":
            assert (shown, first) == (prompt, 0)
        else:
            assert (shown, first) == (prompt + answer, len(prompt) - 1)
    assert read.prompts(rows)[0] == tokenizer(pairs()[3]["prompt"])["input_ids"]
    assert read.sizes[3] == len(pairs()[3]["completion"].encode())


words = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=6), st.integers(4, 24))
@settings(deadline=None, derandomize=True, database=None, max_examples=60)
@pytest.mark.parametrize("family", ["llama", "gpt2", "t5"])
def test_no_row_is_longer_than_the_limit_and_each_asks_for_something(family, rows, limit):
    from peftport.tasks import Task

    tokenizer, kind = build_tokenizer(family), KINDS[family]
    task = Task(
        name="any",
        source="any",
        labels=(),
        label_words=None,
        templates={},
        max_tokens=limit,
        splits={},
        limits={},
    )
    written = [Written(prompt, answer) for prompt, answer in rows]
    read = encode_pairs(tokenizer, task, written, kind)
    assert read.lengths.min() >= 1
    assert read.lengths.max() <= limit
    assert read.answer_lengths.min() >= 1
    assert read.answer_lengths.max() < limit
    whole = encode_pairs(tokenizer, task.model_copy(update={"max_tokens": 999}), written, kind)
    for row, (short, long) in enumerate(zip(answers(read), answers(whole), strict=True)):
        assert short == long[: len(short)]
        prompt, given_ = (each.prompts(np.array([row]))[0] for each in (read, whole))
        kept = prompt[1:] if prompt[0] == tokenizer.bos_token_id else prompt
        assert kept == given_[len(given_) - len(kept) :]
        if len(given_) + (len(long) if kind == "decoder" else 0) <= limit and len(long) < limit:
            assert (prompt, short) == (given_, long)
    batch = read.batch(np.arange(len(read)))
    assert ((batch.labels != IGNORED).sum(1).numpy() == read.answer_lengths).all()


def answers(read) -> list[list[int]]:
    ends = read.target_offsets
    return [read.targets[a:b].tolist() for a, b in pairwise(ends)]


def test_an_answer_that_joins_the_prompt_s_last_token_is_read_by_itself(task):
    """ "film" and "s" may read as one token; the host stands behind "film" when it writes."""
    tokenizer = build_tokenizer("gpt2")
    prompt, answer = "the fil", "m was good"
    assert (
        tokenizer(prompt + answer)["input_ids"][: len(tokenizer(prompt)["input_ids"])]
        != (tokenizer(prompt)["input_ids"])
    )
    read = encode_pairs(tokenizer, task, [Written(prompt, answer)], "decoder")
    assert read.prompts(np.array([0])) == [tokenizer(prompt)["input_ids"]]
    assert tokenizer.decode(answers(read)[0]) == answer + tokenizer.eos_token


def test_without_a_prompt_an_answer_follows_what_begins_a_text(task):
    for family, first in (("llama", 1), ("gpt2", 0), ("qwen2", 2)):
        tokenizer = build_tokenizer(family)
        read = encode_pairs(tokenizer, task, [Written("", "great film")], "decoder")
        assert read.prompts(np.array([0])) == [[first]]
        assert tokenizer.decode(answers(read)[0], skip_special_tokens=True) == "great film"


@pytest.mark.parametrize("family", WRITERS)
def test_prompts_alone_ask_for_an_end(family, task):
    tokenizer, kind = build_tokenizer(family), KINDS[family]
    texts = task.split("test").texts
    read = task.asks.encode_texts(tokenizer, task, texts, kind)
    expected = encode(tokenizer, task, "test", kind).prompts(np.arange(len(texts)))
    assert read.prompts(np.arange(len(texts))) == expected
    assert answers(read) == [[tokenizer.eos_token_id]] * len(texts)


def test_rows_that_are_cut_are_counted(task, caplog):
    short = task.model_copy(update={"max_tokens": 6})
    encode(build_tokenizer("llama"), short, "test", "decoder")
    assert "8 of 8 rows are cut to 6 tokens (max_tokens)" in caplog.text


def test_a_batch_counts_the_answers_of_an_encoder_decoder_too():
    """Short prompts with long answers: the answers' logits are what fills the memory."""
    from peftport.tasks import Task

    task = Task(
        name="any",
        source="any",
        labels=(),
        label_words=None,
        templates={},
        max_tokens=99,
        splits={},
        limits={},
    )
    written = [Written("it", "very " * 60)] * 40
    read = encode_pairs(build_tokenizer("t5"), task, written, "encoder-decoder")
    for _, batch in read.evaluation_batches(256):
        assert batch.labels.numel() <= 256


# Chats


def test_a_chat_is_put_before_a_host_by_its_own_template(talk):
    task = talk()
    read = encode(templated(), task, "test", "decoder")
    row = chats()[0]["messages"]
    expected = f"<|im_start|>user\n{row[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    tokenizer = templated()
    assert tokenizer.decode(read.prompts(np.array([0]))[0]) == expected
    assert tokenizer.decode(answers(read)[0]) == f"{row[1]['content']}<|im_end|>\n"


def test_a_system_s_turn_takes_the_place_of_the_chat_s_own(talk):
    task = talk(system="say it")
    row = task.split("test")
    found = chat(templated(), task, row.texts[0], "bad")
    assert found.prompt.startswith("<|im_start|>system\nsay it<|im_end|>\n<|im_start|>user\n")
    turns = [{"role": "system", "content": "no"}, {"role": "user", "content": "x"}]
    found = turns_of(str(turns).replace("'", '"'), "yes")
    assert [turn["content"] for turn in found] == ["yes", "x"]


@pytest.mark.parametrize("text", ["hello", "[{", "[]", "[1]", '[{"a": 1}]', "[{}]", ""])
def test_a_text_that_is_no_chat_is_a_turn_of_the_user_s(text):
    assert turns_of(text) == [{"role": "user", "content": text}]


def test_a_template_that_refuses_a_system_s_turn_says_so(talk):
    """As Gemma's does."""
    strict = templated(
        template="{% if messages[0].role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}" + CHAT_TEMPLATE
    )
    assert chat(strict, talk(), talk().split("test").texts[0], "bad").whole
    task = talk(system="be kind")
    with pytest.raises(BadInput, match="chat template refuses a row: System role not supported"):
        encode(strict, task, "test", "decoder")


def test_a_template_that_writes_an_answered_chat_otherwise_is_refused(talk):
    odd = templated(template="{% if add_generation_prompt %}now:{% else %}then:{% endif %}")
    with pytest.raises(BadInput, match="writes an answered chat in another way"):
        encode(odd, talk(), "test", "decoder")


def test_a_template_of_one_s_own_overrules_the_host_s(talk):
    task = talk(template="Q: {text}\nA:")
    read = encode(templated(), task, "test", "decoder")
    content = chats()[0]["messages"][0]["content"]
    assert templated().decode(read.prompts(np.array([0]))[0]) == f"Q: {content}\nA:"


def test_what_a_module_remembers_of_its_chats_is_how_they_are_read_again(tmp_path):
    """Its record names the usual templates, which are no template of one's own."""
    folder = str(write_splits(tmp_path / "chats", chats()))
    for options in ({}, {"system": "be kind"}, {"template": "Q: {text}\nA:"}):
        task = load_task(folder, **options)
        again = load_task(folder, remembered=task.record())
        first, second = (encode(templated(), each, "test", "decoder") for each in (task, again))
        assert first.tokens.tolist() == second.tokens.tolist()
        assert again.record()["fingerprint"] == task.record()["fingerprint"]


def test_a_template_of_another_kind_is_not_remembered(tmp_path, tiny_task):
    usual = load_task(str(tiny_task)).record()
    assert usual["templates"]["decoder"] == "{text} it was"
    language = load_task(str(tiny_task), kind="language", remembered=usual)
    assert language.templates["decoder"] == "{text}"
    choice = load_task(str(tiny_task), kind="choice", remembered=usual)
    assert choice.templates["decoder"] == "{text} it was"


def test_a_host_without_a_chat_template_reads_turns_behind_their_roles(talk):
    tokenizer = build_tokenizer("llama")
    task = talk(system="be kind")
    found = chat(tokenizer, task, task.split("test").texts[0], "bad")
    content = chats()[0]["messages"][0]["content"]
    assert found.prompt == f"System: be kind\n\nUser: {content}\n\nAssistant:"
    assert (found.answer, found.whole) == (" bad", False)


ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "why"),
    [(ENDLESS, "it took more than 0.5 seconds"), ("{{ 'x' * 10**10 }}", "too much memory")],
    ids=["endless", "large"],
)
def test_a_chat_template_that_takes_too_much_is_refused(template, why, talk, monkeypatch):
    monkeypatch.setattr("peftport.tasks.pairs.write_chat", partial(write_chat, seconds=0.5))
    task = talk()
    with pytest.raises(BadInput, match=f"task chats: this host's chat template .* {why}"):
        chat(templated(template=template), task, task.split("test").texts[0], "bad")

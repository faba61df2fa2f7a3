"""A label word is read by the first token it adds, on every kind of tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from peftport.errors import BadInput
from peftport.tasks import Task, label_tokens, load_task
from peftport.tasks.verbalizer import continue_with
from real_data import require_shared
from tiny_tokenizers import build_tokenizer


def word_level() -> Any:
    """A tokenizer of whole words that ends a text with </s>, as small hosts of words have."""
    words = ("<pad>", "</s>", "<unk>", "it", "was", "terrible", "great", "gripping")
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def task(tiny_task: Path) -> Task:
    return load_task(str(tiny_task))


def worded(tiny_task: Path, *words: str, template: str = "{text} it was") -> Task:
    return load_task(str(tiny_task), label_words=words, template=template)


@pytest.mark.parametrize(
    ("family", "kind", "tokens"),
    [
        ("t5", "encoder-decoder", ["▁terrible", "▁great"]),
        ("llama", "decoder", ["▁terrible", "▁great"]),
        ("gpt2", "decoder", ["Ġterrible", "Ġgreat"]),
        ("qwen3", "decoder", ["Ġterrible", "Ġgreat"]),
        ("gemma3_text", "decoder", ["▁terrible", "▁great"]),
    ],
)
def test_known_words_are_their_own_tokens(
    family: str, kind: str, tokens: list[str], task: Task
) -> None:
    tokenizer = build_tokenizer(family)
    found = label_tokens(tokenizer, task, kind)
    assert tokenizer.convert_ids_to_tokens(list(found)) == tokens


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
def test_a_tokenizer_of_words_needs_no_space_before_a_word(kind: str, task: Task) -> None:
    tokenizer = word_level()
    found = label_tokens(tokenizer, task, kind)
    assert tokenizer.convert_ids_to_tokens(list(found)) == ["terrible", "great"]


def test_a_word_of_several_tokens_is_read_by_its_first(tiny_task: Path) -> None:
    tokenizer = build_tokenizer("gpt2")
    found = label_tokens(tokenizer, worded(tiny_task, "great story", "plotless"), "decoder")
    assert tokenizer.convert_ids_to_tokens(list(found)) == ["Ġgreat", "Ġplot"]


def test_after_a_line_break_a_word_has_no_space(tiny_task: Path) -> None:
    tokenizer = build_tokenizer("gpt2")
    task = worded(tiny_task, "terrible", "great", template="{text}\n")
    plain = [tokenizer(word)["input_ids"][0] for word in ("terrible", "great")]
    assert list(label_tokens(tokenizer, task, "decoder")) == plain


def test_the_space_before_a_word_is_the_words_and_not_the_templates(tiny_task: Path) -> None:
    tokenizer = build_tokenizer("gpt2")
    spaced = worded(tiny_task, "terrible", "great", template="{text} it was ")
    plain = worded(tiny_task, "terrible", "great")
    assert label_tokens(tokenizer, spaced, "decoder") == label_tokens(tokenizer, plain, "decoder")


def test_real_hosts_read_the_usual_words(task: Task) -> None:
    tokenizer = AutoTokenizer.from_pretrained(require_shared() / "hosts" / "mini-a")
    found = label_tokens(tokenizer, task, "decoder")
    assert tokenizer.convert_ids_to_tokens(list(found)) == ["▁terrible", "▁great"]
    prompt = tokenizer("a fine film it was", add_special_tokens=False)["input_ids"]
    assert tokenizer(continue_with("a fine film it was", "great"))["input_ids"] == [
        *prompt,
        found[1],
    ]


def test_words_that_begin_alike_are_named_with_their_token(tiny_task: Path) -> None:
    task = worded(tiny_task, "great", "great story")
    with pytest.raises(BadInput) as error:
        label_tokens(build_tokenizer("t5"), task, "encoder-decoder")
    message = str(error.value)
    assert "the label words 'great' and 'great story' begin with the same token '▁great'" in message
    assert "with --label-words or under `labels` in a task YAML, words that begin" in message


def test_words_that_differ_in_case_alone_begin_alike_where_case_is_lost(tiny_task: Path) -> None:
    with pytest.raises(BadInput, match="'Great' and 'great' begin with the same token"):
        label_tokens(build_tokenizer("t5"), worded(tiny_task, "Great", "great"), "encoder-decoder")


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
def test_a_word_that_the_tokenizer_does_not_know_is_named(kind: str, tiny_task: Path) -> None:
    task = worded(tiny_task, "great", "splendid")
    with pytest.raises(BadInput, match="label word 'splendid' as the unknown token '<unk>'"):
        label_tokens(word_level(), task, kind)


@pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
def test_a_word_that_vanishes_is_named(kind: str, tiny_task: Path) -> None:
    tokenizer = word_level()
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("wow", "")
    task = worded(tiny_task, "terrible", "wow")
    with pytest.raises(BadInput, match="label word 'wow' as no token at all"):
        label_tokens(tokenizer, task, kind)


def test_a_template_that_runs_into_its_word_is_refused(tiny_task: Path) -> None:
    tokenizer = word_level()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.CharDelimiterSplit("~")
    task = worded(tiny_task, "terrible", "great", template="{text}~was")
    with pytest.raises(BadInput, match="changes how the tokenizer reads the end of the"):
        label_tokens(tokenizer, task, "decoder")


def test_labels_without_words_are_named_where_words_are_needed(tmp_path: Path) -> None:
    for split in ("train", "test"):
        rows = "".join(f"text {i},{i % 3}\n" for i in range(30))
        (tmp_path / f"{split}.csv").write_text("text,label\n" + rows)
    task = load_task(str(tmp_path))
    with pytest.raises(BadInput, match=r"its labels \(0, 1, 2\) have no label words"):
        label_tokens(build_tokenizer("t5"), task, "encoder-decoder")


def test_encoders_have_no_label_tokens(task: Task) -> None:
    with pytest.raises(ValueError, match="'encoder' has no label tokens"):
        label_tokens(build_tokenizer("bert"), task, "encoder")

"""Label words as tokens, for reading a class off a host's next token (rank classification)."""

from __future__ import annotations

from typing import Any

from peftport.errors import BadInput
from peftport.tasks.task import Task

_PROBE = "it"
_CHOOSE = "Choose, with --label-words or under `labels` in a task YAML, words that"


def label_tokens(tokenizer: Any, task: Task, kind: str) -> tuple[int, ...]:
    """Return for each class the first token that its label word adds.

    On an encoder-decoder the word is the target, so that is the word's own first token. On a
    decoder the word continues the filled template, after a space unless the template ends in a
    line break or tab.

    Args:
        tokenizer: a fast transformers tokenizer.
        kind: "encoder-decoder" or "decoder"; encoders are read by a head and have no label words.

    Raises:
        BadInput: labels without words, a word that the tokenizer does not know, or two words that
            begin with the same token and therefore cannot be told apart.
    """
    if kind not in ("encoder-decoder", "decoder"):
        raise ValueError(f"a host of kind {kind!r} has no label tokens")
    words = _words(task)
    if kind == "decoder":
        prompt = task.templates[kind].replace("{text}", _PROBE)
        tokens = tuple(_continuation(tokenizer, prompt, word, task) for word in words)
    else:
        tokens = tuple(_first(tokenizer, word, task) for word in words)
    _refuse_unknown(tokenizer, tokens, words, task)
    _refuse_equal(tokenizer, tokens, words, task)
    return tokens


def continue_with(prompt: str, word: str) -> str:
    """Return the prompt with a word after it, set off by a space unless the line is new."""
    separated = not prompt or prompt[-1].isspace()
    return prompt + ("" if separated else " ") + word


def _words(task: Task) -> tuple[str, ...]:
    if task.label_words is None:
        labels = ", ".join(map(repr, task.labels))
        raise BadInput(
            f"task {task.name}: its labels ({labels}) have no label words, which this host is "
            "read by. Name a word for each, in this order, with --label-words, or under `labels` "
            f"in a task YAML: `labels: {{{task.labels[0]}: WORD, ...}}`."
        )
    return task.label_words


def _first(tokenizer: Any, word: str, task: Task) -> int:
    ids = _ids(tokenizer, word)
    if not ids:
        raise _unknown(word, task, "no token at all")
    return ids[0]


def _continuation(tokenizer: Any, prompt: str, word: str, task: Task) -> int:
    before, after = _ids(tokenizer, prompt), _ids(tokenizer, continue_with(prompt, word))
    if after == before:
        raise _unknown(word, task, "no token at all")
    if after[: len(before)] != before:
        raise BadInput(
            f"task {task.name}: the label word {word!r} changes how the tokenizer reads the end of "
            f"the template {task.templates['decoder']!r}, so no token is the word's first. End the "
            "template (--template, or `template` in a task YAML) with a whole word or a "
            "punctuation mark."
        )
    return after[len(before)]


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _refuse_unknown(
    tokenizer: Any, tokens: tuple[int, ...], words: tuple[str, ...], task: Task
) -> None:
    for token, word in zip(tokens, words, strict=True):
        if token == tokenizer.unk_token_id:
            raise _unknown(word, task, f"the unknown token {tokenizer.unk_token!r}")


def _refuse_equal(
    tokenizer: Any, tokens: tuple[int, ...], words: tuple[str, ...], task: Task
) -> None:
    first: dict[int, str] = {}
    for token, word in zip(tokens, words, strict=True):
        if token in first:
            shown = tokenizer.convert_ids_to_tokens(token)
            raise BadInput(
                f"task {task.name}: the label words {first[token]!r} and {word!r} begin with the "
                f"same token {shown!r} (id {token}), so this host cannot tell them apart. "
                f"{_CHOOSE} begin differently."
            )
        first[token] = word


def _unknown(word: str, task: Task, reads_as: str) -> BadInput:
    return BadInput(
        f"task {task.name}: the tokenizer reads the label word {word!r} as {reads_as}. {_CHOOSE} "
        "it knows."
    )

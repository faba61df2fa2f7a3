"""Prompts with what follows them, as a host's tokens: the rows of tasks that ask for text.

A decoder reads a prompt and its answer as one text, and each token of the answer is predicted from
all before it; an encoder-decoder reads the prompt and writes the answer. A row that would be longer
than the limit loses the beginning of its prompt, but for the token that every text begins with, and
only where that is not enough the end of its answer.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from peftport.errors import BadInput, RunFailed
from peftport.limits import write_chat
from peftport.tasks.batches import Batch, Encoded, Integers, closing_tokens, pad_of, rounded_up
from peftport.tasks.task import Task

IGNORED = -100
"""The label of a place at which nothing is predicted."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Written:
    """A row as text: what stands before the answer, the answer, and whether both are as the host's
    own template has them, special tokens included, or plain text that the tokenizer is to begin and
    to end."""

    prompt: str
    answer: str
    whole: bool = False


@dataclass(frozen=True)
class EncodedPairs(Encoded):
    """Rows as tokens, with the tokens that are to be predicted.

    Shapes: targets (all tokens of answers,) int32, target_offsets (rows + 1,). `tokens` of a
    decoder's row are its prompt and its answer, of an encoder-decoder's its prompt alone. `labels`,
    (rows,), says which row of the task each is of.

    Attributes:
        apart: whether the answer is no part of `tokens`.
        sizes: bytes of each row's answer, (rows,).
        right: of rows of several answers each, the number of each text's right one, (texts,).
        references: what a text's answer should be, where answers are written, of each text.
    """

    targets: Integers
    target_offsets: Integers
    apart: bool
    sizes: Integers
    right: Integers | None = None
    references: tuple[str, ...] = ()

    @property
    def answer_lengths(self) -> Integers:
        """Tokens of each row's answer, (rows,)."""
        return np.diff(self.target_offsets)

    @property
    def width_beside(self) -> int:
        """The longest answer, where answers are no part of the input."""
        return int(rounded_up(self.answer_lengths.max())) if self.apart else 0

    def prompts(self, rows: Integers) -> list[list[int]]:
        """The tokens of the rows' prompts."""
        ends = self.offsets[rows + 1] - (0 if self.apart else self.answer_lengths[rows])
        starts = self.offsets[rows]
        return [self.tokens[a:b].tolist() for a, b in zip(starts, ends, strict=True)]

    def answers(self) -> list[list[int]]:
        """The tokens of every row's answer."""
        ends = self.target_offsets
        return [self.targets[a:b].tolist() for a, b in itertools.pairwise(ends)]

    def batch(self, rows: Integers, length: int | None = None) -> Batch:
        """`rows` in the given order. `labels` of a place, (rows, tokens), is the token that follows
        it on a decoder, and the token of the answer at it on an encoder-decoder; `IGNORED` where
        nothing is asked for."""
        whole = super().batch(rows, length)
        width = self.width_beside or whole.input_ids.shape[1]
        answers = self.answer_lengths[rows]
        first = np.zeros(len(rows), np.int64) if self.apart else self.lengths[rows] - answers - 1
        columns = np.arange(width) - first[:, None]  # place in the answer, (rows, tokens)
        inside = (columns >= 0) & (columns < answers[:, None])
        places = np.where(inside, self.target_offsets[rows][:, None] + columns, 0)
        labels = np.where(inside, self.targets[places], IGNORED)
        return Batch(
            whole.input_ids, whole.attention_mask, torch.from_numpy(labels.astype(np.int64))
        )


def encode_pairs(
    tokenizer: Any,
    task: Task,
    pairs: Sequence[Written],
    kind: str,
    *,
    of: Sequence[int] | None = None,
    closed: bool = True,
) -> EncodedPairs:
    """Tokenise prompts and answers for a kind of host.

    Args:
        tokenizer: a fast transformers tokenizer.
        kind: "decoder" or "encoder-decoder".
        of: the task's row that each pair is of; its own number if not given.
        closed: whether an answer ends with the token that ends a text; an answer that only
            continues a text is read as lm-evaluation-harness reads it.

    Raises:
        BadInput: a prompt or an answer without tokens.
    """
    writer = _Writer(tokenizer, task, kind, closed)
    rows = [writer.row(pair) for pair in pairs]
    if writer.cut:
        _log.warning(
            "notice: task %s: %d of %d rows are cut to %d tokens (max_tokens)",
            *(task.name, writer.cut, len(pairs), writer.limit),
        )
    inputs = [prompt if writer.apart else prompt + answer for prompt, answer in rows]
    tokens, offsets = concatenated(inputs)
    targets, target_offsets = concatenated([answer for _, answer in rows])
    return EncodedPairs(
        tokens,
        offsets,
        np.asarray(range(len(pairs)) if of is None else of, np.int64),
        pad_of(tokenizer),
        targets,
        target_offsets,
        writer.apart,
        np.asarray([len(pair.answer.encode()) for pair in pairs], np.int64),
    )


def chat(tokenizer: Any, task: Task, turns: str, answer: str) -> Written:
    """A chat as the host's own template has it, and its answer with what ends a turn there.

    A host without a chat template reads every turn behind its role ("User: ..."), and its answer
    ends as a text does.

    Args:
        turns: before the answer, as JSON; a plain text is a turn of the user's.

    Raises:
        BadInput: the tokenizer's chat template refuses these turns.
    """
    said = turns_of(turns, task.system)
    if not getattr(tokenizer, "chat_template", None):
        told = [f"{turn['role'].capitalize()}: {turn['content']}\n\n" for turn in said]
        return Written("".join(told) + "Assistant:", f" {answer}")
    last = {"role": "assistant", "content": answer}
    prompt = by_template(tokenizer, said, f"task {task.name}", add_generation_prompt=True)
    whole = by_template(tokenizer, [*said, last], f"task {task.name}")
    if not whole.startswith(prompt):
        raise BadInput(
            f"task {task.name}: this host's chat template writes an answered chat in another way "
            "than one that waits for its answer. Say with --template how a text is put before it."
        )
    return Written(prompt, whole[len(prompt) :], whole=True)


def by_template(tokenizer: Any, turns: Sequence[Any], name: str, **options: Any) -> str:
    """A chat as the host's own template writes it.

    Args:
        name: what messages call the chat. options: of `apply_chat_template`.

    Raises:
        BadInput: the template refuses it, or takes more time or memory than any chat needs: it is a
            program of whoever wrote it.
        RunFailed: the process in which it is to run cannot be started.
    """
    try:
        known = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        return write_chat(tokenizer.get_chat_template(), turns, known | options)
    except RunFailed:
        raise
    except Exception as error:
        why = str(error)
        raise BadInput(
            f"{name}: this host's chat template refuses a row: "
            f"{why.splitlines()[0].rstrip('.') if why else type(error).__name__}. Say with "
            "--template how a text is put before it."
        ) from error


def turns_of(text: str, system: str | None = None) -> list[dict[str, str]]:
    """A chat's turns out of JSON; a plain text is one turn of the user's.

    Args:
        system: the system's turn in place of the chat's own.
    """
    try:
        found = json.loads(text) if text.startswith("[{") else None
    except ValueError:
        found = None
    turns: list[dict[str, str]] = [{"role": "user", "content": text}]
    if isinstance(found, list) and all(isinstance(turn, dict) and "role" in turn for turn in found):
        turns = found
    if system is None:
        return turns
    others = [turn for turn in turns if turn["role"] != "system"]
    return [{"role": "system", "content": system}, *others]


class _Writer:
    """Makes tokens of rows, none longer than the limit, and counts those that were cut."""

    def __init__(self, tokenizer: Any, task: Task, kind: str, closed: bool) -> None:
        if not tokenizer.is_fast:
            raise BadInput(
                f"the tokenizer {type(tokenizer).__name__} is not a fast one (no tokenizer.json), "
                "which peftport needs."
            )
        self.tokenizer, self.task = tokenizer, task
        self.apart = kind == "encoder-decoder"
        self.closing, self.closed = closing_tokens(tokenizer), closed
        self.end = [tokenizer.eos_token_id] if closed and tokenizer.eos_token_id is not None else []
        self.limit = min(task.max_tokens, tokenizer.model_max_length)
        self.cut = 0

    def row(self, pair: Written) -> tuple[list[int], list[int]]:
        """A row's prompt and answer as tokens."""
        prompt, answer = self._apart(pair) if self.apart else self._together(pair)
        for what, text, tokens in (
            ("prompt", pair.prompt, prompt),
            ("answer", pair.answer, answer),
        ):
            if not tokens:
                raise BadInput(
                    f"task {self.task.name}: the {what} {text!r} gives no token on this host."
                )
        return self._fitting(prompt, answer)

    def _together(self, pair: Written) -> tuple[list[int], list[int]]:
        """One text, of which the answer is what the prompt's own tokens leave over.

        Where the end of the prompt reads otherwise with an answer behind it, that is not all of
        the answer, or more. A host that is to write stands behind the prompt's own tokens, and
        learns the answer's.
        """
        prompt = self._opened(pair.prompt, pair.whole)
        both = self._opened(pair.prompt + pair.answer, pair.whole)
        answer = both[len(prompt) :]
        if not answer or (self.closed and both[: len(prompt)] != prompt):
            answer = self._ids(pair.answer, special=False)
        return prompt or self._begin(), answer if pair.whole else self._ended(answer)

    def _apart(self, pair: Written) -> tuple[list[int], list[int]]:
        answer = self._ended(self._ids(pair.answer, special=False))
        return self._ids(pair.prompt, special=not pair.whole), answer

    def _opened(self, text: str, whole: bool) -> list[int]:
        """A text's tokens without what the tokenizer puts behind it."""
        ids = self._ids(text, special=not whole)
        return ids if whole else ids[: len(ids) - self.closing]

    def _begin(self) -> list[int]:
        """What the first token of a text is predicted from."""
        begin = beginning(self.tokenizer)
        return [] if begin is None else [begin]

    def _ended(self, answer: list[int]) -> list[int]:
        return answer if answer[-1:] == self.end else answer + self.end

    def _fitting(self, prompt: list[int], answer: list[int]) -> tuple[list[int], list[int]]:
        room = self.limit if self.apart else self.limit - len(answer)
        if len(prompt) <= room and len(answer) < self.limit:
            return prompt, answer
        self.cut += 1
        answer = answer[: self.limit - 1]
        room = max(1, self.limit if self.apart else self.limit - len(answer))
        if len(prompt) <= room:
            return prompt, answer
        first = prompt[:1] if prompt[0] == self.tokenizer.bos_token_id and room > 1 else []
        return first + prompt[len(prompt) - (room - len(first)) :], answer

    def _ids(self, text: str, special: bool) -> list[int]:
        read = self.tokenizer(text, add_special_tokens=special, verbose=False)
        found: list[int] = read["input_ids"]
        return found


def beginning(tokenizer: Any) -> int | None:
    """The token that begins or else ends texts, behind which a text's first token is predicted."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    return next((token for token in known if token is not None), None)


def concatenated(rows: Sequence[Sequence[int]]) -> tuple[Integers, Integers]:
    """Rows one after the other, (tokens,), and where each begins, (rows + 1,)."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    tokens = np.fromiter((token for row in rows for token in row), np.int32, int(lengths.sum()))
    return tokens, np.concatenate([[0], np.cumsum(lengths)])

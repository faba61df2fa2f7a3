"""What a donor writes to texts without labels, for a new module on another host to learn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from peftport.errors import RunFailed
from peftport.kind import Asking, Lessons
from peftport.kinds.distributions import TaughtPairs, distributions, learning
from peftport.kinds.sequences import written
from peftport.kinds.writing import MOST, Writing, ends_of, write
from peftport.tasks.pairs import encode_pairs

if TYPE_CHECKING:
    from peftport.tasks import Encoded, Task
    from peftport.training.teacher import Teacher

BEGINNING = 8
"""Words of a text that a donor goes on from."""


def answered(teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
    """The donor's answers to prompts, as far as it finds them probable itself.

    Raises:
        RunFailed: it writes nothing to any prompt.
    """
    found = said(teacher, task, texts, how)
    pairs = [(text, answer) for text, each in zip(texts, found, strict=True) for answer in each]
    if not any(answer.strip() for _, answer in pairs):
        raise RunFailed(f"the module writes nothing on {teacher.host.name}: there is no answer.")
    taken = _probable(teacher, task, pairs, how.keep)

    def encode(tokenizer: Any, host_kind: str) -> Encoded:
        rows = [written(tokenizer, task, text, answer, host_kind) for text, answer in taken]
        return encode_pairs(tokenizer, task, rows, host_kind)

    told = {
        "written": len(pairs),
        "kept": len(taken),
        "examples": [answer for _, answer in taken[:3]],
    }
    return as_lessons(teacher, encode, told, how)


def as_lessons(
    teacher: Teacher, encode: Callable[[Any, str], Encoded], told: dict[str, Any], how: Asking
) -> Lessons:
    """Rows as lessons, with the donor's distributions where these are asked for."""
    if not how.distributions:
        return Lessons(encode, told)
    host = teacher.host
    rows: Any = encode(host.tokenizer, host.geometry.kind)
    seen = distributions(teacher, rows)

    def taught(tokenizer: Any, host_kind: str) -> Encoded:
        mine: Any = encode(tokenizer, host_kind)
        return TaughtPairs.of(mine, seen)

    return Lessons(taught, told, learning)


def said(teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> list[list[str]]:
    """Answers to each text, each once."""
    host = teacher.host
    rows: Any = task.asks.encode_texts(host.tokenizer, task, texts, host.geometry.kind)
    prompts = rows.prompts(np.arange(len(rows)))
    ends = ends_of(host.tokenizer, rows.answers())
    temperature = how.temperature if how.samples > 1 else 0.0
    found: list[list[str]] = [[] for _ in texts]
    with teacher.attached():
        for sample in range(how.samples):
            writing = Writing(task.max_answer or MOST, ends, temperature, how.seed + sample)
            (answers,) = write(host, prompts, 1, writing)
            told = host.tokenizer.batch_decode(answers, skip_special_tokens=True)
            for row, answer in enumerate(told):
                # A word that follows a template is set off again on the other host.
                answer = answer.strip() if task.form == "labelled" else answer
                if answer not in found[row]:
                    found[row].append(answer)
    return found


def _probable(
    teacher: Teacher, task: Task, pairs: Sequence[tuple[str, str]], keep: float
) -> list[tuple[str, str]]:
    """The share of answers whose tokens the donor finds most probable, in their order."""
    if keep >= 1:
        return list(pairs)
    host = teacher.host
    kind = host.geometry.kind
    rows = encode_pairs(
        host.tokenizer,
        task,
        [written(host.tokenizer, task, text, answer, kind) for text, answer in pairs],
        kind,
    )
    losses = teacher.answers(rows, task.asks.readout(host, task, teacher.module))  # (pairs, 1)
    a_token = losses.numpy()[:, 0] / rows.answer_lengths
    best = np.sort(np.argsort(a_token, kind="stable")[: max(1, round(keep * len(pairs)))])
    return [pairs[place] for place in best]


def continued(teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> list[str]:
    """A text that the donor writes from the first words of each text on, drawn token by token."""
    host = teacher.host
    begun = [" ".join(text.split()[:BEGINNING]) for text in texts]
    begin = host.tokenizer.bos_token_id
    first = [] if begin is None else [begin]
    prompts = [
        first + host.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        for text in begun
    ]
    ends = ends_of(host.tokenizer, [])
    most = task.max_answer or MOST
    found = []
    with teacher.attached():
        for sample in range(how.samples):
            writing = Writing(most, ends, how.temperature, how.seed + sample)
            (answers,) = write(host, prompts, 1, writing)
            told = host.tokenizer.batch_decode(answers, skip_special_tokens=True)
            found += [text + more for text, more in zip(begun, told, strict=True)]
    return found

"""Choice: which of several answers is right, by how probable a host finds each of them whole.

So label words may have many tokens or begin alike, and rows may have answers of their own. Scored
as lm-evaluation-harness scores multiple choice: `accuracy` by the log-likelihood of the answer
(`acc` there), `length_accuracy` by the same over the answer's characters (`acc_norm`). Trained on
the right answer's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftport import metrics
from peftport.errors import BadInput
from peftport.kept import (
    Answers,
    Lengths,
    pack_scores,
    pack_values,
    unpack_scores,
    unpack_values,
)
from peftport.kind import Asking, Kind, Lessons
from peftport.metrics import Evaluation, Metric, Scored

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded, Rows, Task
    from peftport.tasks.pairs import Written
    from peftport.techniques.base import Parameters
    from peftport.training.readout import Readout
    from peftport.training.teacher import Teacher

ABSENT = -1e30
"""The score of an answer that a row does not have, where others have more."""


@dataclass(frozen=True)
class Chosen(Scored):
    """Log-likelihoods of answers; `sizes`, (n, answers), are their characters."""

    sizes: NDArray[np.integer] | None = None


@dataclass(frozen=True)
class Questions:
    """What is true of a test's texts: the numbers of their right answers, (n,), and the characters
    of all their answers, (n, answers)."""

    right: NDArray[np.int64]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.right)


def _by_length(scored: Any) -> NDArray[np.float64]:
    """Right by the log-likelihood of a character."""
    answered = np.argmax(scored.wide / np.maximum(scored.sizes, 1), axis=1)
    return (answered == scored.labels).astype(np.float64)


_OWN = {
    "length_accuracy": Metric("accuracy by length", "higher", _by_length, share=True),
}


class Choice(Kind):
    """Which of several answers is right."""

    name = "choice"
    about = "Which of several answers is right, by how probable each is as a whole."
    forms = ("choices", "labelled")
    primary, plain, ranking = "corrected_accuracy", "accuracy", "length_accuracy"
    of_classes = True

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Those of classification, and the accuracy by the log-likelihood of a character."""
        return {**metrics.METRICS, **_OWN}

    def encode(self, tokenizer: Any, task: Task, split: str, host_kind: str) -> Encoded:
        """To train, every text with its right answer; to test, with each of its answers."""
        rows = task.split(split)
        if split == "train":
            right = [_answers(task, rows, row)[rows.labels[row]] for row in range(len(rows))]
            return _encoded(tokenizer, task, rows.texts, [(one,) for one in right], host_kind)
        answers = [_answers(task, rows, row) for row in range(len(rows))]
        return _encoded(tokenizer, task, rows.texts, answers, host_kind, rows.labels)

    def encode_texts(
        self, tokenizer: Any, task: Task, texts: Sequence[str], host_kind: str
    ) -> Encoded:
        """The texts, each with every class's answer."""
        return _encoded(tokenizer, task, texts, [_words(task)] * len(texts), host_kind)

    def readout(self, host: Host, task: Task, module: Parameters | None = None) -> Readout:
        """Each answer's log-likelihood."""
        from peftport.kinds.sequences import SequenceReadout, require_no_head

        require_no_head(self, host, module)
        return SequenceReadout(self._judged)

    def own_answers(
        self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking
    ) -> list[str]:
        """Each text's most probable answer under the donor."""
        host, words = teacher.host, _words(task)
        rows = self.encode_texts(host.tokenizer, task, texts, host.geometry.kind)
        nats = teacher.answers(rows, self.readout(host, task, teacher.module)).numpy()[:, 0]
        return [words[number] for number in _table(-nats, rows, ABSENT).argmax(1)]

    def lessons(self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
        """Each text with its most probable answer under the donor."""
        answers = [(answer,) for answer in self.own_answers(teacher, task, texts, how)]

        def encode(tokenizer: Any, host_kind: str) -> Encoded:
            return _encoded(tokenizer, task, texts, answers, host_kind)

        return Lessons(encode)

    def corrects(self, task: Task) -> bool:
        """Where all rows have the same answers, so that they are classes."""
        return task.classes > 0

    def gold(self, task: Task, split: str) -> bytes:
        """The right answers, and how long all of them are."""
        rows = task.split(split)
        sizes = [[len(one) for one in _answers(task, rows, row)] for row in range(len(rows))]
        return pack_values({"right": list(map(int, rows.labels)), "sizes": sizes})

    def read_gold(self, data: bytes, record: Mapping[str, Any]) -> Questions:
        """The same, with size 1 for answers that a text does not have."""
        found = unpack_values(data)
        try:
            right, sizes = np.array(found["right"], np.int64), found["sizes"]
            table = np.ones((len(sizes), max(map(len, sizes))), np.int64)
            for row, each in enumerate(sizes):
                table[row, : len(each)] = each
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ValueError("it has right answers that are none") from error
        if right.shape != table.shape[:1] or not len(right):
            raise ValueError("it has right answers that are none")
        if right.min() < 0 or right.max() >= table.shape[1]:
            raise ValueError("it has right answers that are none of a text's")
        return Questions(right, table)

    def pack(self, evaluation: Evaluation) -> Answers:
        """Log-likelihoods in single precision: by length they are compared as they are."""
        scored, unlabelled = evaluation.scored, evaluation.unlabelled
        return Answers(
            predictions=b"",
            scores=scored.scores.astype(np.float32).tobytes(),
            unlabelled=None if unlabelled is None else pack_scores(unlabelled),
        )

    def unpack(self, answers: Answers, gold: Any, record: Mapping[str, Any]) -> Chosen:
        """Log-likelihoods with the right answers and their sizes."""
        assert answers.scores is not None
        scores, beside = np.frombuffer(answers.scores, np.float32).reshape(gold.sizes.shape), None
        if answers.unlabelled is not None:
            beside = unpack_scores(answers.unlabelled, len(record["labels"]))
        return Chosen(scores, gold.right, metrics.offsets_of(beside), gold.sizes)

    def lengths(self, gold: Any, record: Mapping[str, Any]) -> Lengths:
        """A float for each answer."""
        return Lengths(0, 4 * gold.sizes.size, len(record["labels"]))

    def class_scores(self, answers: NDArray[np.floating], classes: int) -> NDArray[np.floating]:
        """Log-likelihoods of every text's answers."""
        return -answers.reshape(-1, classes)

    def _judged(
        self,
        nats: NDArray[np.floating],
        encoded: Any,
        unlabelled: NDArray[np.floating] | None,
        written: Sequence[str] | None,
    ) -> Evaluation:
        """Accuracies, from the losses of every text's answers one after the other."""
        scores = _table(-nats, encoded, ABSENT)
        beside = None
        if unlabelled is not None:
            beside = -unlabelled.reshape(-1, scores.shape[1])
        sizes = _table(encoded.sizes, encoded, 1).astype(np.int64)
        scored = Chosen(scores, encoded.right, metrics.offsets_of(beside), sizes)
        return Evaluation.of(scored, self.metrics, len(scores), beside)


def _table(values: NDArray[Any], encoded: Any, absent: float) -> NDArray[np.float32]:
    """(encoded rows,) -> (texts, answers)."""
    first = np.r_[True, np.diff(encoded.labels) > 0]
    starts = np.flatnonzero(first)
    column = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    found = np.full((len(starts), column.max() + 1), absent, np.float32)
    found[encoded.labels, column] = values
    return found


def _answers(task: Task, rows: Rows, row: int) -> tuple[str, ...]:
    """The answers that a row can have."""
    return rows.answers[row] if rows.answers else _words(task)


def _words(task: Task) -> tuple[str, ...]:
    if not task.classes:
        raise BadInput(
            f"task {task.name}: texts without labels have no answers of their own to choose from."
        )
    if task.label_words is None:
        raise BadInput(
            f"task {task.name}: its labels ({', '.join(map(repr, task.labels))}) have no answers. "
            "Name one for each, in this order, with --label-words."
        )
    return task.label_words


def _encoded(
    tokenizer: Any,
    task: Task,
    texts: Sequence[str],
    answers: Sequence[tuple[str, ...]],
    host_kind: str,
    right: Sequence[int] = (),
) -> Encoded:
    """Every text with each of its answers; with the number of the right one, where it is known."""
    from peftport.tasks.pairs import encode_pairs

    of = [row for row, each in enumerate(answers) for _ in each]
    pairs = list(_pairs(task, texts, answers, host_kind))
    found = encode_pairs(tokenizer, task, pairs, host_kind, of=of, closed=False)
    sizes = [len(answer) for each in answers for answer in each]
    return replace(found, right=np.asarray(right, np.int64), sizes=np.asarray(sizes, np.int64))


def _pairs(
    task: Task, texts: Sequence[str], answers: Sequence[tuple[str, ...]], host_kind: str
) -> Iterator[Written]:
    from peftport.tasks.pairs import Written
    from peftport.tasks.verbalizer import continue_with

    for text, each in zip(texts, answers, strict=True):
        prompt = task.templates[host_kind].replace("{text}", text)
        if host_kind != "decoder":
            yield from (Written(prompt, answer) for answer in each)
            continue
        # Space at the prompt's end is a part of what follows it, as it is of a word's token.
        bare = prompt.rstrip()
        for answer in each:
            yield Written(bare, continue_with(prompt, answer)[len(bare) :])


CHOICE = Choice()

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
from peftport.kind import Asking, Kind, Lessons
from peftport.metrics import Evaluation, Metric, Scored

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded, Rows, Task
    from peftport.tasks.pairs import Written
    from peftport.techniques.base import Parameters
    from peftport.training.readout import Readout
    from peftport.training.teacher import Teacher

ABSENT = -1e4
"""The score of an answer that a row does not have, where others have more."""


@dataclass(frozen=True)
class Chosen(Scored):
    """Log-likelihoods of answers; `sizes`, (n, answers), are their characters."""

    sizes: NDArray[np.integer] | None = None


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

    def lessons(self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
        """Each text's most probable answer under the donor."""
        host = teacher.host
        rows = self.encode_texts(host.tokenizer, task, texts, host.geometry.kind)
        nats = teacher.answers(rows, self.readout(host, task, teacher.module)).numpy()[:, 0]
        words = _words(task)
        taken = _table(-nats, rows, ABSENT).argmax(1)

        def encode(tokenizer: Any, host_kind: str) -> Encoded:
            answers = [(words[number],) for number in taken]
            return _encoded(tokenizer, task, texts, answers, host_kind)

        return Lessons(encode)

    def corrects(self, task: Task) -> bool:
        """Where all rows have the same answers, so that they are classes."""
        return task.classes > 0

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
        for answer in each:
            added = continue_with(prompt, answer)[len(prompt) :]
            yield Written(prompt, added if host_kind == "decoder" else answer)


CHOICE = Choice()

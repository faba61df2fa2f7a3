"""Classification: a text and its class, read by a label word or by an encoder's head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from peftport.kept import (
    Answers,
    Lengths,
    class_bytes,
    pack_scores,
    unpack_classes,
    unpack_scores,
)
from peftport.kind import Asking, Kind, Lessons
from peftport.metrics import METRICS, Evaluation, Metric, Scored, offsets_of

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded, Task
    from peftport.techniques.base import Parameters
    from peftport.training import ClassReadout
    from peftport.training.teacher import Teacher


class Classification(Kind):
    """Which class a text belongs to."""

    name = "classification"
    about = "Which class a text belongs to, read by a word for each class or by a head."
    forms = ("labelled",)
    hosts = frozenset({"encoder", "decoder", "encoder-decoder"})
    max_tokens = 128
    primary, plain, ranking = "corrected_accuracy", "accuracy", "auroc"
    of_classes = True
    ranking_about = "which no threshold touches"

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """Accuracies, macro-F1, AUROC and log-loss, and those that other packages add."""
        return METRICS

    def encode(self, tokenizer: Any, task: Task, split: str, host_kind: str) -> Encoded:
        """The texts within the task's template, and their classes."""
        from peftport.tasks import encode_texts

        rows = task.split(split)
        return encode_texts(tokenizer, task, rows.texts, rows.labels, host_kind, split)

    def encode_texts(
        self, tokenizer: Any, task: Task, texts: Sequence[str], host_kind: str
    ) -> Encoded:
        """The texts within the task's template."""
        from peftport.tasks import encode_texts

        return encode_texts(tokenizer, task, texts, [0] * len(texts), host_kind)

    def readout(self, host: Host, task: Task, module: Parameters | None = None) -> ClassReadout:
        """The label words' tokens, or a head."""
        from peftport.training import class_readout

        return class_readout(host, task, module)

    def lessons(self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
        """The probabilities that the donor gives each class (Hinton et al. 2015)."""
        from peftport.tasks import encode_texts
        from peftport.training import class_readout

        host = teacher.host
        rows = self.encode_texts(host.tokenizer, task, texts, host.geometry.kind)
        found = teacher.answers(rows, class_readout(host, task, teacher.module)).softmax(1).numpy()

        def encode(tokenizer: Any, host_kind: str) -> Encoded:
            return encode_texts(tokenizer, task, texts, found, host_kind)

        return Lessons(encode)

    def corrects(self, task: Task) -> bool:
        """Always: the class scores of every condition are corrected alike."""
        return True

    def gold(self, task: Task, split: str) -> bytes:
        """The true classes."""
        return class_bytes(task.classes, task.split(split).labels)

    def read_gold(self, data: bytes, record: Mapping[str, Any]) -> NDArray[np.integer]:
        """The true classes, (examples,)."""
        classes = len(record["labels"])
        width = 1 if classes <= 256 else 2
        if not data or len(data) % width or (width == 1 and max(data) >= classes):
            raise ValueError(f"it has true classes that are none of its {classes}")
        return unpack_classes(data, classes)

    def pack(self, evaluation: Evaluation) -> Answers:
        """Predicted classes, and scores in half precision."""
        scored, unlabelled = evaluation.scored, evaluation.unlabelled
        return Answers(
            predictions=class_bytes(scored.classes, scored.predictions.tolist()),
            scores=pack_scores(scored.scores),
            unlabelled=None if unlabelled is None else pack_scores(unlabelled),
        )

    def unpack(self, answers: Answers, gold: Any, record: Mapping[str, Any]) -> Scored:
        """Class scores with the true classes."""
        assert answers.scores is not None
        classes = len(record["labels"])
        scores, beside = unpack_scores(answers.scores, classes), None
        if answers.unlabelled is not None:
            beside = unpack_scores(answers.unlabelled, classes)
        return Scored(scores, gold, offsets_of(beside))

    def lengths(self, gold: Any, record: Mapping[str, Any]) -> Lengths:
        """A class, and half a float for each class."""
        classes = len(record["labels"])
        width = 1 if classes <= 256 else 2
        return Lengths(width * len(gold), (4 + 2 * len(gold)) * classes, classes)

    def predictions(self, answers: Answers, record: Mapping[str, Any]) -> NDArray[np.integer]:
        """As they are kept."""
        return unpack_classes(answers.predictions, len(record["labels"]))


CLASSIFICATION = Classification()

"""How a task is trained and read off a host with its module: what its kind makes of a batch.

Classes are read by label words, or by the head of an encoder (`ClassReadout`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from peftport.metrics import Evaluation, measure
from peftport.techniques.base import Parameters
from peftport.techniques.head import WEIGHT, head_logits, last_logits, word_logits

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Encoded, Task


class Readout(ABC):
    """What a kind of task makes of batches on one host.

    Attributes:
        classes: of an encoder's head; 0 where answers are no classes.
        columns: numbers that are kept of each row.
        replayable: whether a step follows from the batch's shape alone, so that it can be recorded
            (`training.graphs`).
        writes: whether an answer is written to each row.
    """

    classes: int
    columns: int
    replayable: ClassVar[bool] = False
    writes: ClassVar[bool] = False

    @abstractmethod
    def losses(self, host: Host, batch: Any, parameters: Parameters, lanes: int) -> Tensor:
        """Each lane's mean loss of a training batch, with the modules attached: (lanes,).

        Args:
            batch: rows lane-major, (lanes * batch, tokens).
        """

    @abstractmethod
    def answers(self, host: Host, batch: Any, parameters: Parameters) -> Tensor:
        """What is kept of each row, with the modules attached: (lanes * batch, columns)."""

    @abstractmethod
    def evaluation(
        self,
        answers: NDArray[np.floating],
        encoded: Encoded,
        unlabelled: NDArray[np.floating] | None,
        written: Sequence[str] | None,
    ) -> Evaluation:
        """One module's test.

        Args:
            answers: (rows, columns), finite.
            unlabelled: the same of the texts of the correction, (texts, columns).
            written: what the host wrote to each row, where it writes.
        """

    def tokens_at_once(self, host: Host) -> int | None:
        """Tokens of a test batch at most; None where the host alone decides it."""
        return None

    def written(
        self, host: Host, encoded: Encoded, lanes: int, done: Callable[[int], None]
    ) -> list[list[str]] | None:
        """What the host writes to each row under each lane's module, which is attached: [lane]
        [row]; None where nothing is written.

        Args:
            done: called now and then with how many rows more have an answer.
        """
        return None


@dataclass(frozen=True)
class ClassReadout(Readout):
    """Number of classes, and the first token of each label word; None where a head is used: an
    encoder's, or that of a decoder's module which brings one."""

    classes: int
    label_tokens: tuple[int, ...] | None
    replayable: ClassVar[bool] = True

    @property
    def columns(self) -> int:  # type: ignore[override]
        """A score for each class."""
        return self.classes

    def losses(self, host: Host, batch: Any, parameters: Parameters, lanes: int) -> Tensor:
        """Cross-entropy of the classes in nats, a mean over a lane's rows."""
        logits = class_logits(host, batch, parameters, self)  # (lanes * batch, classes)
        rows = functional.cross_entropy(logits, batch.labels.to(host.device), reduction="none")
        return rows.view(lanes, -1).mean(1)

    def answers(self, host: Host, batch: Any, parameters: Parameters) -> Tensor:
        """Logits of the classes."""
        return class_logits(host, batch, parameters, self)

    def evaluation(
        self,
        answers: NDArray[np.floating],
        encoded: Encoded,
        unlabelled: NDArray[np.floating] | None,
        written: Sequence[str] | None,
    ) -> Evaluation:
        """Accuracies and AUROC (`peftport.metrics`)."""
        return measure(answers, encoded.labels, unlabelled)


def readout_of(host: Host, task: Task, module: Parameters | None = None) -> Readout:
    """How `task` is read off `host`, under a module if one is given; BadInput when the host cannot
    do it, or its label words cannot be told apart."""
    return task.asks.readout(host, task, module)


def class_readout(host: Host, task: Task, module: Parameters | None = None) -> ClassReadout:
    """How a task's classes are read off `host`, under a module if one is given; BadInput when its
    label words cannot be told apart."""
    from peftport.tasks import label_tokens

    kind = host.geometry.kind
    headed = kind == "encoder" or WEIGHT in (module or {})
    tokens = None if headed else label_tokens(host.tokenizer, task, kind)
    return ClassReadout(len(task.labels), tokens)


def class_logits(
    host: Host, batch: Any, parameters: Parameters, readout: ClassReadout, whole: bool = False
) -> Tensor:
    """Logits of the classes, with whatever module is attached to the host.

    Args:
        batch: rows lane-major, (lanes * batch, tokens).
        whole: compute every token in every layer, for those who look on.

    Returns:
        (lanes * batch, classes).
    """
    ids, mask = batch.input_ids.to(host.device), batch.attention_mask.to(host.device)
    if readout.label_tokens is None and host.geometry.kind == "decoder":
        return last_logits(host.last_states(ids, mask, whole), parameters)
    if readout.label_tokens is None:
        return head_logits(host.token_states(ids, mask), mask, parameters)
    logits = host.next_token_logits(ids, mask, readout.label_tokens, whole)
    return word_logits(logits, parameters)

"""What a task asks for. A new kind is one file or folder in `peftport/kinds` and a line in `KINDS`;
one of another package is an entry point in the group `peftport.kinds`.

A kind says which forms of rows it reads, what of a row is put before a host, what is trained for,
what is kept of each test example, and what is measured of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from peftport.errors import BadInput
from peftport.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from peftport.hosts.host import Host
    from peftport.kept import Answers, Lengths
    from peftport.metrics import Evaluation, Metric
    from peftport.tasks import Encoded, Task
    from peftport.techniques.base import Parameters
    from peftport.training.readout import Readout
    from peftport.training.teacher import Teacher

USUAL = "classification"
"""The kind of a task whose rows have a text and a label, unless another is asked for."""


@dataclass(frozen=True)
class Asking:
    """How a donor is asked for what it does, where it writes.

    samples: answers to each text; 1 is the most probable one. temperature: of the draw of several.
    keep: share of the answers that are learnt, those that the donor itself finds most probable.
    distributions: whether the host that learns has the donor's vocabulary, and is to learn how
    probable the donor finds other tokens.
    """

    samples: int = 1
    temperature: float = 1.0
    keep: float = 1.0
    seed: int = 0
    distributions: bool = False


@dataclass(frozen=True)
class Lessons:
    """What a donor does on texts without labels.

    encode: gives the same as rows that another host is trained on, from its tokenizer and its kind.
    told: what a record says of it. readout: how these rows are trained on, if not as the task is.
    """

    encode: Callable[[Any, str], Encoded]
    told: Mapping[str, Any] = field(default_factory=dict)
    readout: Callable[[Encoded, Readout], Readout] = lambda _rows, usual: usual


class Kind(ABC):
    """One kind of task.

    Attributes:
        name: it is found by. about: what it asks for, in one sentence.
        forms: of rows that it reads (`peftport.tasks.forms`), the first that the data have.
        hosts: kinds of host that can do it.
        labelled: whether it wants the labels of rows that have them.
        max_tokens: the longest input where nobody says it.
        primary: the metric that recovery, leads and verdicts rest on.
        plain: the metric that stands beside it, of the same answers without what is corrected or
            judged. ranking: a third one, that no threshold can win.
        of_classes: whether answers are classes. Then `primary` is `plain` after the label-free
            correction, where there is one, and modules agree as kappa says.
        ranking_about: what the third metric has over the others, as a clause, for reports.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    forms: ClassVar[tuple[str, ...]]
    hosts: ClassVar[frozenset[str]] = frozenset({"decoder", "encoder-decoder"})
    labelled: ClassVar[bool] = True
    max_tokens: ClassVar[int] = 512
    primary: ClassVar[str]
    plain: ClassVar[str]
    ranking: ClassVar[str]
    of_classes: ClassVar[bool] = False
    ranking_about: ClassVar[str] = ""

    @property
    @abstractmethod
    def metrics(self) -> Mapping[str, Metric]:
        """Every metric by its name, which is its column's too."""

    @abstractmethod
    def encode(self, tokenizer: Any, task: Task, split: str, host_kind: str) -> Encoded:
        """The rows of a split as a host's tokens.

        Raises:
            BadInput: a template that leaves no room, or a row that gives no token.
        """

    @abstractmethod
    def encode_texts(
        self, tokenizer: Any, task: Task, texts: Sequence[str], host_kind: str
    ) -> Encoded:
        """Texts without labels as a host's tokens, as the label-free correction looks at them."""

    @abstractmethod
    def readout(self, host: Host, task: Task, module: Parameters | None = None) -> Readout:
        """How the task is trained and read off a host, under a module if one is given.

        Raises:
            BadInput: the host cannot do it.
        """

    def own_answers(
        self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking
    ) -> list[str] | None:
        """A donor's answer to each text, as a text; None where the texts themselves are what such
        a module speaks."""
        return None

    @abstractmethod
    def lessons(self, teacher: Teacher, task: Task, texts: Sequence[str], how: Asking) -> Lessons:
        """What a donor does on texts without labels, for a new module on another host to learn.

        Raises:
            BadInput: the donor's host cannot do the task.
            RunFailed: what it does is not finite.
        """

    def corrects(self, task: Task) -> bool:
        """Whether figures have a label-free correction, which rests on unlabelled texts."""
        return False

    # What a store keeps of a test: by default what each example adds to each of the metrics.

    def gold(self, task: Task, split: str) -> bytes:
        """What is true of the split's examples, as a store keeps it once for a task."""
        return bytes(len(task.split(split)))

    def read_gold(self, data: bytes, record: Mapping[str, Any]) -> Any:
        """The same from bytes: something with a length, an entry for each example.

        Args:
            record: what a store knows of the task, as `Task.record` says it.

        Raises:
            ValueError: bytes that `gold` did not make.
        """
        if not data:
            raise ValueError("it has no examples")
        return data

    def pack(self, evaluation: Evaluation) -> Answers:
        """What is kept of a test's examples, as bytes."""
        from peftport.kept import Answers, pack_parts

        parts = [metric.parts(evaluation.scored) for metric in self.metrics.values()]
        return Answers(b"", pack_parts(parts, int(evaluation.figures["n_test"] or 0)))

    def unpack(self, answers: Answers, gold: Any, record: Mapping[str, Any]) -> Any:
        """The same from bytes, as `parts` takes it; ValueError where `pack` did not make them."""
        from peftport.kept import unpack_parts

        return unpack_parts(answers.scores or b"", tuple(self.metrics))

    def parts(self, kept: Any, metric: str) -> NDArray[np.floating] | None:
        """What each example adds to a metric's figure, (examples,); None where there is none.

        Args:
            kept: what was unpacked, or an evaluation's `scored`.
        """
        from peftport.kept import Parts

        found: NDArray[np.floating] | None
        found = kept.get(metric) if isinstance(kept, Parts) else self.metrics[metric].parts(kept)
        return found

    def lengths(self, gold: Any, record: Mapping[str, Any]) -> Lengths:
        """How many bytes `pack` makes of a test on these examples."""
        from peftport.kept import Lengths

        return Lengths(0, 8 * len(self.metrics) * len(gold), 0)

    def predictions(
        self, answers: Answers, record: Mapping[str, Any]
    ) -> NDArray[np.integer] | None:
        """The class of every example, (examples,), where answers are classes kept as such."""
        return None

    def class_scores(self, answers: NDArray[np.floating], classes: int) -> NDArray[np.floating]:
        """Scores of classes, (texts, classes), from what a readout keeps of unlabelled texts."""
        return answers

    def score(self, figures: Mapping[str, Any] | None) -> float:
        """How good a test's figures are, more being better: by the primary metric, or by the plain
        one where there was nothing to correct by. Of a module that failed the worst there is."""
        found = figures or {}
        name = self.plain if found.get(self.primary) is None else self.primary
        metric, value = self.metrics[name], found.get(name)
        if value is None:
            return 0.0 if metric.share else float("-inf")
        return float(value) * metric.sign

    def require_host(self, name: str, host_kind: str) -> None:
        """Raise BadInput unless hosts of this kind can do such tasks."""
        if host_kind not in self.hosts:
            raise BadInput(
                f"host {name} is an {host_kind} and writes nothing: tasks of kind {self.name} are "
                f"for hosts of kind {' or '.join(sorted(self.hosts))}."
            )


KINDS = Registry(
    "task kind",
    {
        "classification": "peftport.kinds.classification:CLASSIFICATION",
        "choice": "peftport.kinds.choice:CHOICE",
        "completion": "peftport.kinds.completion.kind:COMPLETION",
        "language": "peftport.kinds.language:LANGUAGE",
    },
    "peftport.kinds",
    "peftport.kind:Kind",
)


def kind_named(name: str) -> Kind:
    """The kind called `name`; BadInput lists those that are known."""
    found: Kind = KINDS.get(name)
    return found


def shared_kind(tasks: Mapping[str, Mapping[str, Any]]) -> Kind:
    """The kind that all tasks of a study are of.

    Args:
        tasks: label -> what is known of the task, as `Task.record` says it; those of which nothing
            is known yet are passed over.

    Raises:
        BadInput: they are of several.
    """
    kinds = {
        label: record.get("kind", USUAL) for label, record in tasks.items() if "labels" in record
    }
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{label} is of kind {kind}" for label, kind in kinds.items())
        raise BadInput(
            f"tasks: {told}. A study's tasks are of one kind: say it for all of them "
            "(`kind: ...`), or make a study of each."
        )
    return kind_named(next(iter(kinds.values()), USUAL))

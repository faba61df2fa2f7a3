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
    from peftport.hosts.host import Host
    from peftport.metrics import Metric
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
    """

    samples: int = 1
    temperature: float = 1.0
    keep: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Lessons:
    """What a donor does on texts without labels.

    encode: gives the same as rows that another host is trained on, from its tokenizer and its kind.
    told: what a record says of it.
    """

    encode: Callable[[Any, str], Encoded]
    told: Mapping[str, Any] = field(default_factory=dict)


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

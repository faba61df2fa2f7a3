"""How a module reads texts: from its record, and where its files do not say it, from whoever asks
or from a task.

Files of other libraries have neither label words nor template, and a module answers as it was
trained under its own alone. What is said here is kept in the module's record.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from peftport.errors import BadInput
from peftport.kind import USUAL, kind_named

if TYPE_CHECKING:
    from peftport.hosts import Geometry
    from peftport.modules import Record
    from peftport.porting.base import PortMethod
    from peftport.tasks import Task

LARGEST_SEED = 2**63 - 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Told:
    """What whoever asks says of how texts are read; None where they do not.

    words: for the labels, in order. template: how a text is put before a host.
    text_column, label_column: of a task whose data do not say it. kind: what it asks for.
    system: the system's turn of chats. max_answer: the most tokens of an answer. scorer: a metric
    of one's own, "module:function".
    """

    words: tuple[str, ...] | None = None
    template: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    kind: str | None = None
    system: str | None = None
    max_answer: int | None = None
    scorer: str | None = None

    @property
    def of_task(self) -> dict[str, Any]:
        """The same as `tasks.load_task` takes it."""
        return {
            "label_words": self.words,
            "template": self.template,
            "text": self.text_column,
            "label": self.label_column,
            "kind": self.kind,
            "system": self.system,
            "max_answer": self.max_answer,
            "scorer": self.scorer,
        }


def require_at_least(least: int, **counts: int | None) -> None:
    """Raise BadInput for a count that is given and too small; it is named as its option is."""
    for name, count in counts.items():
        if count is not None and count < least:
            raise BadInput(f"--{name.replace('_', '-')} {count}: expected {least} or more.")


def require_seed(seed: int) -> None:
    """Raise BadInput for a seed that generators of random numbers do not take."""
    if not 0 <= seed <= LARGEST_SEED:
        raise BadInput(f"--seed {seed}: expected a whole number from 0 to {LARGEST_SEED}.")


def require_rates(**rates: float | Sequence[float] | None) -> None:
    """Raise BadInput for a learning rate that is given and trains nothing or the wrong way; it is
    named as its option is."""
    for name, given in rates.items():
        every = given if isinstance(given, Sequence) else [given]
        for rate in every:
            if rate is not None and not 0 < rate < inf:
                raise BadInput(
                    f"--{name.replace('_', '-')} {rate:g}: expected a number above 0, such as 1e-3."
                )


def told(
    words: str | Sequence[str] | None,
    template: str | None,
    text_column: str | None = None,
    label_column: str | None = None,
    **more: Any,
) -> Told:
    """Read label words, a text at its commas, and a template; BadInput says what is wrong.

    Args:
        more: the other attributes of `Told`.
    """
    from peftport.tasks.task import templates_of

    split = None
    if words is not None:
        listed = words.split(",") if isinstance(words, str) else words
        split = tuple(word.strip() for word in listed)
        if len(split) < 2 or not all(split):
            raise BadInput(
                f"--label-words {words!r}: expected two words or more, joined by commas, one for "
                "each label in order."
            )
    if template is not None:
        templates_of(template, "--template")
    if more.get("kind") is not None:
        kind_named(more["kind"])
    return Told(split, template, text_column, label_column, **more)


def plain_task(
    name: str, told: Told, *, limit_train: int | None = None, limit_test: int | None = None
) -> Task:
    """Load a task where no module says how it is read."""
    from peftport.tasks import load_task

    return load_task(name, **told.of_task, limit_train=limit_train, limit_test=limit_test)


def task_for(
    record: Record,
    name: str,
    told: Told,
    *,
    limit_train: int | None = None,
    limit_test: int | None = None,
) -> Task:
    """Load a task to be read as a module was trained, as far as its record knows, unless the
    task's YAML or what is told say else.

    Raises:
        BadInput: the task has other classes than the module.
    """
    from peftport.tasks import load_task

    task = load_task(
        name,
        **told.of_task,
        remembered=record.task,
        limit_train=limit_train,
        limit_test=limit_test,
    )
    labels = record.task["labels"]
    if labels and task.classes not in (0, len(labels)):
        raise BadInput(
            f"task {name} has {task.classes} classes and the module was trained for "
            f"{len(labels)} ({', '.join(map(str, labels))})."
        )
    return task


def informed(record: Record, told: Told, task: Task | None = None) -> Record:
    """A module's record with what its files leave unsaid: what is said here goes before what
    it remembers, and that before what a task says.

    Raises:
        BadInput: there are not as many words as the module has classes.
    """
    from peftport.tasks.task import BESIDE, templates_of

    known = dict(record.task)
    if task is not None and task.kind != USUAL:
        known |= {key: value for key, value in task.model_dump().items() if key in BESIDE}
    elif told.kind is not None:
        known["kind"] = told.kind
    if told.words:
        known["label_words"] = list(_words(task) or told.words)
    elif not known.get("label_words"):
        known["label_words"] = _words(task)
    if told.template is not None:
        known["templates"] = task.templates if task else templates_of(told.template, "--template")
    elif not known.get("templates") and task is not None and task.says_template:
        known["templates"] = task.templates
    words = known["label_words"]
    if not known["labels"] and _geometry(record).kind != "encoder":  # an encoder's head says them
        known["labels"] = list(task.labels if task else range(len(words or ())))
    if words and known["labels"] and len(words) != len(known["labels"]):
        raise BadInput(
            f"--label-words: {len(words)} words ({', '.join(words)}) and the module was trained "
            f"for {len(known['labels'])} classes."
        )
    return record.model_copy(update={"task": known})


def notice_unsaid(record: Record, module: str) -> None:
    """Say what neither the module nor anybody else says of how it reads texts; encoders are read
    by a head and commonly see the bare text."""
    from peftport.tasks.task import TEMPLATES

    kind = _geometry(record).kind
    task = record.task
    missing = [
        *(["label words"] if not task.get("label_words") else []),
        *([f"template (taken: {TEMPLATES[kind]!r})"] if not task.get("templates") else []),
    ]
    if missing and kind != "encoder" and record.kind == USUAL:
        _log.warning(
            "notice: %s does not say its %s; figures can hang on both. Say with --label-words and "
            "--template what it was trained with, or in a task YAML.",
            module,
            " and ".join(missing),
        )


def notice_usual_template(task: Task, host_kind: str) -> None:
    """Say into which template texts are put where nobody names one."""
    if task.asks.of_classes and not task.says_template and host_kind != "encoder":
        _log.warning(
            "notice: texts are put into the template %r, with the words %s. Figures can hang on "
            "both: give the bare host those of the module that you compare it with, by "
            "--template and --label-words.",
            task.templates[host_kind],
            ", ".join(task.label_words or ()),
        )


def words_problem(record: Record, host: Geometry, name: str) -> str | None:
    """Why a host cannot read a module's label words: its tokenizer does not know one, or cannot
    tell two apart. No weight is read. A host without a tokenizer is taken, with a notice: some
    methods need none."""
    if host.kind == "encoder" or not record.task.get("label_words"):
        return None
    if record.kind != USUAL:
        return None
    from peftport.hosts import find_host
    from peftport.hosts.host import load_tokenizer
    from peftport.porting.reading import task_of
    from peftport.tasks import label_tokens

    try:
        tokenizer = load_tokenizer(find_host(name).files(weights=False), name)
    except BadInput as error:
        _log.warning(
            "notice: whether %s knows the module's label words was not looked at: %s", name, error
        )
        return None
    try:
        label_tokens(tokenizer, task_of(record.task), host.kind)
    except BadInput as error:
        return f"host {name} cannot read the module's label words: {error}".removesuffix(".")
    return None


def words_problem_of(
    method: PortMethod, record: Record, receiver: Geometry, name: str
) -> str | None:
    """Why a method cannot port a module for its label words: the receiving host cannot read them,
    or its own cannot, whose answers the method learns from."""
    problem = words_problem(record, receiver, name)
    if problem is None and method.asks_donor:
        problem = words_problem(record, _geometry(record), record.host.name)
    return problem


def _words(task: Task | None) -> list[str] | None:
    return list(task.label_words) if task is not None and task.label_words else None


def _geometry(record: Record) -> Any:
    from peftport.hosts import geometry_from_record

    return geometry_from_record(record.geometry)

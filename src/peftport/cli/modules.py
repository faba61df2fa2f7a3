"""What the commands that take a MODULE share: folders of other libraries, and what those leave
unsaid."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.cli.arguments import task_for_module, words_of
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.modules import Module, Record

FromHost = Annotated[
    str | None,
    typer.Option(
        "--from-host",
        help="The host that MODULE is made for, where its files name none or it is elsewhere.",
    ),
]
NoPickle = Annotated[
    bool,
    typer.Option("--no-pickle", help="Refuse pickled tensors (.bin) in folders of AdapterHub."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="peftport, peft or adapterhub: how to write it; as MODULE if not given."
    ),
]


def with_task(
    module: Module, name: str, words: str | None, limit_test: int | None
) -> tuple[Module, Any]:
    """Load a task to be read as a module was trained; a module that does not know its own task
    learns the classes from it.

    Raises:
        BadInput: the task has other classes than the module, or the module lacks an encoder's head.
    """
    from peftport.tasks import load_task

    if module.classes:
        return module, task_for_module(name, module.record.task, words, limit_test)
    if module.geometry.kind == "encoder":
        raise BadInput(
            f"this module of {module.record.host.name} has no head, and an encoder has no classes "
            "without one: save it again together with its head, or port it and train one."
        )
    task = load_task(name, label_words=words_of(words), limit_test=limit_test)
    known = {"labels": list(task.labels), "label_words": task.label_words}
    record = module.record.model_copy(update={"task": {**module.record.task, **known}})
    return replace(module, record=record), task


def task_to_train(module: Module, name: str, words: str | None, limit_train: int | None) -> Any:
    """Load a task to train a module on: read as the module was trained, where it knows how.

    Raises:
        BadInput: the task has other classes than the module.
    """
    from peftport.tasks import load_task

    if module.classes:
        return task_for_module(name, module.record.task, words, None, limit_train=limit_train)
    return load_task(name, label_words=words_of(words), limit_train=limit_train)


def made_for(record: Record, host: Host) -> bool | None:
    """Whether a module is made for the very weights of a host; None where that is not known.

    Folders of other libraries name a host and no fingerprint: what bears that name today counts.
    """
    from peftport.hosts import find_host
    from peftport.hosts.fingerprint import fingerprint

    if record.host.fingerprint:
        return record.host.fingerprint == host.fingerprint
    try:
        return fingerprint(find_host(record.host.name).files()) == host.fingerprint
    except BadInput:
        return None

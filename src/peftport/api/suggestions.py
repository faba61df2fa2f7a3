"""Commands that messages suggest: whole, so that they run as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peftport.api.reading import Told, words_problem_of
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.api.hosts import HostHandle
    from peftport.api.modules import ModuleHandle
    from peftport.modules import Record
    from peftport.porting import Verdict
    from peftport.porting.base import Need
    from peftport.tasks import Task
    from peftport.techniques.base import Shapes

STEPS = 200
_NOT_OF_CHECK = ("--system", "--max-answer")

Options = Mapping[str, str | int | bool | None]


def port_command(
    module: str, host: str, task: str | None, method: str, options: Options | None = None
) -> str:
    """A `peftport port` of a module into a new folder beside it.

    Args:
        options: further ones by name ("--from-host"); those that are None or False are left out.
    """
    given = {"--host": host, "--method": method, "--task": task, **(options or {})}
    given["--out"] = str(_new_folder(module, host))
    return shlex.join(["peftport", "port", module, *_written(given)])


def _written(options: Options) -> list[str]:
    return [
        word
        for name, value in options.items()
        if value is not None and value is not False
        for word in ([name] if value is True else [name, str(value)])
    ]


def train_command(module: str, host: str, task: str) -> str:
    """A `peftport port` of a module to its own host that gives it a trained head."""
    return port_command(module, host, task, "copy", {"--steps": str(STEPS)})


def methods_for(
    record: Record,
    shapes: Shapes,
    receiver: HostHandle,
    task: Task,
    *,
    look: bool = True,
) -> list[str]:
    """The port methods to try, in their order, that can port a module to a host with what is at
    hand: the originating host, and a task's training texts.

    Args:
        look: as `related` takes it.
    """
    from peftport.porting import judge_all, port_method, to_try
    from peftport.porting.means import unread

    here = _at_hand(record.host.name)
    geometry, name = receiver.geometry, receiver.name
    verdicts = judge_all(record, shapes, geometry, unread(record.host.name, name))
    return [
        each.method
        for each in to_try(verdicts, related(record, receiver, look=look), record.kind)
        if _has(each.requires, here, task)
        and words_problem_of(port_method(each.method), record, geometry, name) is None
    ]


def a_way_on(handle: ModuleHandle, host: str, first: Verdict, told: Options) -> str:
    """What to do where no method is named and no copy can be made, or one may keep nothing: the
    port by the first method to try, if what it looks at is known; else the check that says what it
    needs.

    Args:
        told: options that were given, by name; of them "--task" and "--texts" name texts.
    """
    if "texts" not in first.requires or told.get("--task") or told.get("--texts"):
        return port_command(handle.called, host, None, first.method, told)
    given = {"--host": host, "--method": first.method, **told}
    given = {name: value for name, value in given.items() if name not in _NOT_OF_CHECK}
    return shlex.join(["peftport", "check", handle.called, *_written(given)])


def said_options(handle: ModuleHandle, said: Told) -> Options:
    """Options that say of a module what its files leave unsaid, as they were given."""
    return {
        "--from-host": handle.from_host,
        "--label-words": ",".join(said.words) if said.words else None,
        "--template": said.template,
        "--text-column": said.text_column,
        "--label-column": said.label_column,
        "--kind": said.kind,
        "--system": said.system,
        "--max-answer": said.max_answer,
        "--no-pickle": not handle.pickles,
    }


def related(record: Record, receiver: HostHandle, *, look: bool = True) -> bool | None:
    """Whether a module's host and another one share their pretraining; None where that is not
    known. Hosts of two families do not.

    Args:
        look: into their records and weights, where both are at hand.
    """
    from peftport.hosts.genealogy import folder_at_hand, relation_of

    if record.host.name == receiver.name:
        return True
    if record.geometry["family"] != receiver.geometry.family:
        return False
    if not look:
        return None
    origin = folder_at_hand(record.host.name)
    try:
        found = relation_of(origin, record.host.fingerprint, receiver.folder)
    except BadInput:
        return None
    return None if found is None else found != "independent"


def _has(needs: frozenset[Need], host: bool, task: Task) -> bool:
    return ("weights" not in needs or host) and ("texts" not in needs or "train" in task.splits)


def _at_hand(host: str) -> bool:
    from peftport.hosts import find_host

    try:
        return (find_host(host).files(weights=False) / "config.json").is_file()
    except BadInput:
        return False


def _new_folder(called: str, host: str) -> Path:
    """A folder beside a module's that does not exist yet and says where the port goes to."""
    module = Path(called)
    whole = module if module.name else module.resolve()
    to = Path(host.replace(":", "-").replace("@", "-")).name or "host"
    first = whole.with_name(f"{whole.name}-on-{to}")
    tried, count = first, 1
    while tried.exists():
        count += 1
        tried = first.with_name(f"{first.name}-{count}")
    return tried

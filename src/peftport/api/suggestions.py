"""Commands that messages suggest: whole, so that they run as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from peftport.api.reading import words_problem_of
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.api.modules import ModuleHandle
    from peftport.hosts import Geometry
    from peftport.modules import Record
    from peftport.porting import Verdict
    from peftport.porting.base import Need
    from peftport.tasks import Task
    from peftport.techniques.base import Shapes

STEPS = 200

Options = Mapping[str, str | bool | None]


def port_command(
    module: str, host: str, task: str | None, method: str, options: Options | None = None
) -> str:
    """A `peftport port` of a module into a new folder beside it.

    Args:
        options: further ones by name ("--from-host"); those that are None or False are left out.
    """
    given = {"--host": host, "--method": method, "--task": task, **(options or {})}
    words = ["peftport", "port", module]
    for name, value in {**given, "--out": str(_new_folder(module, host))}.items():
        if value is not None and value is not False:
            words += [name] if value is True else [name, value]
    return shlex.join(words)


def train_command(module: str, host: str, task: str) -> str:
    """A `peftport port` of a module to its own host that gives it a trained head."""
    return port_command(module, host, task, "copy", {"--steps": str(STEPS)})


def methods_for(
    record: Record,
    shapes: Shapes,
    receiver: Geometry,
    task: Task,
    name: str,
    related: bool | None = None,
) -> list[str]:
    """The port methods to try, in their order, that can port a module to a host with what is at
    hand: the originating host, and a task's training texts.

    Args:
        receiver, name: of the host.
        related: as `porting.to_try` takes it.
    """
    from peftport.porting import judge_all, port_method, to_try
    from peftport.porting.means import unread

    here = _at_hand(record.host.name)
    verdicts = judge_all(record, shapes, receiver, unread(record.host.name, name))
    return [
        each.method
        for each in to_try(verdicts, related)
        if _has(each.requires, here, task)
        and words_problem_of(port_method(each.method), record, receiver, name) is None
    ]


def a_way_on(handle: ModuleHandle, host: str, task: str | None, first: Verdict) -> str:
    """What to do where no method is named and no copy can be made, or one may keep nothing: the
    port by the first method to try, if what it looks at is known; else the check that says what it
    needs."""
    also: Options = {"--from-host": handle.from_host, "--no-pickle": not handle.pickles}
    if task is not None or "texts" not in first.requires:
        return port_command(handle.called, host, task, first.method, also)
    words = ["peftport", "check", handle.called, "--host", host, "--method", first.method]
    return shlex.join(words + (["--from-host", handle.from_host] if handle.from_host else []))


def related(record: Record, receiver: Path) -> bool | None:
    """Whether a module's host and the one in a folder share their pretraining; None where neither
    their records nor their weights say it."""
    from peftport.hosts.genealogy import folder_at_hand, relation_of

    try:
        found = relation_of(folder_at_hand(record.host.name), record.host.fingerprint, receiver)
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

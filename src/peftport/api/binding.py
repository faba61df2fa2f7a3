"""What the calls that put a module on a host share: what the module's files leave unsaid, and
whether it is made for that host."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from peftport.api.reading import Told, informed, notice_unsaid, task_for
from peftport.api.suggestions import train_command
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.api.hosts import HostHandle
    from peftport.api.modules import ModuleHandle
    from peftport.modules import Module, Record
    from peftport.tasks import Task

_log = logging.getLogger(__name__)


def with_task(
    handle: ModuleHandle, name: str, told: Told, limit_test: int | None
) -> tuple[Module, Task]:
    """Load a task to be read as a module was trained, and give the module what its files leave
    unsaid; a notice says what nobody does.

    Raises:
        BadInput: the task has other classes than the module, or the module lacks an encoder's head.
    """
    module = handle.module
    if not module.classes and module.geometry.kind == "encoder":
        raise BadInput(
            f"{handle.called} has no head, and an encoder has no classes without one: save it "
            "again together with its head, or port it to its own host and train one, with "
            f"`{train_command(handle.called, module.record.host.name, name)}`."
        )
    task = task_for(module.record, name, told, limit_test=limit_test)
    module = replace(module, record=informed(module.record, told, task))
    notice_unsaid(module.record, handle.called)
    return module, task


def made_for(record: Record, mark: str) -> bool | None:
    """Whether a module is made for the very weights of a host of such a fingerprint; None where
    that is not known.

    Folders of other libraries name a host and no fingerprint: what bears that name today counts,
    where it is on this machine.
    """
    from peftport.hosts.fingerprint import fingerprint, same_host
    from peftport.hosts.genealogy import folder_at_hand

    if record.host.fingerprint:
        return same_host(record.host.fingerprint, mark)
    folder = folder_at_hand(record.host.name)
    try:
        return None if folder is None else fingerprint(folder) == mark
    except BadInput:  # it has no weights that can be read
        return None


def noticed_host(handle: ModuleHandle, host: HostHandle, doing: str) -> bool | None:
    """Whether a module is made for a host's very weights, as `made_for` says it; a notice says so
    where it is not.

    Args:
        doing: what is done all the same: "this tests a plain copy".
    """
    name = handle.record.host.name
    same = made_for(handle.record, host.fingerprint)
    if same is None:
        _log.warning("notice: %s is not at hand to compare %s with.", name, host.name)
    elif not same:
        _log.warning(
            "notice: %s was made for %s, whose weights are not those of %s: %s.",
            *(handle.called, name, host.name, doing),
        )
    return same


def noticed_host_of_test(handle: ModuleHandle, host: HostHandle) -> bool | None:
    """The same before a module is tested on a host that is loaded; a notice says also where texts
    are other tokens to it than to the host."""
    from peftport.hosts.vocabulary import notice_other_tokenizer

    same = noticed_host(handle, host, "this tests a plain copy")
    mark = handle.record.host.tokenizer
    notice_other_tokenizer(handle.called, mark, host.loaded.tokenizer, host.name)
    return same

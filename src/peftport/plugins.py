"""What other packages add to peftport: found by the entry points of whatever is installed, and so
in every process, workers on other machines included.

A package says in its `pyproject.toml`

    [project.entry-points."peftport.techniques"]
    shift = "its_module:Shift"

and "shift" is a technique wherever the package is installed. Groups are `peftport.techniques`,
`peftport.methods`, `peftport.kinds`, `peftport.metrics` and `peftport.executors`.
"""

from __future__ import annotations

import importlib
import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from peftport.errors import BadInput, PeftportError

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """One name that a package adds.

    place: "module:attribute". package: its name and version, for messages.
    """

    name: str
    place: str
    package: str

    def load(self, what: str, kind: str) -> Any:
        """Import what the name stands for.

        Args:
            what: it is, for messages: "technique".
            kind: "module:class" that it must be one of, a class or an instance.

        Raises:
            BadInput: it cannot be imported or is something else; the message names the package.
        """
        try:
            module, _, attribute = self.place.partition(":")
            found = getattr(importlib.import_module(module), attribute)
        except PeftportError:
            raise
        except Exception as error:  # whatever another package does when it is imported
            raise self._broken(what, f"{type(error).__name__}: {error}") from error
        module, _, attribute = kind.partition(":")
        wanted = getattr(importlib.import_module(module), attribute)
        if not (
            issubclass(found, wanted) if isinstance(found, type) else isinstance(found, wanted)
        ):
            raise self._broken(what, f"{self.place} is no {attribute} of peftport's")
        return found

    def _broken(self, what: str, why: str) -> BadInput:
        return BadInput(
            f"{what} {self.name!r} comes from the package {self.package}, which does not work: "
            f"{why.rstrip('.')}. Mend that package or remove it."
        )


@cache
def plugins(group: str) -> dict[str, Plugin]:
    """What installed packages add to a group, by name; nothing of it is imported.

    Raises:
        BadInput: two packages add the same name.
    """
    from importlib.metadata import entry_points

    found: dict[str, Plugin] = {}
    for entry in entry_points(group=group):
        package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "of no name"
        made = Plugin(entry.name, entry.value.partition("[")[0].replace(" ", ""), package)
        other = found.setdefault(entry.name, made)
        if other != made:
            raise BadInput(
                f"{entry.name!r} is in {group} twice, from the packages {other.package} and "
                f"{made.package}: remove one of them."
            )
    return found


@cache
def added(group: str, own: tuple[str, ...]) -> dict[str, Plugin]:
    """As `plugins`, without names that peftport has itself, which stay what they are: a notice says
    so once."""
    found = plugins(group)
    for name in found.keys() & set(own):
        _log.warning(
            "notice: the package %s adds %r to %s, which peftport has itself; it is not used",
            *(found[name].package, name, group),
        )
    return {name: plugin for name, plugin in found.items() if name not in own}

"""Things found by name: one line registers a technique, a port method, a preset; nothing is
imported before it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from peftport.errors import BadInput
from peftport.plugins import Plugin, added


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def imported(place: str) -> Any:
    """Import what stands at a place, "package.module:attribute"."""
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


class Registry:
    """Names with the place ("module:attribute") where each is defined, and those that other
    packages add (`peftport.plugins`).

    Args:
        what: what the names are, for messages: "technique".
        places: name -> "package.module:attribute", imported at the first `get`.
        group: of the entry points by which other packages add names; "" where they cannot.
        kind: "module:class" of what they may add.
    """

    def __init__(
        self, what: str, places: Mapping[str, str], group: str = "", kind: str = ""
    ) -> None:
        self.what = what
        self._places = dict(places)
        self._group, self._kind = group, kind
        self._own = tuple(places)

    def __iter__(self) -> Iterator[str]:
        return iter([*self._places, *(name for name in self._added() if name not in self._places)])

    def __contains__(self, name: object) -> bool:
        # Installed packages are looked through only for what is not peftport's own.
        return name in self._places or name in self._added()

    def add(self, name: str, place: str) -> None:
        """Register `name` in this process. What other processes are to find, workers among them,
        is added by entry points."""
        self._places[name] = place

    def remove(self, name: str) -> None:
        """Take back what `add` registered in this process."""
        del self._places[name]

    def place(self, name: str) -> str:
        """Where `name` is defined, "module:attribute"; BadInput when it is not known."""
        name = self.require(name)
        return self._places[name] if name in self._places else self._added()[name].place

    def require(self, name: str) -> str:
        """Return `name`, or raise BadInput that lists what is known."""
        if name not in self:
            raise BadInput(
                f"unknown {self.what} {name!r}.{did_you_mean(name, self)} Known: {', '.join(self)}."
            )
        return name

    def get(self, name: str) -> Any:
        """Import and return what `name` stands for.

        Raises:
            BadInput: the name is not known, or the package that adds it does not work.
        """
        if self.require(name) not in self._places:
            return self._added()[name].load(self.what, self._kind)
        return imported(self._places[name])

    def _added(self) -> dict[str, Plugin]:
        return added(self._group, self._own) if self._group else {}

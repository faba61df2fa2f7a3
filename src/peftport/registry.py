"""Things found by name: one line registers a technique, a port method, a preset; nothing is
imported before it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from peftport.errors import BadInput


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the known word nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


class Registry:
    """Names with the place ("module:attribute") where each is defined.

    Args:
        what: what the names are, for messages: "technique".
        places: name -> "package.module:attribute", imported at the first `get`.
    """

    def __init__(self, what: str, places: Mapping[str, str]) -> None:
        self.what = what
        self._places = dict(places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def add(self, name: str, place: str) -> None:
        """Register `name`; the way in which another package adds a technique or a method."""
        self._places[name] = place

    def place(self, name: str) -> str:
        """Where `name` is defined, "module:attribute"; BadInput when it is not known."""
        return self._places[self.require(name)]

    def require(self, name: str) -> str:
        """Return `name`, or raise BadInput that lists what is known."""
        if name not in self._places:
            raise BadInput(
                f"unknown {self.what} {name!r}.{did_you_mean(name, self._places)} "
                f"Known: {', '.join(self._places)}."
            )
        return name

    def get(self, name: str) -> Any:
        """Import and return what `name` stands for; BadInput when the name is not known."""
        module, attribute = self.place(name).split(":")
        return getattr(importlib.import_module(module), attribute)

"""Places of a host by the paths that other libraries call them by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from peftport.hosts.towers import without_towers

_BARE = ("model", "transformer")
"""What classes of transformers call the bare model in them, whatever its family calls it."""


class Places:
    """Finds peftport's name of a place by a module path.

    The same layer is `bert.encoder.layer.0...` in a model with a head and `encoder.layer.0...` in
    one without, so a path may have one part more in front than the host's, or some parts less as
    long as it still means one place. Nor does it matter whether the language model is that of a
    larger one, here or there.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        """Args: place -> path in the host."""
        self._whole = {without_towers(path): place for place, path in paths.items()}
        endings = [(e, place) for path, place in self._whole.items() for e in _endings(path)]
        counts = Counter(ending for ending, _ in endings)
        self._endings = {ending: place for ending, place in endings if counts[ending] == 1}

    def find(self, path: str) -> str | None:
        """The place at `path`; None when there is none, or more than one."""
        path = without_towers(path)
        first, _, rest = path.partition(".")
        found = self._whole.get(path) or self._whole.get(rest) or self._endings.get(path)
        return found or (self._endings.get(rest) if first in _BARE else None)


def _endings(path: str) -> list[str]:
    """What is left of a path without its first parts, itself excluded."""
    parts = path.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]

"""Ranks and scales of single places, which peft lets a configuration give by regular expressions.

An expression from a stranger may run for ever: each has a limit of time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import regex

from peftport.modules.formats.base import Folder

_SECONDS = 0.2
_LONGEST = 2000
"""Characters of an expression: whoever lists every layer by name writes long ones."""


def own_alpha(folder: Folder, paths: Sequence[str], usual: float) -> float:
    """A place's own alpha, by the first expression that matches one of its paths, else the usual
    one.

    Args:
        paths: what the place is called, in the model that the module was made on and in the host.

    Raises:
        BadInput: an expression that matches nothing in time or is none, or a value that is no
            positive number.
    """
    for pattern, value in _patterns(folder, "alpha_pattern").items():
        try:
            found = any(_matches(pattern, path) for path in paths)
        except (regex.error, TimeoutError, RecursionError, OverflowError) as error:
            reason = str(error) or "it takes too long"
            folder.refuse(
                "alpha_pattern",
                f"the pattern {pattern[:60]!r} cannot be matched ({reason}); "
                "write the names of the layers out",
            )
        if found:
            return _positive(folder, f"alpha_pattern.{pattern}", value, (int, float))
    return usual


def own_rank(folder: Folder, paths: Sequence[str], usual: int, found: int) -> int:
    """The rank that a place should have: its own, by the first expression that matches one of its
    paths, else the usual one; what its tensors have (`found`) where an expression cannot be
    matched."""
    for pattern, value in _patterns(folder, "rank_pattern").items():
        try:
            matched = any(_matches(pattern, path) for path in paths)
        except (regex.error, TimeoutError, RecursionError, OverflowError):
            return found
        if matched:
            return _positive(folder, f"rank_pattern.{pattern}", value, (int,))
    return usual


def _matches(pattern: str, path: str) -> bool:
    """As peft matches: at the end of a path, from the beginning of one of its parts."""
    if len(pattern) > _LONGEST:
        raise OverflowError("it is too long")
    return bool(regex.match(rf"(.*\.)?({pattern})$", path, timeout=_SECONDS))


def _patterns(folder: Folder, key: str) -> Mapping[str, Any]:
    patterns = folder.config.get(key) or {}
    if not isinstance(patterns, dict):
        folder.refuse(key, f"{patterns!r}, expected an object")
    return patterns


def _positive(folder: Folder, key: str, value: Any, kinds: tuple[type, ...]) -> Any:
    number = isinstance(value, kinds) and not isinstance(value, bool)
    if not number or not 0 < value < 1e9:
        folder.refuse(key, f"{value!r}, expected a positive number")
    return value

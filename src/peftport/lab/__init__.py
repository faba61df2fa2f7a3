"""The lab: small T5-shaped hosts that come with the package, for studies without a download.

`language` generates their text, `tasks` are of it too, `recipes` makes the hosts again from it; the
weights are in `assets`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import read_json
from peftport.hosts.genealogy import RECORD
from peftport.registry import did_you_mean

__all__ = ["NAMES", "RECORD", "about", "describe", "folder"]

_ASSETS = Path(__file__).parent / "assets"


@dataclass(frozen=True)
class _Entry:
    """What is said of a lab host; `origin` is the host that it continues."""

    about: str
    origin: str | None = None


_ENTRIES = {
    "small": _Entry("T5-shaped, pretrained on generated reviews of five domains"),
    "small-tuned": _Entry("small, continued on two other domains and on other tasks", "small"),
    "small-twin": _Entry("small's shape, pretrained independently: other seed and other text"),
    "large": _Entry("wider and deeper than small, pretrained independently of it"),
    "large-tuned": _Entry("large, continued on two other domains and on other tasks", "large"),
}
NAMES: tuple[str, ...] = tuple(_ENTRIES)
"""The lab's hosts, without the `lab:` before their names."""


def folder(name: str) -> Path:
    """The folder of a lab host, in transformers' files; BadInput for an unknown name."""
    return _ASSETS / _require(name)


def about(name: str) -> str:
    """One line that says what a lab host is; BadInput for an unknown name."""
    return _ENTRIES[_require(name)].about


def describe(name: str) -> dict[str, Any]:
    """What a lab host is, the host that it continues, and the record of how it was made."""
    entry = _ENTRIES[_require(name)]
    record: dict[str, Any] = read_json(folder(name) / RECORD)
    origin = f"lab:{entry.origin}" if entry.origin else None
    return {"name": f"lab:{name}", "about": entry.about, "continues": origin, **record}


def _require(name: str) -> str:
    if name not in _ENTRIES:
        raise BadInput(
            f"unknown lab host {name!r}.{did_you_mean(name, NAMES)} "
            f"Known: {', '.join(f'lab:{known}' for known in NAMES)}."
        )
    return name

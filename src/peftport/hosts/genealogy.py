"""Which hosts continue which, how two of them are related, and how much pretraining lies between.

This is known from the records that hosts keep of their pretraining (`peftport_host.json`), from the
fingerprints, of which the part that is of weights counts here, from the weights themselves, and
from what somebody states. Hosts are named by fingerprints in records and by labels in studies;
which, does not matter here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from peftport.errors import BadInput
from peftport.files import is_file, read_json
from peftport.hosts.fingerprint import of_weights, weights_mark

RECORD = "peftport_host.json"
Relation = Literal["same", "continuation", "independent"]
_log = logging.getLogger(__name__)
_FACTS = {
    "same": "have the same weights",
    "different": "do not have the same weights",
    "continuation": "come from one pretraining, by their records or their weights",
    "independent": "were each made from scratch, by their records",
}
UNSTATED = "unstated"
"""What a relation is called that nobody states and no record tells."""


@dataclass(frozen=True)
class Genealogy:
    """What is known of where hosts come from.

    parents: host -> the host that it continues, or None where it was made from scratch. Of a host
        that is not in it nothing is known.
    added: host -> by how much it was pretrained further from its parent, in any one unit.
    """

    parents: Mapping[str, str | None]
    added: Mapping[str, float] = field(default_factory=dict)

    def line(self, host: str) -> tuple[str, ...]:
        """A host and those that it comes from, the nearest first; a circle is gone through once."""
        found = [host]
        while (parent := self.parents.get(found[-1])) and parent not in found:
            found.append(parent)
        return tuple(found)

    def ancestors(self, host: str) -> tuple[str, ...]:
        """The hosts that a host comes from, the nearest first."""
        return self.line(host)[1:]

    def relation(self, one: str, other: str) -> Relation | None:
        """How two hosts stand to each other, either way around; None where that is not known.

        "continuation" when they share pretrained weights, one being trained further from the other
        or both from a third; "independent" when each is known to come from a scratch of its own.
        """
        if one == other:
            return "same"
        lines = self.line(one), self.line(other)
        if set(lines[0]) & set(lines[1]):
            return "continuation"
        return "independent" if all(self._from_scratch(line[-1]) for line in lines) else None

    def direction(self, origin: str, receiver: str) -> Literal["onward", "back"]:
        """Whether the receiving host continues the originating one ("onward") or the reverse.

        Where neither is known to continue the other, onward is the order of the alphabet.
        """
        if origin in self.ancestors(receiver):
            return "onward"
        if receiver in self.ancestors(origin):
            return "back"
        return "onward" if origin <= receiver else "back"

    def amount(self, origin: str, receiver: str) -> float | None:
        """How much pretraining lies between a host and one that it comes from; 0 for a host and
        itself. None where the receiver does not come from the origin, or it is not known how far.
        """
        line = self.line(receiver)
        if origin not in line:
            return None
        steps = [self.added.get(host) for host in line[: line.index(origin)]]
        known = [step for step in steps if step is not None]
        return sum(known) if len(known) == len(steps) else None

    def _from_scratch(self, host: str) -> bool:
        return host in self.parents and self.parents[host] is None


def recorded(*folders: Path) -> Genealogy:
    """What hosts record of where they come from, by the fingerprints of their weights.

    It is followed up through those of their ancestors that are on this machine, which count only
    while their weights are the ones recorded.
    """
    parents: dict[str, str | None] = {}
    added: dict[str, float] = {}
    for each in folders:
        folder: Path | None = each
        while folder is not None and (mark := weights_mark(folder)) not in parents:
            record = record_of(folder)
            if "from" not in record:
                break
            parent = _Parent.of(record["from"])
            if parent is None and record["from"] is not None:
                break
            parents[mark] = parent.mark if parent else None
            if parent is not None and isinstance(record.get("steps"), int | float):
                added[mark] = record["steps"]
            folder = parent.folder() if parent else None
    return Genealogy(parents, added)


def record_of(folder: Path) -> dict[str, Any]:
    """What a host's folder records of its pretraining; empty where that is nothing."""
    path = folder / RECORD
    found = read_json(path) if is_file(path) else None
    return found if isinstance(found, dict) else {}


def relation_of(origin: Path | None, mark: str, receiver: Path) -> Relation | None:
    """How two hosts stand to each other by their records, and where those say nothing, by their
    weights: hosts that are near (`kinship`), as a host and its rounding are, share them.

    Args:
        origin: the folder of one of them, where it is at hand.
        mark: its fingerprint; empty where it is not known, and then that of the folder counts.
    """
    mark = of_weights(mark) or (weights_mark(origin) if origin else "")
    known = recorded(*([origin] if origin else []), receiver)
    found = known.relation(mark, weights_mark(receiver))
    if found is None and origin is not None and weights_mark(origin) == mark:
        from peftport.hosts.kinship import near

        return "continuation" if near(origin, receiver) else None
    return found


def settled(stated: Relation | None, found: Relation | None, what: str) -> Relation | None:
    """A relation that is stated, else the one that was found. A notice says where a statement goes
    before records or near weights that say otherwise.

    Args:
        what: whose relation is stated, for messages.

    Raises:
        BadInput: the weights say that the two hosts are the same and the statement that they are
            not, or the reverse.
    """
    if stated is None or found is None or stated == found:
        return stated or found
    fact = _FACTS["different" if stated == "same" else found]
    told = f"{what} is called {stated!r}, but both hosts {fact}."
    if "same" in (stated, found):
        raise BadInput(told)
    _log.warning("notice: %s It is taken as it is called", told)
    return stated


@dataclass(frozen=True)
class _Parent:
    """The host that a record names as the one it continues."""

    name: str
    mark: str

    @classmethod
    def of(cls, said: Any) -> _Parent | None:
        mark = said.get("fingerprint") if isinstance(said, dict) else None
        if not isinstance(mark, str) or not mark:
            return None
        return cls(str(said.get("name")), of_weights(mark))

    def folder(self) -> Path | None:
        """Where it is, if it is on this machine with the weights that were recorded."""
        found = folder_at_hand(self.name)
        try:
            return found if found is not None and weights_mark(found) == self.mark else None
        except BadInput:
            return None


def folder_at_hand(name: str) -> Path | None:
    """The folder of a host of the lab or on this machine; None for any other, which would have to
    be fetched."""
    from peftport.hosts.source import find_host

    try:
        return find_host(name).at_hand()
    except BadInput:
        return None

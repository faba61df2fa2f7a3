"""Which host continues which, and by how much further pretraining."""

from __future__ import annotations

from collections.abc import Mapping

from peftport.reports.results import Cell, Results


def parents(results: Results) -> Mapping[str, str]:
    """Host -> the host that it continues, where that is known."""
    hosts = results.facts.get("hosts") or ()
    return {host["name"]: host["parent"] for host in hosts if host.get("parent")}


def direction(cell: Cell, parents: Mapping[str, str]) -> str:
    """Whether the receiving host continues the originating one ("onward") or the reverse ("back").

    Where neither is known to continue the other, onward is the order of the alphabet.
    """
    if cell.origin in _ancestors(cell.receiver, parents):
        return "onward"
    if cell.receiver in _ancestors(cell.origin, parents):
        return "back"
    return "onward" if cell.origin <= cell.receiver else "back"


def amount(results: Results, cell: Cell) -> float | None:
    """How much pretraining lies between the originating host and the receiving one.

    In what the hosts' facts call `continued`: steps, or a unit of the study's own. 0 for a host
    and itself; None where the receiving host does not continue the originating one, or it is not
    known by how much.
    """
    above = parents(results)
    if cell.origin not in {cell.receiver, *_ancestors(cell.receiver, above)}:
        return None
    added = {host["name"]: host.get("continued") for host in results.facts.get("hosts") or ()}
    total, host = 0.0, cell.receiver
    while host != cell.origin:
        found = added.get(host)
        if found is None:
            return None
        total += float(found)
        host = above[host]
    return total


def _ancestors(host: str, parents: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    while (host := parents.get(host, "")) and host not in found:
        found.add(host)
    return found

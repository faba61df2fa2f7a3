"""Which host of a study continues which, and by how much further pretraining."""

from __future__ import annotations

from collections.abc import Mapping

from peftport.hosts.genealogy import Genealogy
from peftport.reports.results import Cell, Results


def genealogy(results: Results) -> Genealogy:
    """What a study knows of where its hosts come from, by their labels; `added` is in what the
    hosts' facts call `continued`: steps, or a unit of the study's own."""
    hosts = results.facts.get("hosts") or ()
    return Genealogy(
        {host["name"]: host["parent"] for host in hosts if host.get("parent")},
        {h["name"]: float(h["continued"]) for h in hosts if h.get("continued") is not None},
    )


def parents(results: Results) -> Mapping[str, str | None]:
    """Host -> the host that it continues, where that is known."""
    return genealogy(results).parents


def direction(cell: Cell, parents: Mapping[str, str | None]) -> str:
    """Whether the receiving host continues the originating one; see `Genealogy.direction`."""
    return Genealogy(parents).direction(cell.origin, cell.receiver)


def amount(results: Results, cell: Cell) -> float | None:
    """How much pretraining lies between the originating host and the receiving one; see
    `Genealogy.amount`."""
    return genealogy(results).amount(cell.origin, cell.receiver)

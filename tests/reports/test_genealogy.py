"""Which host continues which, and how much pretraining lies between them."""

from __future__ import annotations

import pytest

from peftport.reports.genealogy import amount, direction, parents
from peftport.reports.results import Cell, Results
from synthetic_studies import Synthetic

HOSTS = [
    {"name": "base"},
    {"name": "between", "parent": "base", "continued": 100},
    {"name": "again", "parent": "between", "continued": 50.0},
    {"name": "vague", "parent": "base"},
]


def results() -> Results:
    return Synthetic(facts={"hosts": HOSTS}).results()


def cell(origin: str, receiver: str) -> Cell:
    return Cell("lora", origin, receiver, "continuation", "films", "films", "copy")


@pytest.mark.parametrize(
    ("origin", "receiver", "expected"),
    [
        ("base", "again", "onward"),
        ("again", "base", "back"),
        ("a", "b", "onward"),
        ("b", "a", "back"),
    ],
)
def test_directions_follow_what_continues_what_then_the_alphabet(
    origin: str, receiver: str, expected: str
) -> None:
    assert direction(cell(origin, receiver), parents(results())) == expected


@pytest.mark.parametrize(
    ("origin", "receiver", "expected"),
    [
        ("base", "base", 0),
        ("base", "between", 100),
        ("base", "again", 150),
        ("between", "again", 50),
        ("again", "base", None),
        ("base", "vague", None),
        ("base", "unknown", None),
    ],
)
def test_amounts_add_up_along_the_way(origin: str, receiver: str, expected: float | None) -> None:
    assert amount(results(), cell(origin, receiver)) == expected


def test_a_circle_of_hosts_ends() -> None:
    hosts = [{"name": "a", "parent": "b"}, {"name": "b", "parent": "a"}]
    found = Synthetic(facts={"hosts": hosts}).results()
    assert direction(cell("a", "x"), parents(found)) == "onward"
    assert amount(found, cell("x", "a")) is None

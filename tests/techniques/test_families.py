"""The page of families is what the command prints, and says what the techniques do."""

from __future__ import annotations

from pathlib import Path

import pytest

from more_families import MORE
from peftport.errors import BadInput
from peftport.hosts import families
from peftport.hosts.source import geometry_by_name
from peftport.techniques import technique
from peftport.techniques.families import family_rows, page

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def test_the_page_is_what_the_command_prints(call):
    code, printed, _ = call("hosts", "families", "--markdown")
    assert code == 0
    assert printed == PAGE.read_text() == page(family_rows()) + "\n"


def test_the_table_has_every_family_and_at_least_twenty():
    assert [row["family"] for row in family_rows()] == list(families())
    assert len(family_rows()) >= 20


@pytest.mark.parametrize("family", MORE)
def test_what_the_table_says_of_a_technique_is_what_it_does(family, tiny_host):
    geometry = geometry_by_name(str(tiny_host(family)))
    (row,) = [row for row in family_rows() if family in row["model_types"]]
    for name in ("lora", "adapter", "compacter", "prefix"):
        made = technique(name)
        options = {"reduction": 4} if name in ("adapter", "compacter") else {}
        try:
            made.shapes(made.configure(options), geometry)
            possible = True
        except BadInput:
            possible = False
        assert possible == (name not in row["refused"])

"""The documents of the site: what a strict build does not look at."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

import peftport as pp

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
MADE_BY_COMMANDS = {"families.md"}
PAGES = [
    page
    for page in sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"])
    if page.name not in MADE_BY_COMMANDS
]


def test_every_public_name_is_in_the_reference_of_the_api():
    text = (DOCS / "reference" / "api.md").read_text()
    assert set(pp.__all__) <= set(re.findall(r"^::: peftport\..*\.(\w+)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def made_by_command():
    return str(pp.list_formats()).splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_table_that_is_written_by_hand_is_wider_than_a_hundred_columns(page, made_by_command):
    rows = [line for line in page.read_text().splitlines() if line.startswith("|")]
    assert [row for row in rows if len(row) > 99 and row not in made_by_command] == []


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_was_executed_without_errors_and_names_no_place_of_a_machine(notebook):
    text = notebook.read_text()
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"execute_result", "stream"}
    assert {output["name"] for output in outputs if "name" in output} <= {"stdout"}
    assert re.findall(r"/(?:home|root|work|tmp|Users)/\w+", text) == []
    assert len(text) < 50_000


def test_examples_of_docstrings_are_shown_as_code():
    griffe = pytest.importorskip("griffe", reason="the site's packages are not installed")
    hook = runpy.run_path(str(DOCS / "hooks" / "examples.py"))["Examples"]()
    text = "What it does.\n\n>>> import peftport as pp\n>>> pp.one()\n1\n\nNot an example."
    made = griffe.Function("one", docstring=griffe.Docstring(text))
    hook.on_object(obj=made)
    assert made.docstring.value == (
        "What it does.\n\n```pycon\n>>> import peftport as pp\n>>> pp.one()\n1\n```\n\n"
        "Not an example."
    )

"""docs/formats.md says what the code says."""

from __future__ import annotations

import json
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs" / "formats.md"


def test_the_tables_of_the_documents_are_those_of_the_command(call):
    code, text, error = call("formats")
    assert code == 0, error
    assert text.strip() in DOCS.read_text()


def test_the_tables_are_given_as_json(call):
    code, text, _ = call("formats", "--json")
    found = json.loads(text)
    assert (code, set(found)) == (0, {"techniques", "families", "keys"})
    lora = next(row for row in found["techniques"] if row["technique"] == "lora")
    assert lora["peft"] == "read, written"

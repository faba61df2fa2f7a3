"""What docs/porting.md says of commands and methods."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from peftport.porting import METHODS, port_method

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "porting.md").read_text()
USAGE = TEXT.split("```")[1]


@pytest.mark.parametrize("verb", ["check", "port", "test", "assess"])
def test_every_option_in_it_is_one(verb, call):
    told = USAGE[USAGE.index(f"peftport {verb}") :].split("\npeftport")[0]
    code, text, _ = call(verb, "--help")
    assert code == 0
    for option in re.findall(r"--[\w-]+", told):
        assert re.search(rf"^ +{option}\b", text, re.MULTILINE), option


def test_every_method_is_told():
    told = set(re.findall(r"^\| `(\w+)", TEXT, re.MULTILINE))
    assert told == {name for name in METHODS if not port_method(name).control}

"""`peftport methods`: what each method is for, needs, cannot do, and its options."""

from __future__ import annotations

import json

from peftport.porting import METHODS
from port_methods import soft

__all__ = ["soft"]


def test_every_method_is_told_with_its_options(call, soft):
    code, text, _ = call("methods", "--json")
    assert code == 0
    found = {each["name"]: each for each in json.loads(text)["methods"]}
    assert list(found) == list(METHODS)
    assert found["soft"]["techniques"] == ["lora"]
    assert found["soft"]["needs"] == ["texts", "weights"]
    assert found["soft"]["options"][0] == {
        "name": "scale",
        "type": "number",
        "default": 0.5,
        "about": "What every tensor is multiplied with.",
    }
    for each in found.values():
        assert each["about"]
        assert each["control"] or (each["limits"] and each["source"]), each["name"]


def test_a_reader_sees_them_in_lines(call, soft):
    code, text, _ = call("methods")
    assert code == 0
    assert "soft         Every tensor times a number, for tests.\n" in text
    assert "needs: both hosts, unlabelled texts" in text
    assert "--set scale (number, 0.5 if not given): What every tensor is multiplied with." in text
    assert "--set layers (one of proportional, every, cka, proportional if not given)" in text
    assert max(map(len, text.splitlines())) <= 100

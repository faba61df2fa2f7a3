"""Names lead to what they stand for at their first use, and a wrong one to the nearest."""

from __future__ import annotations

import sys

import pytest

from peftport.errors import BadInput
from peftport.registry import Registry, did_you_mean


@pytest.fixture
def colours() -> Registry:
    return Registry("colour", {"red": "wave:Wave_read", "green": "no.such.module:Thing"})


def test_a_name_gives_the_thing_itself(colours):
    import wave

    assert colours.get("red") is wave.Wave_read


def test_nothing_is_imported_before_it_is_asked_for(colours):
    assert list(colours) == ["red", "green"]
    assert "green" in colours
    assert "no" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        colours.get("green")


@pytest.mark.parametrize("ask", ["get", "require"])
def test_an_unknown_name_is_bad_input_with_the_nearest_and_all_known(colours, ask):
    with pytest.raises(BadInput) as error:
        getattr(colours, ask)("gren")
    assert str(error.value) == "unknown colour 'gren'. Did you mean 'green'? Known: red, green."


def test_a_name_like_no_other_is_given_no_suggestion(colours):
    with pytest.raises(BadInput, match=r"unknown colour 'xyz'\. Known: red, green"):
        colours.require("xyz")
    assert did_you_mean("xyz", ["red"]) == ""


def test_another_package_can_add_a_name(colours):
    assert "blue" not in colours
    colours.add("blue", "fractions:Fraction")
    from fractions import Fraction

    assert colours.get("blue") is Fraction
    assert list(colours) == ["red", "green", "blue"]

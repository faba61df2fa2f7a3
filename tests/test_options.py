"""Options: read by name and type, described for a list, refused by name."""

from __future__ import annotations

from typing import Literal

import pytest
from pydantic import Field

from peftport.errors import BadInput
from peftport.options import Options, build_options, described


class Some(Options):
    """Options of a test."""

    scale: float = Field(0.5, gt=0, description="How much.")
    layers: Literal["every", "cka"] = "every"
    most: int | None = None


def test_options_are_built_with_their_defaults():
    assert build_options(Some, {"scale": 2}, "x") == Some(scale=2.0)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            Some,
            {"scal": 1},
            "method x: option 'scal': no such option. Did you mean 'scale'.* Known: scale, ",
        ),
        (Some, {"scale": 0}, "method x: option 'scale': .*greater than 0"),
        (Some, {"layers": "all"}, "method x: option 'layers': .*'every' or 'cka'"),
        (Options, {"scale": 1}, "method x: option 'scale': .*It takes none"),
    ],
)
def test_a_wrong_option_is_refused_by_its_name(kind, given, message):
    with pytest.raises(BadInput, match=message):
        build_options(kind, given, "method x")


def test_options_are_described():
    assert described(Options) == []
    assert described(Some) == [
        {"name": "scale", "type": "number", "default": 0.5, "about": "How much."},
        {"name": "layers", "type": "one of every, cka", "default": "every", "about": ""},
        {"name": "most", "type": "integer or null", "default": None, "about": ""},
    ]

"""Places are found by paths that begin elsewhere, and never guessed."""

from __future__ import annotations

import pytest

from peftport.modules.formats.places import Places

PLACES = Places(
    {
        "encoder.0.self.q": "encoder.layer.0.attention.q",
        "encoder.1.self.q": "encoder.layer.1.attention.q",
        "encoder.0.ffn.up": "encoder.layer.0.up",
    }
)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("encoder.layer.1.attention.q", "encoder.1.self.q"),
        ("bert.encoder.layer.1.attention.q", "encoder.1.self.q"),
        ("layer.1.attention.q", "encoder.1.self.q"),
        ("1.attention.q", "encoder.1.self.q"),
        ("up", "encoder.0.ffn.up"),
        ("attention.q", None),
        ("q", None),
        ("a.bert.encoder.layer.1.attention.q", None),
        ("xencoder.layer.1.attention.q", None),
        ("encoder.layer.1.attention.qq", None),
        ("encoder.layer.1.attention", None),
        ("", None),
    ],
)
def test_a_path_is_found_where_it_means_one_place(path, place):
    assert PLACES.find(path) == place

"""Paths of a language model that stands in a larger one, as those of images and text have it.

The same layer is `model.layers.0` by itself, `model.language_model.layers.0` in the loaded model of
images and text, and `language_model.model.layers.0` in its files: it is one layer.
"""

from __future__ import annotations

TOWERS = frozenset({"language_model", "text_model"})
"""What models of several modalities call the language model in them."""


def without_towers(path: str) -> str:
    """A path within the language model, wherever that stands."""
    return ".".join(part for part in path.split(".") if part not in TOWERS)

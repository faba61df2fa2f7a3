"""The notebook on SmolLM2 runs where the model is at hand, and is skipped elsewhere."""

from __future__ import annotations

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a model that is not here."""
    if "PEFTPORT_SMOLLM2" not in os.environ:
        reason = "SmolLM2 is not at hand: name its folder with PEFTPORT_SMOLLM2"
        for item in items:
            if item.path.name == "smollm2.ipynb":
                item.add_marker(pytest.mark.skip(reason=reason))

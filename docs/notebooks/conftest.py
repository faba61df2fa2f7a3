"""Notebooks on real language models are skipped where what they need is not at hand."""

from __future__ import annotations

import os

import pytest

NEEDED = {
    "smollm2.ipynb": ("PEFTPORT_SMOLLM2",),
    "smollm2-to-gemma3.ipynb": tuple(
        f"PEFTPORT_{name}" for name in ("SMOLLM2", "GEMMA3", "SST2", "LORA")
    ),
}
"""Notebook -> variables that name folders."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a model that is not here."""
    for item in items:
        missing = [name for name in NEEDED.get(item.path.name, ()) if name not in os.environ]
        if missing:
            item.add_marker(pytest.mark.skip(reason=f"not at hand: {', '.join(missing)}"))

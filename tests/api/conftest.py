"""What the tests of the Python interface share: a folder with a module for the lab's hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

import peftport as pp


@pytest.fixture(scope="session")
def lab_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA module of the lab's small host, trained for a few steps."""
    out = tmp_path_factory.mktemp("lab") / "films"
    pp.train("lab:small", "lab:films", "lora", out=out, steps=3, options={"r": 4}, limit_train=64)
    return out

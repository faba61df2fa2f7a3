"""What the tests of commands share: a module of another library."""

from __future__ import annotations

from pathlib import Path

import pytest

from modules.formats.modules import made
from peftport.modules import formats
from tiny_runs import host_in


@pytest.fixture
def from_peft(tiny_host, tmp_path) -> Path:
    """A LoRA module as peft keeps it, which knows nothing of its task."""
    module = made(host_in(tiny_host("llama")), "lora", classes=0)
    formats.save(module, tmp_path / "theirs", "peft")
    (tmp_path / "theirs" / "peftport.json").unlink()
    (tmp_path / "theirs" / "README.md").unlink()
    return tmp_path / "theirs"

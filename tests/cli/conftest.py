"""What the tests of commands share: a way to call them, and a module of another library."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from modules.formats.modules import made
from peftport.cli import main
from peftport.modules import formats
from tiny_runs import host_in


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that calls peftport and gives its exit code, its output and its errors."""
    logger = logging.getLogger("peftport")
    handlers, level = list(logger.handlers), logger.level

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["peftport", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    yield run
    logger.handlers[:], logger.level = handlers, level


@pytest.fixture
def from_peft(tiny_host, tmp_path) -> Path:
    """A LoRA module as peft keeps it, which knows nothing of its task."""
    module = made(host_in(tiny_host("llama")), "lora", classes=0)
    formats.save(module, tmp_path / "theirs", "peft")
    (tmp_path / "theirs" / "peftport.json").unlink()
    (tmp_path / "theirs" / "README.md").unlink()
    return tmp_path / "theirs"

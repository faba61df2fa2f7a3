"""What the tests share: tiny hosts of every family, a tiny task, and the real data when at hand."""

from __future__ import annotations

import logging
import os
import sys
import tempfile

# Nothing outside the tests' own folders is read or written.
os.environ["PEFTPORT_CACHE"] = tempfile.mkdtemp(prefix="peftport-tests-")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# One thread everywhere, also in the commands that tests start: results do not depend on the
# machine's cores, and tests that run side by side do not fight over them.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

from collections.abc import Callable
from functools import cache
from pathlib import Path

import hypothesis
import pytest

from peftport.memory import collect_rarely
from tiny_words import write_opinions

# Next to nothing of what torch and every test file import is ever garbage.
collect_rarely()
# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("peftport", deadline=None)
hypothesis.settings.load_profile("peftport")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first: one that is begun last keeps the other workers waiting."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def tiny_host(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a family's name to the folder of a tiny host; made once a session."""

    @cache
    def host(family: str) -> Path:
        from tiny_hosts import write_host

        return write_host(family, tmp_path_factory.mktemp("hosts") / family)

    return host


@pytest.fixture(scope="session")
def tiny_continuation(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a family's name to the tiny host with a little noise on its weights."""

    @cache
    def continuation(family: str) -> Path:
        from tiny_hosts import write_host

        return write_host(family, tmp_path_factory.mktemp("continuations") / family, noise=0.05)

    return continuation


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of train, validation and test Parquet files with the columns text and label."""
    rows = {"train": 96, "validation": 32, "test": 48}
    return write_opinions(tmp_path_factory.mktemp("tasks") / "opinions", rows)


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that calls peftport and gives its exit code, its output and its errors."""
    from peftport.cli import main

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

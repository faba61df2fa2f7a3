"""Where the real hosts and data sets are, which the repository does not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared() -> Path | None:
    """The folder of real hosts and data sets: PEFTPORT_SHARED, or `shared` beside the checkout."""
    named = os.environ.get("PEFTPORT_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if folder.is_dir() else None


def require_shared() -> Path:
    """Return the shared folder; without it the test is skipped, and fails where CI is set."""
    folder = shared()
    if folder is None:
        reason = "real hosts and data are not at hand: set PEFTPORT_SHARED to their folder"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder

"""Where the real hosts and data sets are, which the repository does not hold."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_CHECKOUT = Path(__file__).resolve().parents[1]


def shared() -> Path | None:
    """The folder of real hosts and data sets: PEFTPORT_SHARED, or `shared` beside the checkout."""
    named = os.environ.get("PEFTPORT_SHARED")
    folder = Path(named) if named else _CHECKOUT.parent / "shared"
    return folder if folder.is_dir() else None


def require_shared() -> Path:
    """Return the shared folder; without it the test is skipped, and fails where CI is set."""
    reason = "real hosts and data are not at hand: set PEFTPORT_SHARED to their folder"
    return _required(shared(), reason)


def smollm2() -> Path | None:
    """SmolLM2-135M: PEFTPORT_SMOLLM2, a GGUF file or a folder, or what `make smollm2` got."""
    named = os.environ.get("PEFTPORT_SMOLLM2")
    file = Path(named) if named else _CHECKOUT / ".cache" / "smollm2.gguf"
    return file if file.exists() else None


def require_smollm2() -> Path:
    """Return that host; without it the test is skipped, and fails where CI is set."""
    return _required(smollm2(), "SmolLM2 is not at hand: get it with `make smollm2` (93 MB)")


def _required(found: Path | None, reason: str) -> Path:
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found

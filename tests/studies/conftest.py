"""What tests of whole studies share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from study_nursery import Nursery


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Processes in which studies are run, which may be killed."""
    with Nursery() as made:
        yield made

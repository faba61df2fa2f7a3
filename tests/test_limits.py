"""Programs of strangers end, and nothing is left of their limits."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from peftport.limits import TooMuch, limited

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")


def limit() -> tuple[int, int]:
    return resource.getrlimit(resource.RLIMIT_AS)


def test_what_never_ends_is_stopped():
    before, begun = limit(), time.monotonic()
    with pytest.raises(TooMuch, match=r"more than 0\.2 seconds"), limited(0.2, 1 << 30):
        while True:
            pass
    assert time.monotonic() - begun < 10
    assert limit() == before


@needs_proc
def test_what_takes_too_much_memory_is_stopped():
    before = limit()
    with pytest.raises(MemoryError), limited(60, 1 << 28):
        bytearray(1 << 30)
    assert limit() == before
    bytearray(1 << 30)


def test_what_ends_in_time_is_left_alone_and_nothing_is_thrown_afterwards():
    before = limit()
    for _ in range(20):
        with limited(0.01, 1 << 30):
            found = sum(range(1000))
    time.sleep(0.05)
    assert found == 499500
    assert limit() == before


def test_errors_go_through():
    before = limit()
    with pytest.raises(ValueError, match="its own"), limited(60, 1 << 30):
        raise ValueError("its own")
    assert limit() == before

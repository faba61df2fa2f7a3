"""The clock that the seconds of work on a device are read off."""

from __future__ import annotations

import time

import torch


def now(device: torch.device | str) -> float:
    """Seconds from no fixed beginning, once the device has done all that it was asked for.

    A GPU still works when Python goes on: without waiting for it, what it does would count for
    whatever comes next, or for nothing.
    """
    if torch.device(device).type == "cuda" and torch.cuda.is_initialized():
        torch.cuda.synchronize(device)
    return time.perf_counter()


def worked() -> float:
    """CPU seconds that this process has worked, in which others' work is not counted."""
    return time.process_time()

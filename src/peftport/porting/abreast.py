"""Work on large tensors, two jobs at a time.

Much of a port are products and decompositions that are too small to keep all cores busy, and what
goes on between them keeps one busy at most. Two jobs that have half of the cores each leave less
of them idle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch

_Gift = TypeVar("_Gift")


def abreast(jobs: Sequence[Callable[[], _Gift]]) -> list[_Gift]:
    """Do jobs, begun in their order, and give what each one gives.

    Where torch has one thread they are done one after the other.
    """
    threads = torch.get_num_threads()
    if threads == 1 or len(jobs) < 2:
        return [job() for job in jobs]
    share = partial(torch.set_num_threads, threads // 2)
    try:
        with ThreadPoolExecutor(2, "abreast", initializer=share) as pool:
            return list(pool.map(lambda job: job(), jobs))
    finally:
        torch.set_num_threads(threads)  # what was set for the two holds for threads to come

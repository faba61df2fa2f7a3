"""What a pair of maps between wide spaces takes, fitted and applied to a LoRA of rank 8.

    python benchmarks/maps.py [--quick]

Samples are drawn, their variances falling as those of activations do. Gradients of one contrast
come with them. Each size is measured in a process of its own, in seconds of the processor.
"""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from measuring import arguments, as_table, save
from peftport.memory import keep_freed_memory, resident_peak
from peftport.porting.wide import fit_wide_input, fit_wide_output

SIZES = ((1_536, 2_048), (4_096, 4_096), (14_336, 14_336))
"""Of the originating and of the receiving space: feed-forward layers of SmolLM2 and Gemma-3, the
residual stream and feed-forward layers of an 8B."""
SAMPLES = (1_024, 2_048)
_RANK = 8


def main() -> None:
    asked = arguments(__doc__ or "")
    sizes, counts = (((400, 500),), (64,)) if asked.quick else (SIZES, SAMPLES)
    found = []
    for size, samples in product(sizes, counts):
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:
            found.append(apart.submit(measured, *size, samples).result())
    save(asked.out, "maps", {"maps": found}, table(found))


def measured(origin: int, receiver: int, samples: int) -> dict[str, Any]:
    """Seconds of either map, and bytes at the most, those of the samples among them."""
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)

    def drawn(width: int) -> Tensor:
        return torch.randn(samples, width, generator=generator) / torch.arange(1, width + 1).sqrt()

    before = resident_peak()
    there, here, slopes = drawn(origin), drawn(receiver), (drawn(origin), drawn(receiver))
    begun = time.process_time()
    fit_wide_input(there, here).linear(torch.randn(_RANK, origin, generator=generator))
    read = time.process_time()
    change = fit_wide_output(there, here, slopes, 0.3)
    change @ torch.randn(origin, _RANK, generator=generator)
    return {
        "origin": origin,
        "receiver": receiver,
        "samples": samples,
        "input_seconds": read - begun,
        "change_seconds": time.process_time() - read,
        "bytes": resident_peak() - before,
    }


def table(found: list[dict[str, Any]]) -> str:
    """A row a size."""
    columns = ("spaces", "samples", "map of inputs, s", "map of changes, s", "memory, GB")
    rows = [
        (
            f"{each['origin']:,} to {each['receiver']:,}",
            f"{each['samples']:,}",
            f"{each['input_seconds']:.1f}",
            f"{each['change_seconds']:.1f}",
            f"{each['bytes'] / 1e9:.1f}",
        )
        for each in found
    ]
    return as_table(columns, rows)


if __name__ == "__main__":
    main()

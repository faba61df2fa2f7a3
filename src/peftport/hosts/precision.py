"""In which precision a host's products are: as asked for, or the one that is faster here.

No torch is imported before something is measured.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Literal

Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
"""What can be asked for: "auto" is the faster one, as `chosen_precision` finds it."""

WIDE = 384
"""Width from which a host gains by bfloat16, where the machine multiplies it faster: narrower ones
spend more on casting their states than they save."""

_SURELY = 1.3
"""So many times as fast has bfloat16 to be, that a busy machine does not choose otherwise."""


@cache
def bf16_is_fast(device: str = "cpu") -> bool:
    """Whether `device` multiplies bfloat16 faster than single precision, by a measurement.

    It takes some hundredths of a second, where products in bfloat16 are emulated up to a second;
    a process measures once.
    """
    import torch
    from torch.nn import functional

    states = torch.ones(256, 1024, device=device)
    weight = torch.ones(1024, 1024, device=device)
    low = weight.to(torch.bfloat16)
    best = {"fp32": float("inf"), "bf16": float("inf")}
    for _ in range(3):
        for precision, factor in (("fp32", weight), ("bf16", low)):
            begun = time.perf_counter()
            functional.linear(states.to(factor.dtype), factor).float().sum().item()
            best[precision] = min(best[precision], time.perf_counter() - begun)
    return best["bf16"] * _SURELY < best["fp32"]


def chosen_precision(asked: PrecisionChoice, width: int, device: str | None = None) -> Precision:
    """The precision of the products with a host's weights: the one that is asked for; of "auto"
    bfloat16 where the host is wide enough to gain by it and the device multiplies it faster.

    Args:
        width: of the host's residual stream.
        device: the GPU when there is one, if not given.
    """
    if asked != "auto":
        return asked
    return "bf16" if width >= WIDE and bf16_is_fast(device or _usual_device()) else "fp32"


def _usual_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

"""In which precision a host's products are: as asked for, or the one that is faster here.

No torch is imported before the machine is asked.
"""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "bf16"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]
"""What can be asked for: "auto" is the faster one, as `chosen_precision` finds it."""

WIDE = 384
"""Width from which a host gains by bfloat16, where the machine multiplies it itself: narrower ones
spend more on casting their states than they save."""

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "sve_bf16")


def bf16_is_fast(device: str = "cpu") -> bool:
    """Whether `device` multiplies bfloat16 itself, which is about twice as fast.

    It is asked what it can, and not measured: beside other work a measurement says now this and
    now that, and the same command would give other figures.
    """
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in _INSTRUCTIONS)


def chosen_precision(asked: PrecisionChoice, width: int, device: str | None = None) -> Precision:
    """The precision of the products with a host's weights: the one that is asked for; of "auto"
    bfloat16 where the host is wide enough to gain by it and the device multiplies it itself.

    Args:
        width: of the host's residual stream.
        device: the GPU when there is one, if not given.
    """
    if asked != "auto":
        return asked
    return "bf16" if width >= WIDE and bf16_is_fast(device or usual_device()) else "fp32"


def remark_on(asked: PrecisionChoice, found: Precision, device: str | None = None) -> str | None:
    """What is worth knowing of products in `found`, in words that go on after "in bfloat16"; None
    where they are as anyone would have them.

    Args:
        asked: what was asked for.
        device: the GPU when there is one, if not given.
    """
    if found == "fp32":
        return None
    if asked == "auto":
        return "which is faster on this machine"
    if bf16_is_fast(device or usual_device()):
        return None
    return "for which this machine has no instructions: single precision is several times as fast"


def usual_device() -> str:
    """The GPU where there is one, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"

"""Whether all numbers of a module's tensors are finite, looked at a few at a time."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import opened
from peftport.hosts.fingerprint import read_header

_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip
_PART = 1 << 20
"""Bytes that are in memory together."""


def require_finite_tensor(path: Path, name: str, tensor: Tensor) -> None:
    """Raise BadInput for a tensor with numbers that float32, in which modules are used, has not.

    Args:
        path: the file that it is from. name: that it has there.
    """
    if tensor.dtype not in _TYPES.values():  # of eight bits, which torch does not compare
        tensor = tensor.float()
    low, high = tensor.aminmax()  # either is NaN where one number is
    if not bool(low.float().isfinite() & high.float().isfinite()):
        raise BadInput(
            f"{path}: tensor {name!r} has values that are not finite in single precision: the file "
            "is damaged, or its training went astray. Take an earlier one, or train it again."
        )


def require_finite_file(path: Path) -> None:
    """The same of every tensor of floats in a safetensors file, which is not held in memory."""
    header, start = read_header(path)
    with opened(path) as file:
        for name, entry in header.items():
            place, end = entry["data_offsets"]
            if (dtype := _TYPES.get(entry["dtype"])) is None:
                continue
            file.seek(start + place)
            while place < end and (part := bytearray(file.read(min(_PART, end - place)))):
                place += len(part)
                require_finite_tensor(path, name, torch.frombuffer(part, dtype=dtype))

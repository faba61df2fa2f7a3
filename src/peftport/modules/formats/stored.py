"""What a module's file says of itself besides its values: names, and the type they are kept in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.fingerprint import read_header
from peftport.modules.formats.weights import files_of, unpickled
from peftport.modules.record import Dtype

_TYPES: dict[str, Dtype] = {"F16": "float16", "BF16": "bfloat16"}
_TORCH: dict[torch.dtype, Dtype] = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


def names_in(path: Path) -> list[str]:
    """The names of the tensors in a file that `read_weights` has read."""
    files = files_of(path)
    if not files:
        return list(unpickled(path))
    return [name for file in files for name in read_header(file)[0]]


def require_matrix(path: Path, name: str, tensor: Tensor) -> None:
    """Raise BadInput for a tensor of a file, called by its name there, that has no rows and columns
    of which sizes could be told; what has more is compared with the sizes that are expected."""
    if tensor.ndim < 2:
        raise BadInput(
            f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, expected a matrix."
        )


def stored_type(path: Path, tensors: Mapping[str, Tensor]) -> Dtype:
    """The type that a module is written in again: that of its file, if it has one for all.

    Args:
        path: the file that was read. tensors: the module, in float32; where reading it took sums
            or products that the file's type does not hold, the module is one of float32.
    """
    found: set[Dtype]
    if files := files_of(path):
        headers = [read_header(file)[0] for file in files]
        found = {_TYPES.get(e["dtype"], "float32") for header in headers for e in header.values()}
    else:
        found = {_TORCH.get(tensor.dtype, "float32") for tensor in unpickled(path).values()}
    if len(found) != 1:
        return "float32"
    (dtype,) = found
    kept = getattr(torch, dtype)
    floats = [t for t in tensors.values() if t.is_floating_point() and not t.is_meta]
    exact = all(torch.equal(t, t.to(kept).to(t.dtype)) for t in floats)
    return dtype if exact else "float32"

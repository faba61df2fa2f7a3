"""Tensors in the files of other libraries: safetensors, and pickles by the weights-only loader."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import exists, is_file, read_json, require_regular
from peftport.modules.finite import require_finite_tensor
from peftport.modules.module import load_tensors, require_filled
from peftport.techniques.base import Parameters

INDEX = "model.safetensors.index.json"
BLOCK = 4096
"""Rows of a tensor that are in memory together where they are only compared."""
_log = logging.getLogger(__name__)


def read_weights(
    folder: Path, safe: str, pickled: str, *, pickles: bool, data: bool
) -> tuple[Path, Parameters]:
    """Read the tensors of a folder as float32, without `data` as meta tensors.

    Args:
        safe, pickled: names of the safetensors file and of the pickle that stands in for it.
        pickles: whether a pickle may be read.

    Returns:
        The file that was read, and its tensors.

    Raises:
        BadInput: there is no file, it may not or cannot be read, or a tensor is none of floats or
            not finite.
    """
    if exists(folder / safe):
        return folder / safe, load_tensors(folder / safe, data)
    if index := _index(folder, safe):
        return index, _sharded(index, data)
    path = folder / pickled
    if not exists(path):
        raise BadInput(f"{folder} has neither {safe} nor {pickled}: the module's tensors are gone.")
    if not pickles:
        raise BadInput(
            f"{path} is a pickle and --no-pickle is given; save the module again as {safe}, or "
            "leave the option out to read it by torch's weights-only loader."
        )
    _log.info("notice: %s is a pickle, read by torch's weights-only loader and nothing else", path)
    tensors = {name: _plain(name, tensor, path) for name, tensor in unpickled(path).items()}
    require_filled(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    for name, tensor in tensors.items():
        require_finite_tensor(path, name, tensor)
    if not data:
        return path, {name: tensor.to("meta") for name, tensor in tensors.items()}
    return path, {name: tensor.to(torch.float32, copy=True) for name, tensor in tensors.items()}


def _index(folder: Path, safe: str) -> Path | None:
    """The file that says which tensor of a module is in which of its files, if there is one.

    transformers calls it as a model's, and the files that it names as a module's.
    """
    names = (f"{safe}.index.json", INDEX)
    found = (folder / name for name in names if is_file(folder / name))
    stem = safe.removesuffix(".safetensors")
    return next((i for i in found if any(folder.glob(f"{stem}-*-of-*.safetensors"))), None)


def _sharded(index: Path, data: bool) -> Parameters:
    """The tensors of all files that an index names; BadInput for one that is not there."""
    try:
        placed = {
            str(name): Path(file).name for name, file in read_json(index)["weight_map"].items()
        }
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{index} does not say which tensors are in which file.") from None
    found: Parameters = {}
    for file in sorted(set(placed.values())):
        found |= load_tensors(index.parent / file, data)
    for name, file in placed.items():
        if name not in found:
            raise BadInput(
                f"{index.parent / file} lacks tensor {name!r}, which {index.name} names."
            )
    return found


def files_of(path: Path) -> list[Path]:
    """The safetensors files behind what `read_weights` named; none where it is a pickle."""
    if path.name.endswith(".index.json"):
        placed = read_json(path)["weight_map"].values()
        return [path.parent / Path(file).name for file in sorted(set(placed))]
    return [path] if path.suffix == ".safetensors" else []


def blocks(path: Path, meant: Callable[[str], bool]) -> Iterator[Tensor]:
    """The rows of one tensor of a file that `read_weights` named, some at a time, as stored.

    Args:
        meant: whether a name in the file is that tensor's.
    """
    if path.name.endswith(".index.json"):
        path = path.parent / next(
            Path(file).name for name, file in read_json(path)["weight_map"].items() if meant(name)
        )
    if path.suffix != ".safetensors":
        yield next(tensor for name, tensor in unpickled(path).items() if meant(name))
        return
    with safe_open(path, framework="pt") as opened:
        part = opened.get_slice(next(filter(meant, opened.keys())))
        for start in range(0, part.get_shape()[0], BLOCK):
            yield part[start : start + BLOCK]


def unpickled(path: Path) -> Mapping[Any, Any]:
    """What a pickle holds, by torch's weights-only loader; BadInput when it cannot be read."""
    require_regular(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > path.stat().st_size:  # torch stores, it does not compress
                raise ValueError("it is compressed, which torch does not do")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # What a broken or hostile pickle raises on its way is open; nothing of it is of use.
        raise BadInput(
            f"{path} cannot be read by torch's weights-only loader: {_why(error)}. Only plain "
            "tensors by name are read; save the module again as safetensors."
        ) from error
    if not isinstance(found, Mapping):
        raise BadInput(f"{path} holds a {type(found).__name__}, expected tensors by name.")
    return found


def _why(error: Exception) -> str:
    """What a loader says is wrong, without its advice to load the file by all means."""
    said = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    first = (said.strip() or type(error).__name__).splitlines()[0]
    return first.partition(". Please")[0].rstrip(".")


def _plain(name: Any, tensor: Any, path: Path) -> Tensor:
    """The tensor, if it is one of floats whose data are all in the file."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise BadInput(f"{path}: {name!r} is a {type(tensor).__name__}, expected a tensor.")
    if tensor.layout != torch.strided or tensor.is_quantized or not tensor.is_floating_point():
        raise BadInput(f"{path}: tensor {name!r} is of type {tensor.dtype}, expected floats.")
    if tensor.is_meta or tensor.numel() * tensor.element_size() > path.stat().st_size:
        raise BadInput(f"{path}: tensor {name!r} claims more data than the file has.")
    return tensor.detach()

"""A module as a thing: tensors, configuration and provenance, in a folder of two files.

`module.safetensors` holds the tensors, `module.json` everything else. A ported module has its
`account.json` beside them.
"""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from peftport.errors import BadInput
from peftport.files import by_library, is_file, new_folder, read_json, write_json
from peftport.hosts.fingerprint import fingerprint, read_header, require_host_of_module
from peftport.hosts.genealogy import folder_at_hand
from peftport.hosts.geometry import Geometry, geometry_from_record
from peftport.modules.finite import require_finite_file, require_finite_tensor
from peftport.modules.found import FOREIGN_CONFIG, RECORD, find_module
from peftport.modules.record import Record, expected_shapes, parse_record
from peftport.techniques import technique
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import brings_rows, embedding_problem, is_of_numbers
from peftport.techniques.head import WEIGHT

TENSORS, ACCOUNT = "module.safetensors", "account.json"
FORMAT = 1
Dtype = Literal["float32", "bfloat16", "float16"]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Module:
    """A trained or ported module. `tensors` carry no lane axis and are in float32, but for the
    numbers of tokens."""

    record: Record
    tensors: Parameters = field(repr=False)

    @property
    def technique(self) -> str:
        """Name of the technique that made it."""
        return self.record.technique

    @cached_property
    def config(self) -> Any:
        """The technique's configuration."""
        return technique(self.technique).configure(self.record.config)

    @cached_property
    def geometry(self) -> Geometry:
        """The geometry of the host that the tensors are made for."""
        return geometry_from_record(self.record.geometry)

    @property
    def classes(self) -> int:
        """Number of classes of its task."""
        return len(self.record.task["labels"])

    def written(self, tensors: Parameters) -> Parameters:
        """Tensors of the module in the type that they are written in; numbers of tokens stay."""
        dtype = getattr(torch, self.record.dtype)
        return {
            name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous()
            for name, tensor in tensors.items()
        }

    def save(self, folder: Path, account: dict[str, Any] | None = None) -> None:
        """Write the module's folder, whole or not at all.

        Raises:
            BadInput: `folder` exists already.
        """
        with new_folder(folder) as temporary:
            save_file(self.written(self.tensors), temporary / TENSORS, metadata={"format": "pt"})
            write_json(temporary / RECORD, self.record.model_dump(mode="json"))
            if account is not None:
                write_json(temporary / ACCOUNT, account)


def load_module(
    folder: str | Path,
    *,
    from_host: str | None = None,
    pickles: bool = True,
    partial: bool = False,
) -> Module:
    """Read a module's folder, of peftport, PEFT or AdapterHub, and hold its tensors against its
    configuration.

    Args:
        from_host: the host that the module is made for, instead of the one that its files name.
        pickles: read the pickled tensors of other libraries (`.bin`), by torch's weights-only
            loader.
        partial: read a module of another library without the tensors that peftport cannot carry,
            with a notice; the record names them (`left_out`).

    Raises:
        BadInput: a file is missing, corrupt or not safetensors; a tensor is missing, surplus, of
            another shape or type than technique and geometry say, or not finite; a folder of
            another library is of a kind that peftport does not read.
    """
    folder = find_module(folder)
    module = _read(folder, from_host, pickles, data=True, partial=partial)
    if idle := technique(module.technique).idle(module.tensors):
        rows = brings_rows(module.tensors)
        kept = ["head"] * (WEIGHT in module.tensors) + ["embeddings"] * rows
        rest = f" but for its {' and '.join(kept)}" if kept else ""
        _log.warning(
            "notice: %s: %s is zero: the module changes nothing%s. Was it saved before it was "
            "trained?",
            *(folder, idle, rest),
        )
    return module


def _read(
    folder: Path, from_host: str | None, pickles: bool, *, data: bool, partial: bool
) -> Module:
    """Read a module's folder, without `data` with its tensors on torch's meta device."""
    if is_foreign(folder):
        from peftport.modules.formats import read

        return read(folder, from_host, pickles, data, partial)
    module = Module(read_record(folder, from_host), load_tensors(folder / TENSORS, data))
    require_whole(module, folder / TENSORS, RECORD)
    return module


def is_foreign(folder: Path) -> bool:
    """Whether a folder is in the format of another library."""
    return not is_file(folder / RECORD) and is_file(folder / FOREIGN_CONFIG)


def require_whole(module: Module, path: Path, described_by: str) -> None:
    """Raise BadInput unless the tensors, read from `path`, are those that the record asks for and
    are finite."""
    found = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    _compare(path, found, expected_shapes(module.record), described_by)
    if problem := embedding_problem(module.tensors, module.geometry.vocabulary):
        raise BadInput(f"{path}: {problem}.")
    for name, tensor in module.tensors.items():
        if not tensor.is_meta:  # what was made of a file's numbers may be too large
            require_finite_tensor(path, name, tensor)


def read_outline(
    folder: Path, from_host: str | None = None, pickles: bool = True, partial: bool = False
) -> tuple[Record, Shapes]:
    """Read a module's record and its tensors' shapes, with no more than one tensor's data in
    memory; arguments and errors as `load_module`."""
    module = _read(find_module(folder), from_host, pickles, data=False, partial=partial)
    return module.record, {name: tuple(t.shape) for name, t in module.tensors.items()}


def read_record(folder: Path, from_host: str | None = None) -> Record:
    """Read `module.json`; BadInput names a key that is unknown, missing or wrong, and a host that
    is another one.

    Args:
        from_host: takes the place of the name of the host; one that is at hand has to be that
            host.
    """
    folder = find_module(folder)
    record = parse_record(read_json(folder / RECORD), folder / RECORD)
    if from_host is None:
        return record
    if (mark := _mark_at_hand(from_host)) is not None:
        require_host_of_module(from_host, record.host.fingerprint, mark)
    else:
        _log.warning(
            "notice: %s, named as the host of %s, is not at hand with its weights: whether it is "
            "that host is not known",
            *(from_host, folder),
        )
    host = record.host.model_copy(update={"name": from_host})
    return record.model_copy(update={"host": host})


def _mark_at_hand(host: str) -> str | None:
    """The fingerprint of a host on this machine; None where it, or its weights, are not there."""
    folder = folder_at_hand(host)
    try:
        return None if folder is None else fingerprint(folder)
    except BadInput:
        return None


def load_tensors(path: Path, data: bool = True) -> Parameters:
    """Read tensors as float32, numbers of tokens as they are; without `data` as their shapes
    alone, on torch's meta device.

    Raises:
        BadInput: the file is anything else than whole safetensors of finite floats.
    """
    header, _ = read_header(path)
    for name, entry in header.items():
        of_numbers = is_of_numbers(name)
        if entry["dtype"] not in (("I64",) if of_numbers else ("F32", "F16", "BF16", "F64")):
            what = "numbers of tokens, I64" if of_numbers else "floats"
            raise BadInput(f"{path}: tensor {name!r} is of type {entry['dtype']}, expected {what}.")
    require_filled(path, {name: tuple(entry["shape"]) for name, entry in header.items()})
    require_finite_file(path)
    if not data:
        return {n: torch.empty(entry["shape"], device="meta") for n, entry in header.items()}
    # Copied, because the tensors of `load_file` are views of the file as long as they live.
    with by_library(f"{path} is not a whole safetensors file", "Copy it again."):
        return {
            name: tensor.to(tensor.dtype if is_of_numbers(name) else torch.float32, copy=True)
            for name, tensor in load_file(path).items()
        }


def require_filled(path: Path, shapes: Shapes) -> None:
    """Raise BadInput for a file without tensors, or with tensors without numbers."""
    empty = [name for name, shape in shapes.items() if 0 in shape]
    if shapes and not empty:
        return
    what = "it holds no tensor at all"
    if empty:
        what = f"{len(empty)} of its {len(shapes)} tensors hold no number, {empty[0]!r} among them"
    raise BadInput(
        f"{path}: {what}. So DeepSpeed ZeRO 3 writes it where weights are not gathered: save the "
        "module again with `stage3_gather_16bit_weights_on_model_save`, or by zero_to_fp32.py."
    )


def versions() -> dict[str, str]:
    """Versions of what made a module or a run."""
    packages = ("peftport", "torch", "transformers")
    return {"python": platform.python_version()} | {name: _version(name) for name in packages}


_version = cache(version)  # each call would parse a package's whole description


def _compare(path: Path, found: Shapes, expected: Shapes, described_by: str) -> None:
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    if missing or surplus:
        what = f"lacks {missing[0]!r}" if missing else f"has {surplus[0]!r} too much"
        raise BadInput(
            f"{path} {what} ({len(missing)} tensors missing, {len(surplus)} surplus): its "
            f"{described_by} describes another module."
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise BadInput(f"{path}: tensor {name!r} has shape {found[name]}, expected {shape}.")

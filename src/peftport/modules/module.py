"""A module as a thing: tensors, configuration and provenance, in a folder of two files.

`module.safetensors` holds the tensors, `module.json` everything else. A ported module has its
`account.json` beside them.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file

from peftport.errors import BadInput
from peftport.files import new_folder, read_json, write_json
from peftport.hosts.fingerprint import read_header
from peftport.hosts.geometry import Geometry, geometry_from_record
from peftport.techniques import technique
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.head import head_shapes

TENSORS, RECORD, ACCOUNT = "module.safetensors", "module.json", "account.json"
FORMAT = 1


class HostName(BaseModel):
    """A host as a module remembers it: its name and the fingerprint of its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    fingerprint: str


class Record(BaseModel):
    """What `module.json` says; unknown keys are errors.

    host: the host that the tensors are made for. origin: the host that the module was trained on.
    task: name, labels, label words, template and data hashes of the task (`Task.record()`).
    training: steps, learning rate and the like; empty for a module that never was trained.
    port: method, seed and the donor's host, when the module was ported.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: int = FORMAT
    technique: str
    config: dict[str, Any]
    geometry: dict[str, Any]
    host: HostName
    origin: HostName
    task: dict[str, Any]
    seed: int
    training: dict[str, Any] = {}
    port: dict[str, Any] | None = None
    versions: dict[str, str] = {}


@dataclass(frozen=True)
class Module:
    """A trained or ported module. `tensors` carry no lane axis."""

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

    def save(self, folder: Path, account: dict[str, Any] | None = None) -> None:
        """Write the module's folder, whole or not at all.

        Raises:
            BadInput: `folder` exists already.
        """
        with new_folder(folder) as temporary:
            tensors = {name: tensor.contiguous() for name, tensor in self.tensors.items()}
            save_file(tensors, temporary / TENSORS, metadata={"format": "pt"})
            write_json(temporary / RECORD, self.record.model_dump(mode="json"))
            if account is not None:
                write_json(temporary / ACCOUNT, account)


def load_module(folder: str | Path) -> Module:
    """Read a module's folder and hold its tensors against its configuration.

    Raises:
        BadInput: a file is missing, corrupt or not safetensors; a tensor is missing, surplus, of
            another shape or type than technique and geometry say, or not finite.
    """
    folder = Path(folder)
    record = read_record(folder)
    module = Module(record, load_tensors(folder / TENSORS))
    found = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    _compare(folder / TENSORS, found, expected_shapes(record))
    for name, tensor in module.tensors.items():
        if not torch.isfinite(tensor).all():
            raise BadInput(f"{folder / TENSORS}: tensor {name!r} has values that are not finite.")
    return module


def read_record(folder: Path) -> Record:
    """Read `module.json`; BadInput names a key that is unknown, missing or wrong."""
    if not folder.is_dir():
        raise BadInput(f"module {folder} is not a folder.")
    if not (folder / RECORD).is_file():
        raise BadInput(f"{folder} has no {RECORD}: it is not a module's folder.")
    raw = read_json(folder / RECORD)
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        raise BadInput(f"{folder / RECORD}: format {raw.get('format')!r}, expected {FORMAT}.")
    try:
        record = Record(**raw)
    except (ValidationError, TypeError) as error:
        where = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        key = ".".join(map(str, where.get("loc", ()))) or "the whole file"
        raise BadInput(f"{folder / RECORD}: {key}: {where['msg']}.") from error
    task = record.task
    if not isinstance(task.get("name"), str) or not isinstance(task.get("labels"), list):
        raise BadInput(f"{folder / RECORD}: task: it has no `name` or no list of `labels`.")
    return record


def read_shapes(folder: Path) -> Shapes:
    """Names and shapes of a module's tensors, read without their data."""
    header, _ = read_header(folder / TENSORS)
    return {name: tuple(entry["shape"]) for name, entry in header.items()}


def load_tensors(path: Path) -> Parameters:
    """Read tensors as float32; BadInput for anything that is not whole safetensors of floats."""
    header, _ = read_header(path)
    for name, entry in header.items():
        if entry["dtype"] not in ("F32", "F16", "BF16", "F64"):
            raise BadInput(f"{path}: tensor {name!r} is of type {entry['dtype']}, expected floats.")
    # Copied, because the tensors of `load_file` are views of the file as long as they live.
    return {n: t.to(torch.float32, copy=True) for n, t in load_file(path).items()}


def expected_shapes(record: Record) -> Shapes:
    """Names and shapes that technique, configuration and geometry ask for."""
    made, geometry = technique(record.technique), geometry_from_record(record.geometry)
    shapes = made.shapes(made.configure(record.config), geometry)
    return shapes | head_shapes(geometry, len(record.task.get("labels", ())))


def versions() -> dict[str, str]:
    """Versions of what made a module or a run."""
    packages = ("peftport", "torch", "transformers")
    return {"python": platform.python_version()} | {name: version(name) for name in packages}


def _compare(path: Path, found: Shapes, expected: Shapes) -> None:
    missing = sorted(expected.keys() - found.keys())
    surplus = sorted(found.keys() - expected.keys())
    if missing or surplus:
        what = f"lacks {missing[0]!r}" if missing else f"has {surplus[0]!r} too much"
        raise BadInput(
            f"{path} {what} ({len(missing)} tensors missing, {len(surplus)} surplus): its "
            f"{RECORD} describes another module."
        )
    for name, shape in expected.items():
        if found[name] != shape:
            raise BadInput(f"{path}: tensor {name!r} has shape {found[name]}, expected {shape}.")

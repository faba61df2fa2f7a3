"""Where adapters puts modules into the hosts of each family, and how it names their tensors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.base import Folder
from peftport.techniques.base import Parameters

NAME = "peftport"
"""What modules written by peftport are called inside a model."""


@dataclass(frozen=True)
class Hub:
    """An AdapterHub folder with its tensors.

    name: of the adapter, a part of every tensor's name.
    """

    folder: Folder
    path: Path
    tensors: Parameters = field(repr=False)
    name: str

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the method."""
        found: dict[str, Any] = self.folder.config["config"]
        return found

    @property
    def geometry(self) -> Geometry:
        """Of the module's host."""
        return self.folder.geometry

    def require(self, wanted: dict[str, tuple[Any, ...]]) -> None:
        """Raise BadInput for an option that has another value than those peftport can follow."""
        for key, values in wanted.items():
            found = self.config.get(key, values[0])
            if not any(found == v and type(found) is type(v) for v in values):
                self.refuse(key, f"{found!r}: a variant that peftport does not read")

    def require_known(self, known: Collection[str]) -> None:
        """Raise BadInput for an option that is set and that peftport does not know."""
        for key, value in self.config.items():
            if key not in known and value not in (None, False, "", [], {}):
                self.refuse(key, f"{value!r}: a variant that peftport does not read")

    def number(self, key: str, kind: type = int) -> Any:
        """A positive number of the configuration."""
        value = self.config.get(key)
        allowed = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed) or not 0 < value < 1e9:
            self.refuse(key, f"{value!r}, expected a positive number")
        return value

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise BadInput that names a key of the method's configuration."""
        self.folder.refuse(f"config.{key}", why)

    def split(self, name: str, kind: str) -> tuple[str, str]:
        """Where a tensor is and which it is: `a.b.adapters.NAME.c` -> ("a.b", "c"); two empty
        strings for a tensor of another kind or adapter."""
        before, found, after = f".{name}".partition(f".{kind}.{self.name}.")
        return (before.removeprefix("."), after) if found else ("", "")


def layout_of(geometry: Geometry) -> dict[str, Any]:
    """The layout of a family; BadInput when none is known."""
    found: dict[str, Any] | None = geometry.trait("adapterhub")
    if found is None:
        raise BadInput(
            f"no layout of adapters' folders is known for {geometry.family} hosts; write it with "
            "--format peftport, or peft for LoRA and prefix tuning."
        )
    return found


def inside(geometry: Geometry) -> str:
    """What stands before paths in the model that a module is written for: "bert."."""
    prefix = geometry.prefix
    return f"{prefix}." if prefix else ""


def path_in_model(path: str, geometry: Geometry) -> str:
    """A path as it is called in that model: encoders' are within the model with the head."""
    before = inside(geometry)
    return path if path.startswith(before) else before + path

"""Modules by folder: their record is read at once, their tensors when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from peftport.api.result import Result
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.modules import Module, Record
    from peftport.techniques.base import Parameters, Shapes


class HoldsModule(Protocol):
    """A result with a module in it."""

    @property
    def module(self) -> ModuleHandle:
        """The module."""


ModuleLike: TypeAlias = "str | Path | ModuleHandle | Module | HoldsModule"
"""What functions take for a module: a folder, a handle, a module, or a result that holds one."""


@dataclass(frozen=True, eq=False)
class ModuleHandle(Result):
    """A module in a folder, or one in memory that was not saved yet.

    Attributes:
        path: its folder; None where it has none.
        from_host: the host that it is made for, where its files name none or it is elsewhere.
        pickles: whether pickled tensors of other libraries may be read.
        partial: whether tensors that no technique has may be left out.
    """

    path: Path | None
    from_host: str | None = None
    pickles: bool = True
    made: Module | None = None
    partial: bool = False

    @property
    def called(self) -> str:
        """What messages call it."""
        return "the module" if self.path is None else str(self.path)

    @cached_property
    def outline(self) -> tuple[Record, Shapes]:
        """Its record, and the shapes of its tensors by name; their numbers are looked at, and not
        kept.

        Raises:
            BadInput: a tensor is missing, surplus, of another shape, or not finite.
        """
        from peftport.modules import read_outline

        if self.made is not None:
            shapes = {name: tuple(t.shape) for name, t in self.made.tensors.items()}
            return self.made.record, shapes
        return read_outline(self._folder, self.from_host, self.pickles, partial=self.partial)

    @cached_property
    def module(self) -> Module:
        """The module with its tensors in memory.

        Raises:
            BadInput: a tensor is missing, surplus, of another shape, or not finite.
        """
        from peftport.modules import load_module

        if self.made is not None:
            return self.made
        return load_module(
            self._folder, from_host=self.from_host, pickles=self.pickles, partial=self.partial
        )

    @property
    def record(self) -> Record:
        """Configuration and provenance."""
        return self.outline[0]

    @property
    def technique(self) -> str:
        """Name of the technique that made it."""
        return self.record.technique

    @property
    def tensors(self) -> Parameters:
        """Name -> tensor in single precision; shapes as `outline` says."""
        return self.module.tensors

    @property
    def format(self) -> str:
        """Format of its folder: "peftport", "peft" or "adapterhub"."""
        from peftport.modules import formats

        if self.path is None or not self.path.is_dir():
            return formats.OWN
        return formats.format_of(self.path)

    def save(
        self,
        folder: str | Path,
        format: str | None = None,
        *,
        account: Mapping[str, Any] | None = None,
        figures: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Write the module's folder, whole or not at all.

        Args:
            format: "peftport", "peft" or "adapterhub"; the one that it came in if not given.
            account: what a port did, for `account.json`.
            figures: what was measured, for the card: a mapping for each row.

        Raises:
            BadInput: the format cannot say what the module does, or `folder` exists already.
        """
        from peftport.modules import formats

        name = formats.FORMATS.require(format or self.format)
        formats.save(self.module, Path(folder), name, account, figures)

    def push_to_hub(self, name: str, *, private: bool = False, format: str | None = None) -> str:
        """Upload the module's folder with its card to the hub, by huggingface_hub's own client.

        Args:
            name: of the repository, `user/name`; made if need be.
            private: whether a repository that is made is private.
            format: as for `save`, for a module that has no folder yet.

        Returns:
            Address of the commit.

        Raises:
            BadInput: the name is none, or there is no login.
            RunFailed: the hub cannot be reached, or refused.
        """
        from peftport.modules.hub import push, push_saved

        if self.path is not None and format in (None, self.format):
            return push(self.path, name, private=private)
        return push_saved(lambda folder: self.save(folder, format), name, private=private)

    def to_dict(self) -> dict[str, Any]:
        """Folder, format and record."""
        path = None if self.path is None else str(self.path)
        record = self.record.model_dump(mode="json")
        return {"module": path, "format": self.format, "record": record}

    def __str__(self) -> str:
        record = self.record
        numbers = sum(_product(shape) for shape in self.outline[1].values())
        options = {key: value for key, value in record.config.items() if value is not None}
        return "\n".join(
            [
                f"{record.technique} {self.called}, {numbers:,} numbers in "
                f"{len(self.outline[1])} tensors",
                f"made for {record.host.name}, trained on {record.origin.name}",
                f"task {record.task['name']}, options {options}",
            ]
        )

    @property
    def _folder(self) -> Path:
        if self.path is None:
            raise BadInput("the module has no folder: save it first.")
        return self.path


def load_module(
    module: str | Path,
    *,
    from_host: str | None = None,
    pickles: bool = True,
    partial: bool = False,
) -> ModuleHandle:
    """Open a module's folder, of peftport, peft or AdapterHub. Its record is read now, its tensors
    when they are first needed.

    Args:
        module: the folder, or a name on the hub (`owner/name`, `owner/name@revision`).
        from_host: the host that the module is made for, where its files name none or it lies
            elsewhere: a hub name, a folder, or `lab:NAME`.
        pickles: whether pickled tensors (`.bin`) may be read, by torch's weights-only loader.
        partial: whether tensors that no technique has may be left out.

    Raises:
        BadInput: the folder is no module's, or of a kind that peftport does not read.

    >>> import peftport as pp
    >>> module = pp.load_module("modules/films")
    >>> module.technique, module.record.config["rank"]
    ('lora', 4)
    """
    from peftport.modules.found import find_module

    handle = ModuleHandle(find_module(module), from_host, pickles, partial=partial)
    _ = handle.outline
    return handle


def as_handle(module: ModuleLike) -> ModuleHandle:
    """A handle of what a function was given: a folder, a handle, a module, or a result that holds
    one (`Ported`, `TrainedModule`).

    Raises:
        BadInput: it is none of them, or a folder that cannot be found.
    """
    from peftport.modules import Module
    from peftport.modules.found import find_module

    if isinstance(module, ModuleHandle):
        return module
    if isinstance(module, str | Path):
        return ModuleHandle(find_module(module))
    inner = getattr(module, "module", None)
    if isinstance(inner, ModuleHandle):
        return inner
    if isinstance(module, Module):
        return ModuleHandle(None, made=module)
    raise BadInput(
        "module: expected a folder, a name on the hub, or what load_module, train or port gives, "
        f"and not a {type(module).__name__}. Save a module of another library and name its folder."
    )


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count

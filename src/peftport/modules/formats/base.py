"""What a format of another library is, and what its readers share: the folder, the host, the
record that a module gets whose files do not have one."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from peftport.errors import BadInput
from peftport.files import is_folder
from peftport.hosts.geometry import Geometry, geometry_from_record
from peftport.hosts.source import find_host, geometry_by_name
from peftport.modules.formats.names import unwrapped
from peftport.modules.formats.weights import read_weights
from peftport.modules.module import FOREIGN_CONFIG, Module, require_whole, versions
from peftport.modules.record import HostName, ModelClass, Record
from peftport.techniques import technique
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import brought
from peftport.techniques.head import Pooling

UNKNOWN_TASK = "unknown"
_log = logging.getLogger(__name__)
_HINT = "name the host with --from-host"
HEAD_ADVICE = "Write it with --format peftport; `port --allow-partial` leaves the head out."
"""What to do with a head that a format cannot hold."""


@dataclass(frozen=True)
class Folder:
    """A module's folder that is to be read.

    config: content of its `adapter_config.json`. host_key: the key in it that names the host.
    from_host: the host to take instead. pickles: whether pickled tensors may be read. data: whether
    tensors are read, or their shapes alone. kept: peftport's own record, where it wrote the folder.
    partial: whether a module may be read without what peftport cannot carry.
    """

    path: Path
    config: dict[str, Any]
    host_key: str
    from_host: str | None
    pickles: bool
    data: bool
    kept: Record | None
    partial: bool = False

    @property
    def config_path(self) -> Path:
        """Where `config` is from."""
        return self.path / FOREIGN_CONFIG

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raise BadInput that names a key of the configuration."""
        raise BadInput(f"{self.config_path}: {key}: {why}.")

    def weights(self, safe: str, pickled: str) -> tuple[Path, Parameters]:
        """The file with the tensors that is there, and what is in it."""
        path, found = read_weights(self.path, safe, pickled, pickles=self.pickles, data=self.data)
        return path, unwrapped(path, found)

    @cached_property
    def host_name(self) -> str:
        """Name of the host that the module is made for."""
        if self.from_host is not None:
            return self.from_host
        if self.kept is not None:
            return self.kept.host.name
        return self._named_host()

    @cached_property
    def geometry(self) -> Geometry:
        """Geometry of that host, from its configuration alone."""
        if self.kept is not None and self.from_host is None:
            return geometry_from_record(self.kept.geometry)
        try:
            return geometry_by_name(self.host_name)
        except BadInput as error:
            if self.from_host is not None:
                raise
            raise BadInput(
                f"{self.config_path}: {self.host_key} is {self.host_name!r}: {error} If the host "
                "is elsewhere, name it with --from-host."
            ) from error

    def host_files(self) -> Path:
        """Where the host's weights are, for what a module needs of them."""
        if self.from_host is None:
            self._require_followed(self.host_name)
        return find_host(self.host_name).files()

    def _named_host(self) -> str:
        """The host that the configuration names."""
        name = self.config.get(self.host_key)
        if not isinstance(name, str) or not name.strip():
            self.refuse(
                self.host_key, f"it does not say which host the module is made for; {_HINT}"
            )
        self._require_followed(name)
        revision = self.config.get("revision")
        if revision is None or is_folder(Path(name)):
            return name
        if not isinstance(revision, str) or not revision.isprintable() or ".." in revision:
            self.refuse("revision", f"{revision!r} is no revision of a host; {_HINT}")
        return f"{name}@{revision}"

    def _require_followed(self, name: str) -> None:
        """Raise BadInput for a name that is not looked up because a file says so.

        Other people's files decide here which folder is read: a name that climbs out of where
        peftport runs, or is an address, is not followed.
        """
        if not name.isprintable() or "://" in name or "\\" in name:
            self.refuse(self.host_key, f"{name!r} is neither a hub name nor a folder; {_HINT}")
        if name.startswith(("~", ".")) or ".." in name.split("/"):
            self.refuse(
                self.host_key, f"{name!r} leads out of its folder and is not followed; {_HINT}"
            )


@dataclass(frozen=True)
class Draft:
    """What a format's reader finds: a module that lacks its record.

    options: of the technique. tensors: under peftport's names; meta tensors where no data are read.
    pooling: of the head, where there is one. labels: of the classes, as far as they are known.
    path: the file with the tensors, for messages. left_out: what in it belongs to the module and is
    not among its tensors, by name, with its shape. converted: share of each place's change that was
    lost where the module was of another kind.
    """

    technique: str
    options: Mapping[str, Any]
    tensors: Parameters
    path: Path
    pooling: Pooling = "mean"
    labels: tuple[Any, ...] = ()
    left_out: Shapes = field(default_factory=dict)
    converted: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Files:
    """What a format writes: JSON files and files of tensors, by name."""

    json: dict[str, Any]
    tensors: dict[str, Parameters] = field(repr=False)


class Format(ABC):
    """How modules are kept in files. Instances hold no state.

    read_by: what a module's card calls the library that reads them.
    """

    name: ClassVar[str]
    read_by: ClassVar[str]

    @abstractmethod
    def files(self, module: Module) -> Files:
        """The files of a module; BadInput when this format cannot say what the module does."""

    def require_holds(
        self, technique: str, config: Any, geometry: Geometry, names: Collection[str]
    ) -> None:
        """Raise BadInput where this format cannot say what a module does, told before there is one.

        Args:
            config: the technique's. geometry: of its host. names: of its tensors.
        """
        return

    def head_problem(self, geometry: Geometry, pooling: Pooling) -> str | None:
        """Why no file of this format holds a head that pools so, on such a host; None where one
        does."""
        return None

    @abstractmethod
    def usage(self, module: Module) -> str:
        """Lines of Python that load what was written, for the module's card."""


class ForeignFormat(Format):
    """A format of another library.

    host_key: the key of `adapter_config.json` that names the host.
    """

    host_key: ClassVar[str]

    @abstractmethod
    def read(self, folder: Folder) -> Draft:
        """Read a folder; BadInput names the file and key or tensor that cannot be used."""

    def model(self, folder: Folder, draft: Draft) -> ModelClass | None:
        """The class of model that a module was made on, where its files tell it."""
        return None


def with_record(folder: Folder, draft: Draft) -> Module:
    """Give a draft its record, peftport's own where it was kept, and hold both together.

    Raises:
        BadInput: the file has parts that cannot be carried, and the module may not be read without.
    """
    _require_all(folder, draft)
    record = _record(folder, draft)
    module = Module(record, draft.tensors)
    require_whole(module, draft.path, folder.config_path.name)
    return module


def _require_all(folder: Folder, draft: Draft) -> None:
    if not draft.left_out:
        return
    listed = ", ".join(map(repr, list(draft.left_out)[:3])) + ", ..." * (len(draft.left_out) > 3)
    what = f"{draft.path}: tensor {listed} belongs to no place of a {folder.geometry.family} host"
    if not folder.partial:
        raise BadInput(
            f"{what} that peftport reads, and is not that of {folder.host_name}: it was trained "
            "with the module (`modules_to_save`, `trainable_token_indices`, a trained bias, or a "
            "head of another kind). With `peftport port --allow-partial` the module is read "
            "without, and the account says so."
        )
    _log.warning("notice: %s: %d tensors are left out: %s", draft.path, len(draft.left_out), listed)


def _record(folder: Folder, draft: Draft) -> Record:
    if folder.kept is not None:
        host = folder.kept.host.model_copy(update={"name": folder.host_name})
        return folder.kept.model_copy(update={"host": host})
    host = HostName(name=folder.host_name, fingerprint="")
    config = technique(draft.technique).configure(draft.options)
    task: dict[str, Any] = {"name": UNKNOWN_TASK, "labels": list(draft.labels), "label_words": None}
    if draft.pooling == "last":  # which reads the bare text, and not the template of label words
        task["templates"] = {folder.geometry.kind: "{text}"}
    return Record(
        technique=draft.technique,
        config=config.model_dump(mode="json"),
        geometry=folder.geometry.record(),
        host=host,
        origin=host,
        task=task,
        seed=0,
        head=draft.pooling,
        versions=versions(),
        embeddings=brought(draft.tensors),
        left_out=draft.left_out,
        converted=draft.converted,
    )

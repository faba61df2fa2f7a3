"""Where a task's rows come from: files, the hub, or the lab. Each reads one split at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from peftport.errors import BadInput
from peftport.files import exists, is_folder
from peftport.lookup import not_found
from peftport.registry import did_you_mean
from peftport.tables import ENDINGS, require_file
from peftport.tasks.forms import Columns, from_arrow, read_file
from peftport.tasks.readers import SPLIT_NAMES, SPLITS, Table, find_splits

_NAMED = (
    "Name a folder with train, validation and test files, one file whose name ends in "
    f"{', '.join(ENDINGS)}, a task YAML, lab:NAME, or a data set on the hub (NAME:SUBSET)."
)
WHOLE = "all"
"""The split of a source that is one file, from which the real splits are cut."""


class Source(Protocol):
    """Something that has rows in splits; `name` is what the task is called."""

    @property
    def name(self) -> str: ...

    def splits(self) -> tuple[str, ...]:
        """Return those of train, validation and test that are there, or `WHOLE`."""

    def read(self, split: str) -> list[Table]:
        """Read a split, a table for each of its files."""

    def words(self) -> tuple[str, ...] | None:
        """Return the label words that the source itself has, in class order."""


@dataclass(frozen=True)
class FileSource:
    """Rows in files of the data set called `name`."""

    name: str
    files: Mapping[str, tuple[Path, ...]]
    columns: Columns

    def splits(self) -> tuple[str, ...]:
        return tuple(self.files)

    def read(self, split: str) -> list[Table]:
        return [read_file(file, self.columns) for file in self.files[split]]

    def words(self) -> None:
        return None


@dataclass(frozen=True)
class LabSource:
    """Generated rows of one of the lab's tasks."""

    task: str

    @property
    def name(self) -> str:
        return f"lab:{self.task}"

    def splits(self) -> tuple[str, ...]:
        return SPLITS

    def read(self, split: str) -> list[Table]:
        from peftport.lab import tasks as lab

        texts, labels = lab.rows(self.task, split)
        return [Table(f"{self.name} ({split})", list(texts), [int(label) for label in labels])]

    def words(self) -> tuple[str, ...]:
        from peftport.lab import tasks as lab

        return lab.label_words(self.task)


@dataclass(frozen=True)
class HubSource:
    """A data set that the `datasets` library reads from the hub or its cache.

    `renamed`: split -> the name that the data set has for it.
    """

    path: str
    columns: Columns
    subset: str | None = None
    revision: str | None = None
    renamed: Mapping[str, str] | None = None

    @property
    def name(self) -> str:
        return f"{self.path}:{self.subset}" if self.subset else self.path

    def splits(self) -> tuple[str, ...]:
        return tuple(self._there())

    def read(self, split: str) -> list[Table]:
        rows = self._load()[self._there()[split]]
        origin = f"the {split} split of hub data set {self.name}"
        table = rows.with_format("arrow")[:]
        return [from_arrow(table, origin, self.columns)]

    def words(self) -> None:
        return None

    def _there(self) -> dict[str, str]:
        """Split -> its name in the data set."""
        names = list(self._load())
        if self.renamed is None:
            return {SPLIT_NAMES[name]: name for name in reversed(names) if name in SPLIT_NAMES}
        for name in self.renamed.values():
            if name not in names:
                raise BadInput(
                    f"hub data set {self.name} has no split {name!r}.{did_you_mean(name, names)} "
                    f"It has: {', '.join(names)}."
                )
        return dict(self.renamed)

    def _load(self) -> Any:
        return _load_from_hub(self.path, self.subset, self.revision)


@lru_cache(maxsize=4)
def _load_from_hub(path: str, subset: str | None, revision: str | None) -> Any:
    """The data set with all its splits, mapped from the cache and not held in memory."""
    try:
        import datasets
    except ImportError as error:
        raise BadInput(
            f"task {path!r} was not found: {Path(path).absolute()} does not exist, and a data set "
            "from the hub needs the package `datasets`: pip install 'peftport[hub]'."
        ) from error
    if path.isidentifier() and find_spec(f"datasets.packaged_modules.{path}"):
        raise BadInput(
            f"task {path!r} was not found: {Path(path).absolute()} does not exist, and by this "
            "name the package `datasets` reads whatever files lie in the working folder. Name a "
            "folder, a file, or a data set as OWNER/NAME."
        )
    try:
        return datasets.load_dataset(path, subset, revision=revision)
    except Exception as error:  # the hub, the network, the cache and every file format speak here
        raise not_found("task", path, _NAMED, error) from error


def find_source(name: str, columns: Columns) -> Source:
    """Find a source by `lab:NAME`, a folder, a data file, or a hub name.

    A hub name is `NAME`, `NAME:SUBSET`, `NAME@REVISION` or both; `hub:NAME` asks the hub even
    where there is a folder of that name.

    Raises:
        BadInput: an unknown lab task, or a path at which there are no data.
    """
    if name.startswith("lab:"):
        return _lab(name.removeprefix("lab:"))
    if name.startswith("hub:"):
        return _hub(name.removeprefix("hub:"), columns)
    path = Path(name).expanduser()
    if is_folder(path):
        return FileSource(path.resolve().name, find_splits(path), columns)
    if path.suffix.lower() in ENDINGS:
        return FileSource(path.stem, {WHOLE: (require_file(path),)}, columns)
    if exists(path) or path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise not_found("task", name, _NAMED)
    return _hub(name, columns)


def named_files(
    name: str, base: Path, splits: Mapping[str, str | Sequence[str]], columns: Columns
) -> FileSource:
    """A source whose splits are files (one or several) named relative to the folder `base`."""
    files = {
        split: tuple(require_file(base / f) for f in ([named] if isinstance(named, str) else named))
        for split, named in splits.items()
    }
    return FileSource(name, files, columns)


def _lab(task: str) -> LabSource:
    from peftport.lab import tasks as lab

    if task not in lab.TASKS:
        raise BadInput(
            f"the lab has no task {task!r}.{did_you_mean(task, lab.TASKS)} "
            f"Known: {', '.join(f'lab:{known}' for known in lab.TASKS)}."
        )
    return LabSource(task)


def _hub(name: str, columns: Columns) -> HubSource:
    name, _, revision = name.partition("@")
    name, _, subset = name.partition(":")
    return HubSource(name, columns, subset or None, revision or None)

"""The task YAML: what a data set's files cannot say of themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from peftport.errors import BadInput
from peftport.files import exists, is_folder, read_yaml
from peftport.registry import did_you_mean
from peftport.tables import ENDINGS
from peftport.tasks.forms import Columns
from peftport.tasks.labels import Label, canonical
from peftport.tasks.readers import SPLITS
from peftport.tasks.sources import FileSource, HubSource, Source, find_source, named_files


class TaskFile(BaseModel):
    """A task YAML, with every key it may have.

    Attributes:
        name: what the task is called in records and tables; else the file's name.
        source: a folder, a data file, a hub data set or lab:NAME; paths are relative to the YAML.
        subset: the hub data set's configuration.
        version: the hub data set's revision; for files it is only kept in the record.
        text, label: the columns.
        kind: of the task; else what the columns tell.
        system: the system's turn of every chat, in place of those that the rows have.
        max_answer: the most tokens that a host writes as an answer.
        scorer: "module:function" of (written, reference) -> number, a metric of one's own.
        labels: value in the label column -> label word.
        template: how a text is put before a host, one for all kinds or one a kind.
        max_tokens: the longest input, template and special tokens included.
        splits: split -> the file or files (relative to the source), or the hub's split name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = None
    source: str | None = None
    subset: str | None = None
    version: str | None = None
    text: str | None = None
    label: str | None = None
    labels: dict[Label, str] | None = None
    kind: str | None = None
    system: str | None = None
    max_answer: Annotated[int, Field(gt=0)] | None = None
    scorer: str | None = None
    template: str | dict[str, str] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    splits: dict[str, str | list[str]] | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _canonical_labels(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        labels = [canonical(label) for label in value]
        if len(set(labels)) < len(labels):
            raise ValueError("a label stands here twice")
        return dict(zip(labels, map(_as_text, value.values()), strict=True))

    @field_validator("splits")
    @classmethod
    def _known_splits(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        for split in value or ():
            if split not in SPLITS:
                near = did_you_mean(split, SPLITS)
                raise ValueError(f"unknown split {split!r}.{near} Known: {', '.join(SPLITS)}")
        return value

    @field_validator("version", mode="before")
    @classmethod
    def _version_as_text(cls, value: object) -> object:
        return _as_text(value)


def read_taskfile(path: Path) -> TaskFile:
    """Read a task YAML; BadInput names the file and the key."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise BadInput(f"{path} is not a task YAML: it must hold keys like `source` and `labels`.")
    return taskfile(content, str(path))


def taskfile(content: Mapping[str, object], said_in: str) -> TaskFile:
    """Check a task YAML's content; BadInput names where it is `said_in` and the key."""
    try:
        return TaskFile.model_validate(content)
    except ValidationError as error:
        raise BadInput(f"{said_in}: {_told(error)}") from error


def source_of(file: TaskFile, path: Path) -> Source:
    """Find the rows that a task YAML at `path` speaks of; BadInput says what does not fit."""
    columns = Columns(file.text, file.label, file.kind)
    if file.source is None:
        if not file.splits:
            raise BadInput(f"{path} says neither `source` nor `splits`: where are the rows?")
        return named_files(path.stem, path.parent, file.splits, columns)
    inside = path.parent / Path(file.source).expanduser()
    if is_folder(inside) and file.splits:
        return named_files(path.stem, inside, file.splits, columns)
    is_path = exists(inside) or inside.suffix in ENDINGS or file.source.startswith(".")
    source = find_source(str(inside) if is_path else file.source, columns)
    if isinstance(source, HubSource):
        return _hub_source(source, file, path)
    if file.subset:
        raise BadInput(f"{path}: `subset` is for data sets of the hub, not for {file.source!r}.")
    if file.splits:
        raise BadInput(f"{path}: `splits` is for folders and for data sets of the hub.")
    if isinstance(source, FileSource) and not exists(inside):
        raise BadInput(f"{path}: its source {inside} does not exist.")
    return source


def _hub_source(source: HubSource, file: TaskFile, path: Path) -> HubSource:
    renamed: dict[str, str] | None = None
    if file.splits is not None:
        renamed = {}
        for split, name in file.splits.items():
            if not isinstance(name, str):
                raise BadInput(f"{path}: a split of a hub data set has one name, not a list.")
            renamed[split] = name
    return replace(
        source,
        subset=file.subset or source.subset,
        revision=file.version or source.revision,
        renamed=renamed,
    )


def _told(error: ValidationError) -> str:
    """The first thing wrong, in one sentence."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = list(TaskFile.model_fields)
        return f"unknown key {key!r}.{did_you_mean(key, known)} Known keys: {', '.join(known)}."
    return f"{key!r}: {problem['msg'].removeprefix('Value error, ')}."


def _as_text(value: object) -> object:
    """What YAML takes for a number or a boolean, as the text that its author wrote."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value

"""A task: texts with what is asked for them, and how a text is put before a host."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_serializer

from peftport.errors import BadInput
from peftport.kind import USUAL, Kind, kind_named
from peftport.registry import did_you_mean
from peftport.tasks.forms import CHATS, KIND_OF, Columns
from peftport.tasks.labels import Classes, Label, classes_from_data, classes_from_mapping
from peftport.tasks.readers import Table
from peftport.tasks.sources import find_source
from peftport.tasks.splits import Reader, Rows
from peftport.tasks.taskfile import TaskFile, read_taskfile, source_of, taskfile

TEMPLATES = {"encoder": "{text}", "encoder-decoder": "{text}", "decoder": "{text} it was"}
_PLAIN = dict.fromkeys(TEMPLATES, "{text}")
BESIDE = {
    "kind": USUAL,
    "form": "labelled",
    "flat": False,
    "system": None,
    "max_answer": None,
    "scorer": None,
}
"""Attributes that a record has only where they are others than these."""
_log = logging.getLogger(__name__)
_FIELD = re.compile(r"\{(?!text\})[A-Za-z_]\w*\}")
"""What other tools fill in."""


class Task(BaseModel):
    """What is asked for over the rows of one data set; made by `load_task`.

    Attributes:
        name: what it is called in records and tables.
        source: where its rows come from, as the user named it.
        version: what a task YAML calls the version of the data.
        labels: the label values in class order.
        label_words: the word of each class; None when nothing names them (encoders need none).
        templates: host kind -> template with one `{text}`.
        max_tokens: the longest input, template and special tokens included.
        splits: split -> the part of the source that it is.
        limits: split -> the most rows that are used; a split that is not limited is absent.
        kind: what is asked for: the name of one of `peftport.kind.KINDS`.
        form: of its rows (`peftport.tasks.forms`).
        flat: whether chats are put before a host by `templates`, their turns one below the other,
            and not by the host's own chat template.
        system: the system's turn of every chat; None leaves those that the rows have.
        max_answer: the most tokens that a host writes; None is as many as the references take.
        scorer: "module:function" of a metric of one's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    source: str
    version: str | None = None
    labels: tuple[Label, ...]
    label_words: tuple[str, ...] | None
    templates: dict[str, str]
    max_tokens: int
    splits: dict[str, str]
    limits: dict[str, int]
    kind: str = USUAL
    form: str = "labelled"
    flat: bool = False
    system: str | None = None
    max_answer: int | None = None
    scorer: str | None = None

    _reader: Reader = PrivateAttr()
    _classes: Classes | None = PrivateAttr(default=None)
    _rows: dict[str, Rows] = PrivateAttr(default_factory=dict)
    _says_template: bool = PrivateAttr(default=False)

    @property
    def says_template(self) -> bool:
        """Whether its templates were named, by its YAML or by who loaded it, or are usual ones."""
        return self._says_template

    @model_serializer(mode="wrap")
    def _told(self, whole: Any) -> dict[str, Any]:
        """What a record says: records of classification are as they were before other kinds."""
        found = whole(self)
        return {k: v for k, v in found.items() if k not in BESIDE or v != BESIDE[k]}

    @property
    def asks(self) -> Kind:
        """What is asked for."""
        return kind_named(self.kind)

    @property
    def classes(self) -> int:
        """The number of classes; 0 where answers are no classes."""
        return len(self.labels)

    def split(self, name: str) -> Rows:
        """Return the rows of "train", "validation" or "test"; read at the first call.

        Raises:
            BadInput: the data have no such split, or a row in it cannot be used.
        """
        if name not in self._rows:
            self._rows[name] = self._reader.rows(name, self._classes, self.limits.get(name))
        return self._rows[name]

    def left_out(self, name: str) -> int:
        """How many rows of a split its limit leaves out."""
        if name not in self.limits:
            return 0
        return len(self._reader.rows(name, self._classes, None)) - len(self.split(name))

    def data_hashes(self) -> dict[str, dict[str, Any]]:
        """Return the number of rows and their sha256 for each split that the task has."""
        return {
            name: {"rows": len(self.split(name)), "sha256": _hash_rows(self.split(name))}
            for name in self.splits
        }

    @property
    def fingerprint(self) -> str:
        """The sha256 of how the task reads and of all its rows; its name and place do not count."""
        return self.record()["fingerprint"]

    def record(self) -> dict[str, Any]:
        """Return what a module's file and a run's configuration say of the task, JSON-ready."""
        reading = self.model_dump(
            mode="json",
            include={"labels", "label_words", "templates", "max_tokens", *BESIDE} - {"scorer"},
        )
        data = self.data_hashes()
        digest = hashlib.sha256(json.dumps([reading, data], sort_keys=True).encode())
        return {**self.model_dump(mode="json"), "data": data, "fingerprint": digest.hexdigest()}


def load_task(
    name: str,
    *,
    limit_train: int | None = None,
    limit_validation: int | None = None,
    limit_test: int | None = None,
    label_words: Sequence[str] | Mapping[Label, str] | None = None,
    template: str | Mapping[str, str] | None = None,
    max_tokens: int | None = None,
    text: str | None = None,
    label: str | None = None,
    kind: str | None = None,
    system: str | None = None,
    max_answer: int | None = None,
    scorer: str | None = None,
    remembered: Mapping[str, Any] | None = None,
) -> Task:
    """Find a task and read what is needed to know its labels.

    Args:
        name: `lab:NAME`, a task YAML, a folder with train, validation and test files, one data
            file (split by the hash of its texts), or a hub data set (`NAME[:SUBSET][@REVISION]`).
        limit_train, limit_validation, limit_test: use at most so many rows, drawn by the hash of
            their texts.
        label_words: a word for each label, in class order or by label.
        template: a template with one `{text}`, for all kinds of host or by kind.
        max_tokens: the longest input, template and special tokens included.
        text, label: the columns of text and label; of prompt and completion.
        kind: of the task; what the columns tell if not given.
        system: the system's turn of every chat. max_answer: the most tokens that a host writes.
        scorer: "module:function" of a metric of one's own.
        remembered: a module's record of its task, whose kind, label words, templates, system's turn
            and length of answers are taken where neither a task YAML nor an argument says any;
            words for other classes are not, nor are templates for tasks of another kind.

    What a task YAML says goes before the arguments, which are for data that do not speak for
    themselves.

    Raises:
        BadInput: the data cannot be found or read, have no test split, or do not fit the labels.
    """
    path = Path(name).expanduser()
    is_yaml = path.suffix.lower() in (".yaml", ".yml")
    given = {"template": template, "max_tokens": max_tokens, "text": text, "label": label}
    given |= {"kind": kind, "system": system, "max_answer": max_answer, "scorer": scorer}
    file = _with_arguments(read_taskfile(path) if is_yaml else TaskFile(), given, name)
    known = remembered or {}
    told = ("kind", "system", "max_answer")
    file = file.model_copy(
        update={key: known.get(key) for key in told if getattr(file, key) is None}
    )
    columns = Columns(file.text, file.label, file.kind)
    source = source_of(file, path) if is_yaml else find_source(name, columns)
    reader = Reader(source)
    form = _tables(reader)[0].form
    asks = kind_named(file.kind or KIND_OF[form])
    has_classes = form == "labelled" and asks.labelled
    if file.scorer is not None and asks.of_classes:
        _log.warning(
            "notice: the scorer %s is for answers that are written (--kind completion); it is not "
            "asked of %s, which has classes",
            *(file.scorer, name),
        )
    classes = None
    if has_classes:
        classes = _find_classes(reader, file, label_words, known.get("label_words"), name)
    templates = file.template
    if templates is None and (has_classes or known.get("kind") == asks.name):
        templates = known.get("templates")
    limits = {"train": limit_train, "validation": limit_validation, "test": limit_test}
    task = Task(
        name=file.name or (path.stem if is_yaml else source.name),
        source=name,
        version=file.version,
        labels=classes.labels if classes else (),
        label_words=classes.words if classes else None,
        templates=templates_of(templates, name, TEMPLATES if has_classes else _PLAIN),
        max_tokens=file.max_tokens or asks.max_tokens,
        splits={split: str(part) for split, part in reader.parts.items()},
        limits={
            split: _positive(limit, split) for split, limit in limits.items() if limit is not None
        },
        kind=asks.name,
        form=form,
        flat=form == CHATS and (file.template is not None or bool(known.get("flat"))),
        system=file.system,
        max_answer=file.max_answer,
        scorer=file.scorer,
    )
    task._reader, task._classes, task._says_template = reader, classes, templates is not None
    return task


def _find_classes(
    reader: Reader,
    file: TaskFile,
    words: Sequence[str] | Mapping[Label, str] | None,
    remembered: Sequence[str] | None,
    name: str,
) -> Classes:
    """Labels and words as the YAML, the argument, a module or the data say, the first that does."""
    tables = _tables(reader)
    names = tables[0].names
    found = [label for table in tables for label in table.labels]
    said_in = tables[0].origin if len(tables) == 1 else reader.source.name
    if file.labels is None:
        if words is None and remembered and len(remembered) == len(names or set(found)):
            words = remembered
        given = words if words is not None else reader.source.words()
        return classes_from_data(found, names, given, said_in)
    classes = classes_from_mapping(file.labels, names, name)
    if words is not None and classes_from_data(found, names, words, said_in).words != classes.words:
        _log.warning("%s says its label words itself; those given are not used", name)
    return classes


def _tables(reader: Reader) -> list[Table]:
    """The tables of the first split."""
    return reader.tables(next(iter(reader.parts.values())).split)


def _with_arguments(file: TaskFile, given: Mapping[str, object], name: str) -> TaskFile:
    """The YAML's content, completed by arguments; one that the YAML settles is not used."""
    asked = taskfile({key: value for key, value in given.items() if value is not None}, name)
    new = {}
    for key in asked.model_fields_set:
        if getattr(file, key) is None:
            new[key] = getattr(asked, key)
        elif getattr(file, key) != getattr(asked, key):
            _log.warning("%s says `%s` itself; the one given is not used", name, key)
    return file.model_copy(update=new)


def templates_of(
    template: str | Mapping[str, str] | None, name: str, usual: Mapping[str, str] = TEMPLATES
) -> dict[str, str]:
    """A template for each kind of host; a space at the end is left to the label word.

    Args:
        template: one for all kinds, or by kind; kinds without any have their usual one.
        name: who says it, for messages.

    Raises:
        BadInput: an unknown kind of host, or a template without one `{text}`.
    """
    given = dict.fromkeys(TEMPLATES, template) if isinstance(template, str) else template
    templates = {**usual, **(given or {})}
    for kind, text in templates.items():
        if kind not in TEMPLATES:
            raise BadInput(
                f"{name}: unknown kind of host {kind!r} in `template`."
                f"{did_you_mean(kind, TEMPLATES)} Known: {', '.join(TEMPLATES)}."
            )
        if text.count("{text}") != 1:
            raise BadInput(
                f"{name}: the template {text!r} must have {{text}} once, where the text goes."
            )
    others = sorted({field for text in templates.values() for field in _FIELD.findall(text)})
    if others:
        _log.warning(
            "notice: %s: %s in the template stands there as it is: {text} alone is filled in",
            name,
            " and ".join(others),
        )
    return {kind: text.rstrip(" ") for kind, text in templates.items()}


def _positive(limit: int, split: str) -> int:
    if limit < 1:
        raise BadInput(f"limit_{split} is {limit}; it must be at least 1.")
    return limit


def _hash_rows(rows: Rows) -> str:
    whole = [rows.texts, rows.labels, *([rows.answers] if rows.answers else [])]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()

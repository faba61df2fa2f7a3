"""The splits of a task: which rows of its source belong to train, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peftport.errors import BadInput
from peftport.tasks import sampling
from peftport.tasks.labels import Classes
from peftport.tasks.readers import SPLITS, Table
from peftport.tasks.sources import WHOLE, Source

VALIDATION_SHARE = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rows:
    """The rows of a split.

    Attributes:
        texts: what is put before a host.
        labels: of tasks with classes, the class of each text (an index into `Task.labels`); else
            the text of the answer, the number of the right one, or 0 where nothing is asked for.
        answers: of rows with answers of their own, those of each.
    """

    texts: list[str]
    labels: list[Any]
    answers: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class Part:
    """A split as the share [low, high) of the rows of one of the source's splits."""

    split: str
    low: float = 0.0
    high: float = 1.0

    def __str__(self) -> str:
        share = f"{100 * (self.high - self.low):.0f}% of " if self.high - self.low < 1 else ""
        return f"{share}{'the file' if self.split == WHOLE else self.split}"


class Reader:
    """Reads a task's splits out of its source.

    Raises:
        BadInput: the source has no labelled rows to test on.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._tables: dict[str, list[Table]] = {}
        self.parts = self._decide_parts()

    def tables(self, source_split: str) -> list[Table]:
        """The tables of one of the source's own splits, read once."""
        if source_split not in self._tables:
            self._tables[source_split] = self.source.read(source_split)
        return self._tables[source_split]

    def rows(self, split: str, classes: Classes | None, limit: int | None) -> Rows:
        """The rows of a split, at most `limit` of them; BadInput when there are none.

        Args:
            classes: of a task that has some.
        """
        part = self.parts.get(split)
        if part is None:
            there = ", ".join(self.parts)
            raise BadInput(f"task {self.source.name} has no {split} split; it has: {there}.")
        tables = self.tables(part.split)
        texts = [text for table in tables for text in table.texts]
        labels = [label for table in tables for label in _labels(table, classes)]
        answers = [each for table in tables for each in table.answers]
        chosen = sampling.share(texts, part.low, part.high)
        if not chosen:
            raise BadInput(
                f"{tables[0].origin} has {len(texts)} rows, of which none falls to the {split} "
                f"split ({part}): it is too small, or has the same text all over."
            )
        if limit is not None:
            kept = sampling.sampled_rows([texts[row] for row in chosen], limit)
            chosen = [chosen[i] for i in kept]
        return Rows(
            [texts[row] for row in chosen],
            [labels[row] for row in chosen],
            tuple(answers[row] for row in chosen) if answers else (),
        )

    def _decide_parts(self) -> dict[str, Part]:
        """Decide what each split is made of; validation is never cut from the test rows."""
        name, there, v = self.source.name, self.source.splits(), VALIDATION_SHARE
        if there == (WHOLE,):
            _log.warning("%s is one file: 80%% of it is train, 10%% validation, 10%% test", name)
            shares = {"train": (2 * v, 1.0), "validation": (0.0, v), "test": (v, 2 * v)}
            return {split: Part(WHOLE, *share) for split, share in shares.items()}
        if "test" not in there:
            raise BadInput(
                f"task {name} has no test split; it has: {', '.join(there) or 'none'}. Add a test "
                "file, or say under `splits` in a task YAML what to test on."
            )
        parts = {split: Part(split) for split in SPLITS if split in there}
        if self._is_unlabelled("test"):
            if "validation" not in there:
                raise BadInput(f"the test rows of task {name} have no labels (all are -1).")
            _log.warning("%s: its test rows have no labels; its validation is the test", name)
            parts["test"] = parts.pop("validation")
        if "validation" not in parts and "train" in parts:
            _log.warning("%s: %.0f%% of train is set apart as validation", name, 100 * v)
            parts["train"] = Part("train", v, 1.0)
            parts["validation"] = Part("train", 0.0, v)
        return {split: parts[split] for split in SPLITS if split in parts}

    def _is_unlabelled(self, source_split: str) -> bool:
        tables = self.tables(source_split)
        return all(label == -1 for table in tables for label in table.labels)


def _labels(table: Table, classes: Classes | None) -> Sequence[Any]:
    """What is asked for in each row: its class, or what its form has for it. Labels that a task
    does not want are nothing."""
    if classes is not None:
        return classes.of(table.labels, table.origin)
    return [0] * len(table.labels) if table.form == "labelled" else table.labels

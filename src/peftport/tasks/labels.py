"""Labels as they stand in data, put into classes and words."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from peftport.errors import BadInput

Label = int | str

BINARY_WORDS = ("terrible", "great")
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)(\.0+)?")
_BOOLEAN = {"true", "True", "TRUE", "false", "False", "FALSE"}
_log = logging.getLogger(__name__)


def canonical(value: object) -> Label:
    """Return the one form of a label that every file format and a YAML key agree on.

    Whole numbers, written as text or not, are ints; booleans are "true" and "false"; other text
    is itself without the space around it.

    Raises:
        ValueError: the value is no label; its text says what it is instead.
    """
    if value is None:
        raise ValueError("no label")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"the label {value!r}, which is not a whole number")
        return int(value)
    if not isinstance(value, str):
        raise ValueError(f"a label of type {type(value).__name__}")
    text = value.strip()
    if not text:
        raise ValueError("no label")
    if _INTEGER.fullmatch(text):
        return int(text.split(".")[0])
    return text.lower() if text in _BOOLEAN else text


def class_order(labels: Iterable[Label]) -> tuple[Label, ...]:
    """Return the distinct labels in class order: numbers by value, then text by alphabet."""
    return tuple(sorted(set(labels), key=lambda label: (isinstance(label, str), label)))


@dataclass(frozen=True)
class Classes:
    """The labels of a task in class order, their words, and where both are said.

    `words` is None when nothing says how the labels are called in words.
    """

    labels: tuple[Label, ...]
    words: tuple[str, ...] | None
    said_in: str

    def of(self, labels: Sequence[Label], origin: str) -> list[int]:
        """Return the class of each label; BadInput names one that has none, its row and file."""
        number = {label: index for index, label in enumerate(self.labels)}
        try:
            return [number[label] for label in labels]
        except KeyError as unknown:
            label = unknown.args[0]
            known = ", ".join(map(repr, self.labels))
            raise BadInput(
                f"row {labels.index(label) + 1} of {origin} has the label {label!r}, which has no "
                f"label word: {self.said_in} has the labels {known}. Add it to `labels` in a task "
                "YAML, or correct the row."
            ) from None


def classes_from_mapping(
    mapping: Mapping[Label, str], names: Sequence[str] | None, said_in: str
) -> Classes:
    """Classes as a mapping of labels (or of their `names`, by number) to words says them.

    Raises:
        BadInput: fewer than two labels, a label twice, or an empty word.
    """
    if names is not None:
        numbers = {canonical(name): number for number, name in enumerate(names)}
        called: dict[Label, Label] = {}  # by its number
        for label in mapping:
            number = numbers.get(label, label)
            if number in called:
                raise BadInput(
                    f"{said_in} has one label twice, as {called[number]!r} and as {label!r}."
                )
            called[number] = label
        mapping = {number: mapping[label] for number, label in called.items()}
    labels = class_order(mapping)
    return _checked(Classes(labels, tuple(mapping[label] for label in labels), said_in))


def classes_from_data(
    found: Iterable[Label],
    names: Sequence[str] | None,
    words: Sequence[str] | Mapping[Label, str] | None,
    said_in: str,
) -> Classes:
    """Classes of the labels `found` in the data.

    Words are, in this order: `words` as given; the `names` that the data give their numbers; the
    labels themselves when they are text; "terrible" and "great" for 0 and 1; else None.

    Raises:
        BadInput: fewer than two labels, or given words that do not fit the labels.
    """
    labels = tuple(range(len(names))) if names is not None else class_order(found)
    if isinstance(words, Mapping):
        given = {canonical(label): word for label, word in words.items()}
        for label in labels:
            if label not in given:
                raise BadInput(
                    f"the label {label!r} of {said_in} has no label word; "
                    f"there are words for {', '.join(map(repr, given))}."
                )
        words = [given[label] for label in labels]
    if words is not None and len(words) != len(labels):
        raise BadInput(
            f"{len(words)} label words ({', '.join(words)}) for the {len(labels)} labels of "
            f"{said_in}: {', '.join(map(repr, labels))}. Give one word a label, in this order."
        )
    if words is None:
        words = _own_words(labels, names, said_in)
    return _checked(Classes(labels, tuple(words) if words is not None else None, said_in))


def _own_words(
    labels: tuple[Label, ...], names: Sequence[str] | None, said_in: str
) -> Sequence[str] | None:
    if names is not None:
        return names
    if all(isinstance(label, str) for label in labels):
        return [str(label) for label in labels]
    if labels == (0, 1):
        _log.info("%s: the labels 0 and 1 are read as %r and %r", said_in, *BINARY_WORDS)
        return BINARY_WORDS
    return None


def _checked(classes: Classes) -> Classes:
    """The classes, their words without space around them: whoever reads a word puts it there."""
    if len(classes.labels) < 2:
        found = f"only the label {classes.labels[0]!r}" if classes.labels else "none"
        raise BadInput(f"a task needs at least two labels; {classes.said_in} has {found}.")
    for label, word in zip(classes.labels, classes.words or (), strict=False):
        if not word.strip():
            raise BadInput(f"the label word of {label!r} in {classes.said_in} is empty.")
    words = classes.words
    return classes if words is None else replace(classes, words=tuple(w.strip() for w in words))

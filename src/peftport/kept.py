"""What a tested module answered, as bytes that a store keeps, so that a new metric never needs a
rerun. What is kept of an example is said by the task's kind (`peftport.kind`).

Class scores are kept in half precision. What all texts have in common is kept apart in single
precision, because the differences between texts are often far smaller: a set of scores is the
classes' means, float32 (classes,), followed by what each text has beyond them, float16 (texts,
classes). What a text gives to all classes alike changes nothing and is left out.
"""

from __future__ import annotations

import json
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftport.correction import most_likely, offsets

_LARGEST = float(np.finfo(np.float16).max)
_MOST = 1 << 28
"""Bytes of texts at most: what is more is nothing that a study wrote."""


@dataclass(frozen=True)
class Answers:
    """What a tested module answered, as bytes.

    predictions: of classes the class of every test example, uint8 or (many classes) uint16; where
    a host writes what it wrote; else nothing. scores: what else is kept of every test example.
    unlabelled: class scores of the texts that the label-free correction rests on. Stores of older
    packages have predictions alone.
    """

    predictions: bytes
    scores: bytes | None = None
    unlabelled: bytes | None = None


@dataclass(frozen=True)
class Lengths:
    """Bytes of what a run keeps: of its predictions (None where they can be any number) and of its
    scores; `classes` of its scores of unlabelled texts, 0 where it has none."""

    predictions: int | None
    scores: int
    classes: int


def pack_scores(scores: NDArray[np.floating]) -> bytes:
    """Class scores (texts, classes) as bytes."""
    wide = scores.astype(np.float64)
    wide -= wide.mean(1, keepdims=True)
    means = wide.mean(0).astype(np.float32)
    beyond = np.clip(wide - means, -_LARGEST, _LARGEST).astype(np.float16)
    return means.tobytes() + beyond.tobytes()


def unpack_scores(data: bytes, classes: int) -> NDArray[np.float32]:
    """Class scores (texts, classes) from bytes."""
    means = np.frombuffer(data, np.float32, classes)
    beyond = np.frombuffer(data, np.float16, offset=means.nbytes).reshape(-1, classes)
    return beyond.astype(np.float32) + means


def corrected(unlabelled: bytes, classes: int) -> NDArray[np.int64]:
    """The corrected answers to unlabelled texts, (texts,), from their scores as bytes."""
    scores = unpack_scores(unlabelled, classes)
    return most_likely(scores, offsets(scores))


def class_bytes(classes: int, values: Sequence[int]) -> bytes:
    """Class indices as bytes: uint8, or uint16 for more than 256 classes."""
    return array("B" if classes <= 256 else "H", values).tobytes()


def unpack_classes(data: bytes, classes: int) -> NDArray[np.integer]:
    """Class indices (texts,) from bytes, of the narrowest type that holds them."""
    return np.frombuffer(data, np.uint8 if classes <= 256 else np.uint16)


class Parts(dict[str, NDArray[np.floating] | None]):
    """Metric -> what each example adds to its figure, (examples,), where nothing else is kept."""


def pack_parts(parts: Sequence[NDArray[np.floating] | None], examples: int) -> bytes:
    """What examples add to figures as bytes; NaN where there is no figure."""
    nothing = np.full(examples, np.nan)
    return np.stack([nothing if part is None else part for part in parts]).tobytes()


def unpack_parts(data: bytes, metrics: Sequence[str]) -> Parts:
    """The same from bytes."""
    table = np.frombuffer(data, np.float64).reshape(len(metrics), -1)
    return Parts(
        (name, None if np.isnan(part).any() else part)
        for name, part in zip(metrics, table, strict=True)
    )


def pack_values(values: Any) -> bytes:
    """Texts and numbers as compressed JSON."""
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 9)


def unpack_values(data: bytes) -> Any:
    """The same from bytes; ValueError where they are none."""
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data, _MOST)
    except zlib.error as error:
        raise ValueError(f"it holds texts that cannot be read ({error})") from error
    if reader.unconsumed_tail or not reader.eof:
        raise ValueError("it holds texts that are cut off or of no usual size")
    return json.loads(text)

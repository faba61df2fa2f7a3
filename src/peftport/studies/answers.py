"""What a module answered, as bytes that a store keeps, so that a new metric never needs a rerun.

Scores are kept in half precision. What all texts have in common is kept apart in single precision,
because the differences between texts are often far smaller: a set of scores is the classes' means,
float32 (classes,), followed by what each text has beyond them, float16 (texts, classes). What a
text gives to all classes alike changes nothing and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from peftport.correction import answers, offsets
from peftport.metrics import Evaluation, Scored, offsets_of
from peftport.studies.work import Answers

_LARGEST = float(np.finfo(np.float16).max)


def packed(evaluation: Evaluation) -> Answers:
    """An evaluation's answers as bytes."""
    scored, unlabelled = evaluation.scored, evaluation.unlabelled
    return Answers(
        predictions=scored.predictions.astype(_of_classes(scored.classes)).tobytes(),
        scores=pack_scores(scored.scores),
        unlabelled=None if unlabelled is None else pack_scores(unlabelled),
    )


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


class Unpacked(Mapping[str, Scored]):
    """Run id -> class scores, unpacked whenever they are asked for: a large study's would not fit
    into memory otherwise.

    Args:
        packed: run id -> answers with scores, true classes, and the number of classes.
    """

    def __init__(self, packed: Mapping[str, tuple[Answers, NDArray[np.integer], int]]) -> None:
        self._packed = packed

    def __getitem__(self, run_id: str) -> Scored:
        found, labels, classes = self._packed[run_id]
        assert found.scores is not None
        scores, beside = unpack_scores(found.scores, classes), None
        if found.unlabelled is not None:
            beside = unpack_scores(found.unlabelled, classes)
        return Scored(scores, labels, offsets_of(beside))

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._packed


def corrected(unlabelled: bytes, classes: int) -> NDArray[np.int64]:
    """The corrected answers to unlabelled texts, (texts,), from their scores as bytes."""
    scores = unpack_scores(unlabelled, classes)
    return answers(scores, offsets(scores))


def unpack_classes(data: bytes, classes: int) -> NDArray[np.integer]:
    """Class indices (texts,) from bytes, of the narrowest type that holds them."""
    return np.frombuffer(data, _of_classes(classes))


def _of_classes(classes: int) -> type[np.unsignedinteger]:
    return np.uint8 if classes <= 256 else np.uint16

"""The label-free correction of class scores, the same for a bare host and for every module.

Language models know a task before any module comes, and what they lack is often a threshold: one
answer is given to every text, while the scores rank the texts well. What a threshold can win is no
merit of a module. So every set of class scores is corrected in one way before anything is
compared: an offset is added to each class, so that on unlabelled texts of the task each class is
answered as often as it is taken to occur. Neither a label nor a test text is looked at.

It is batch calibration (Zhou et al. 2023, arXiv 2309.17249) with the classes' shares of the
answers in place of their mean probabilities: the shares do not depend on how sharp the scores are,
in which a bare host and a trained module differ. For two classes, equally frequent, the threshold
is the median of the texts' score differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

TEXTS = 500
"""Unlabelled texts that a correction looks at, at most; the first of a draw from the training
texts, whose labels are not read."""
FEWEST = 16
"""With fewer texts than these there is no correction."""
_HALVINGS, _SWEEPS = 11, 60
_LEAST = 1e-12


def offsets(
    scores: NDArray[np.floating], frequencies: Sequence[float] | None = None
) -> NDArray[np.float64]:
    """What to add to class scores so that classes are answered as often as they occur: (classes,).

    Of mean 0. For more than two classes they are the dual of the assignment of texts to classes of
    given sizes: each class gets its share of soft answers, which are made harder and harder (an
    entropy that goes to nothing, Cuturi 2013, arXiv 1306.0895). No class goes before another.

    Args:
        scores: class scores of unlabelled texts, (texts, classes).
        frequencies: share of each class among them; equal shares if not given.
    """
    wide = np.asarray(scores, np.float64)
    classes = wide.shape[1]
    shares = np.full(classes, 1 / classes) if frequencies is None else np.asarray(frequencies)
    found = np.zeros(classes)
    if classes == 2:
        found[1] = -np.quantile(wide[:, 1] - wide[:, 0], 1 - shares[1])
        return found - found.mean()
    wanted = np.log(np.maximum(shares, _LEAST))
    centred = wide - wide.mean(1, keepdims=True)
    for softness in np.maximum(centred.std(), _LEAST) * 0.5 ** np.arange(_HALVINGS):
        for _ in range(_SWEEPS):
            soft = (centred + found) / softness
            soft = np.exp(soft - soft.max(1, keepdims=True))  # (texts, classes)
            given = (soft / soft.sum(1, keepdims=True)).mean(0)
            found += softness * (wanted - np.log(np.maximum(given, _LEAST)))
    return found - found.mean()


def most_likely(
    scores: NDArray[np.floating], offsets: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """The class with the highest score of each row, after a correction where one is given:
    (rows, classes) -> (rows,)."""
    moved = scores if offsets is None else np.asarray(scores, np.float64) + offsets
    return np.asarray(moved.argmax(1))


def agreement(first: NDArray[np.integer], second: NDArray[np.integer]) -> float | None:
    """Cohen's kappa of two sets of answers (rows,): 1 where all agree, 0 where no more do than by
    chance. None where both name one class alone, so that chance explains everything."""
    known = np.union1d(first, second)
    alike = float(np.mean(first == second))
    chance = float(sum(np.mean(first == c) * np.mean(second == c) for c in known))
    return None if chance >= 1 else (alike - chance) / (1 - chance)

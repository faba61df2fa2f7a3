"""What is measured of a module's predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Evaluation:
    """One module's test.

    predictions: (n,) class indices. scores: (n, classes) logits.
    auroc: of the second class for two classes, else the unweighted mean of one against the rest;
        NaN when a class does not occur. log_loss: in nats.
    """

    accuracy: float
    macro_f1: float
    auroc: float
    log_loss: float
    n_test: int
    predictions: NDArray[np.int64]
    scores: NDArray[np.float32]

    def figures(self) -> dict[str, float | int | None]:
        """The figures without the predictions; None stands for an AUROC that does not exist."""
        auroc = None if np.isnan(self.auroc) else self.auroc
        return {
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "auroc": auroc,
            "log_loss": self.log_loss,
            "n_test": self.n_test,
        }


def measure(scores: NDArray[np.float32], labels: NDArray[np.integer]) -> Evaluation:
    """Measure logits (n, classes) against labels (n,); all scores must be finite."""
    classes = range(scores.shape[1])
    predictions = scores.argmax(1)
    wide = scores.astype(np.float64)
    auroc = float("nan")
    if len(np.unique(labels)) == len(classes):
        against_rest = classes[-1:] if len(classes) == 2 else classes
        auroc = float(np.mean([_area(_margin(wide, c), labels == c) for c in against_rest]))
    of_label = wide[np.arange(len(labels)), labels]
    return Evaluation(
        accuracy=float(np.mean(predictions == labels)),
        macro_f1=float(np.mean([_f1(predictions == c, labels == c) for c in classes])),
        auroc=auroc,
        log_loss=float(np.mean(_log_sum_exp(wide) - of_label)),
        n_test=len(labels),
        predictions=predictions,
        scores=scores,
    )


# Written out, because to import them from a library takes longer than a small host's training.


def _f1(said: NDArray[np.bool_], true: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall of one class; 0 when it never comes."""
    return 2 * float(np.sum(said & true)) / max(1, int(said.sum() + true.sum()))


def _area(margins: NDArray[np.float32], true: NDArray[np.bool_]) -> float:
    """Part of the pairs of a true row and another in which the true one's margin is larger, ties
    counted half: from the sum of the true rows' ranks (Mann & Whitney 1947)."""
    _, place, counts = np.unique(margins, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each margin that occurs
    positive = int(true.sum())
    above = ranks[place[true]].sum() - positive * (positive + 1) / 2
    return float(above / (positive * (len(true) - positive)))


def _margin(scores: NDArray[np.float64], one: int) -> NDArray[np.float32]:
    """Log-odds of a class against the rest, (n,).

    They order the rows as the probability does and do not saturate; single precision, which the
    scores have, keeps equal what the sum's rounding would tell apart.
    """
    rest = _log_sum_exp(np.delete(scores, one, axis=1))
    return (scores[:, one] - rest).astype(np.float32)


def _log_sum_exp(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, classes) -> (n,), without overflow."""
    most = scores.max(1)
    return most + np.log(np.exp(scores - most[:, None]).sum(1))

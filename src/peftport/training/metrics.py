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
    """Measure logits (n, classes) against labels (n,); all scores must be finite.

    In numpy alone: scikit-learn has the same figures, but every worker would have to wait for its
    import.
    """
    classes = np.arange(scores.shape[1])
    predictions = scores.argmax(1)
    wide = scores.astype(np.float64)
    auroc = float("nan")
    if len(np.unique(labels)) == len(classes):
        against_rest = classes[-1:] if len(classes) == 2 else classes
        auroc = float(np.mean([_area(labels == c, _margin(wide, c)) for c in against_rest]))
    chosen = wide[np.arange(len(labels)), labels] - _log_sum_exp(wide)  # (n,)
    return Evaluation(
        accuracy=float(np.mean(predictions == labels)),
        macro_f1=float(np.mean([_f1(labels == c, predictions == c) for c in classes])),
        auroc=auroc,
        log_loss=float(-chosen.mean()),
        n_test=len(labels),
        predictions=predictions,
        scores=scores,
    )


def _f1(is_one: NDArray[np.bool_], said_one: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall, of (n,) and (n,); 0 for a class that never comes."""
    both = int(is_one.sum() + said_one.sum())
    return 2 * int((is_one & said_one).sum()) / both if both else 0.0


def _area(is_one: NDArray[np.bool_], margin: NDArray[np.float32]) -> float:
    """Share of the pairs of a one and another in which the one has the larger margin; ties count
    half. Both (n,); the area under the curve (Hanley & McNeil 1982)."""
    ones, others = margin[is_one], np.sort(margin[~is_one])
    below, up_to = (np.searchsorted(others, ones, side) for side in ("left", "right"))
    return float(np.mean(below + up_to) / (2 * len(others)))


def _margin(scores: NDArray[np.float64], one: int) -> NDArray[np.float32]:
    """Log-odds of a class against the rest, (n,).

    They order the rows as the probability does and do not saturate; single precision, which the
    scores have, keeps equal what the sum's rounding would tell apart.
    """
    return (scores[:, one] - _log_sum_exp(np.delete(scores, one, axis=1))).astype(np.float32)


def _log_sum_exp(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, classes) -> (n,)."""
    largest = scores.max(1)
    return largest + np.log(np.exp(scores - largest[:, None]).sum(1))

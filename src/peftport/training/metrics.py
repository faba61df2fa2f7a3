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
    from scipy.special import log_softmax
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    classes = np.arange(scores.shape[1])
    predictions = scores.argmax(1)
    wide = scores.astype(np.float64)
    auroc = float("nan")
    if len(np.unique(labels)) == len(classes):
        against_rest = classes[-1:] if len(classes) == 2 else classes
        auroc = float(np.mean([roc_auc_score(labels == c, _margin(wide, c)) for c in against_rest]))
    chosen = log_softmax(wide, 1)[np.arange(len(labels)), labels]
    return Evaluation(
        accuracy=float(accuracy_score(labels, predictions)),
        macro_f1=float(
            f1_score(labels, predictions, labels=classes, average="macro", zero_division=0)
        ),
        auroc=auroc,
        log_loss=float(-chosen.mean()),
        n_test=len(labels),
        predictions=predictions,
        scores=scores,
    )


def _margin(scores: NDArray[np.float64], one: int) -> NDArray[np.float32]:
    """Log-odds of a class against the rest, (n,).

    They order the rows as the probability does and do not saturate; single precision, which the
    scores have, keeps equal what the sum's rounding would tell apart.
    """
    from scipy.special import logsumexp

    rest = logsumexp(np.delete(scores, one, axis=1), axis=1)
    return (scores[:, one] - rest).astype(np.float32)

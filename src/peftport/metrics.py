"""What is measured of class scores. A new metric is one function and one line in `METRICS`.

Every metric is a mean over the test examples of a part that each of them has. The parts of an
accuracy are ones and zeros. Those of a figure that is no mean by itself, such as AUROC, are its
value and the example's influence on it (Hampel 1974; for AUROC the structural components of DeLong
et al. 1988), so that their mean over resampled examples is, to the first order, the figure of the
resample. So one way of making intervals serves all metrics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from peftport import correction
from peftport.intervals import are_shares, half_width, paired_shares, wilson
from peftport.plugins import added

Parts = NDArray[np.floating] | None


@dataclass(frozen=True)
class Scored:
    """Class scores of test examples, with the true classes.

    Attributes:
        scores: logits (n, classes), finite.
        labels: (n,).
        offsets: the label-free correction, (classes,); None where there were no texts for it.
    """

    scores: NDArray[np.floating]
    labels: NDArray[np.integer]
    offsets: NDArray[np.float64] | None = None

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """The classes as answered, (n,)."""
        return correction.most_likely(self.scores)

    @cached_property
    def corrected(self) -> NDArray[np.int64] | None:
        """The classes after the correction, (n,)."""
        return None if self.offsets is None else correction.most_likely(self.scores, self.offsets)

    @cached_property
    def wide(self) -> NDArray[np.float64]:
        """The scores in double precision."""
        return self.scores.astype(np.float64)

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return self.scores.shape[1]


@dataclass(frozen=True)
class Scale:
    """How figures of a metric are compared and shown.

    Attributes:
        better: which way is better.
        share: whether figures lie between 0 and 1.
        digits: decimals that are worth showing.
        worth: the least difference that is worth the name.
    """

    better: Literal["higher", "lower"] = "higher"
    share: bool = True
    digits: int = 2
    worth: float = 0.05

    @property
    def sign(self) -> int:
        """What figures are multiplied with so that more is better."""
        return 1 if self.better == "higher" else -1


SHARES = Scale()
"""Of accuracies and the like."""


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: what tables call it.
        better: which way is better.
        parts: what each example adds, (n,), of which the figure is the mean; None where there is
            no figure. It is given what a task's kind keeps of the examples: of classes `Scored`.
        share, digits, worth: as for a `Scale`.
        per: what of each example it is a mean over, where examples count by their size: "tokens"
            or "sizes", of what a kind keeps. Of two hosts that read other tokens, or another part
            of a text, such figures say nothing beside each other.
    """

    title: str
    better: Literal["higher", "lower"]
    parts: Callable[[Any], Parts]
    share: bool = False
    digits: int = 2
    worth: float = 0.05
    per: Literal["", "tokens", "sizes"] = ""

    @property
    def scale(self) -> Scale:
        """How figures are compared and shown."""
        return Scale(self.better, self.share, self.digits, self.worth)

    @property
    def sign(self) -> int:
        """As of a `Scale`."""
        return self.scale.sign

    @property
    def directed(self) -> str:
        """The title, with the direction where that is not the usual one."""
        return self.title if self.better == "higher" else f"{self.title} (lower is better)"

    def figure(self, scored: Any) -> float | None:
        """The figure; None where there is none."""
        parts = self.parts(scored)
        return None if parts is None else float(parts.mean())

    def interval(self, scored: Any) -> tuple[float, float] | None:
        """The 95 % interval of the figure over the test examples; None where there is no figure.

        Of a share of the examples it is Wilson's (1927), which does not shrink to nothing where
        all or none of a few are right; else Student's, cut to what the figure can be.
        """
        parts = self.parts(scored)
        if parts is None:
            return None
        if self.share and are_shares(parts):
            middle, half = wilson(float(parts.mean()), len(parts))
        else:
            middle, half = float(parts.mean()), half_width(parts)
        low, high = middle - half, middle + half
        least = 0.0 if self.share or self.better == "lower" else -math.inf
        return max(low, least), min(high, 1.0 if self.share else math.inf)

    def difference(self, scored: Any, other: Any) -> tuple[float, float, float] | None:
        """By how much the figure is above that of another test of the same examples, with the ends
        of the 95 % interval over them; None where one of the two has no figure, or they do not
        compare.

        Of shares of the examples the interval is Newcombe's for paired data (1998, Statistics in
        Medicine 17, method 10), made of Wilson's; else Student's, cut to what can be.
        """
        parts, beside = self.parts(scored), self.parts(other)
        if parts is None or beside is None or not self._compares(scored, other):
            return None
        if self.share and are_shares(parts) and are_shares(beside):
            return paired_shares(parts, beside)
        value, half = float((parts - beside).mean()), half_width(parts - beside)
        low, high = value - half, value + half
        return (value, max(low, -1.0), min(high, 1.0)) if self.share else (value, low, high)

    def _compares(self, scored: Any, other: Any) -> bool:
        """Whether two tests counted the same of each example."""
        if not self.per:
            return True
        return np.array_equal(getattr(scored, self.per), getattr(other, self.per))


@dataclass(frozen=True)
class Evaluation:
    """One module's test.

    Attributes:
        scored: what the task's kind keeps of the test examples: of classes `Scored`.
        unlabelled: class scores of the texts that the correction rests on, (texts, classes).
        figures: metric -> figure, and `n_test`; None stands for a figure that does not exist.
    """

    scored: Any
    unlabelled: NDArray[np.floating] | None
    figures: Mapping[str, float | int | None]

    @classmethod
    def of(
        cls,
        scored: Any,
        metrics: Mapping[str, Metric],
        examples: int,
        unlabelled: NDArray[np.floating] | None = None,
    ) -> Evaluation:
        """The figures of what is kept of so many test examples."""
        figures = {name: metric.figure(scored) for name, metric in metrics.items()}
        return cls(scored, unlabelled, {**figures, "n_test": examples})

    @property
    def predictions(self) -> NDArray[np.int64]:
        """The classes as answered, (n,)."""
        found: NDArray[np.int64] = self.scored.predictions
        return found


def measure(
    scores: NDArray[np.floating],
    labels: NDArray[np.integer],
    unlabelled: NDArray[np.floating] | None = None,
) -> Evaluation:
    """Measure logits (n, classes) against labels (n,); all scores must be finite.

    In numpy alone: scikit-learn has the same figures, but every worker would have to wait for its
    import.

    Args:
        unlabelled: scores of the texts that the correction is to rest on, (texts, classes).
    """
    scored = Scored(scores, labels, offsets_of(unlabelled))
    return Evaluation.of(scored, METRICS, len(labels), unlabelled)


def offsets_of(unlabelled: NDArray[np.floating] | None) -> NDArray[np.float64] | None:
    """The correction that rests on scores of unlabelled texts; None where they are too few."""
    if unlabelled is None or len(unlabelled) < correction.FEWEST:
        return None
    return correction.offsets(unlabelled)


def _accuracy(scored: Scored) -> Parts:
    return (scored.predictions == scored.labels).astype(np.float64)


def _corrected(scored: Scored) -> Parts:
    found = scored.corrected
    return None if found is None else (found == scored.labels).astype(np.float64)


def _macro_f1(scored: Scored) -> Parts:
    """The mean over classes of 2 hits / (ones + said ones); 0 for a class that never comes."""
    parts = np.zeros(len(scored.labels))
    for one in range(scored.classes):
        is_one, said_one = scored.labels == one, scored.predictions == one
        size = float(is_one.mean() + said_one.mean())
        if size:
            hits, both = is_one & said_one, is_one.astype(float) + said_one
            value = 2 * float(hits.mean()) / size
            parts += value + (2 * hits - value * both) / size
    return parts / scored.classes


def _auroc(scored: Scored) -> Parts:
    """Of the second class for two classes, else the unweighted mean of one against the rest."""
    if len(np.unique(scored.labels)) < scored.classes:
        return None
    ones = [1] if scored.classes == 2 else range(scored.classes)
    areas = [_area(scored.labels == one, _margin(scored.wide, one)) for one in ones]
    return np.asarray(np.mean(areas, axis=0))


def _log_loss(scored: Scored) -> Parts:
    """In nats."""
    chosen = scored.wide[np.arange(len(scored.labels)), scored.labels]
    return _log_sum_exp(scored.wide) - chosen


class Metrics(MutableMapping[str, Metric]):
    """Metrics by name: peftport's own, then those that other packages add (`peftport.plugins`),
    which are imported at the first look and not with this module, which they import themselves."""

    def __init__(self, own: dict[str, Metric]) -> None:
        self._own = own

    @cached_property
    def _all(self) -> dict[str, Metric]:
        there = added("peftport.metrics", tuple(self._own))
        return self._own | {
            name: plugin.load("metric", "peftport.metrics:Metric") for name, plugin in there.items()
        }

    def __getitem__(self, name: str) -> Metric:
        return self._all[name]

    def __setitem__(self, name: str, metric: Metric) -> None:
        self._all[name] = metric

    def __delitem__(self, name: str) -> None:
        del self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


METRICS = Metrics(
    {
        "accuracy": Metric("accuracy as answered", "higher", _accuracy, share=True),
        "corrected_accuracy": Metric("corrected accuracy", "higher", _corrected, share=True),
        "macro_f1": Metric("macro-F1", "higher", _macro_f1, share=True),
        "auroc": Metric("AUROC", "higher", _auroc, share=True),
        "log_loss": Metric("log-loss", "lower", _log_loss),
    }
)
"""Every metric by its name, which is its column's too."""


def figures_text(figures: Mapping[str, Any], metrics: Mapping[str, Metric] | None = None) -> str:
    """A test's figures in one line.

    Args:
        metrics: those of the task's kind; of classification if not given.
    """
    told = [
        f"{metric.title} {figures[name]:.3f}"
        for name, metric in (metrics or METRICS).items()
        if figures.get(name) is not None
    ]
    return f"{', '.join(told)} on {figures['n_test']} texts"


def _area(is_one: NDArray[np.bool_], margin: NDArray[np.float32]) -> NDArray[np.float64]:
    """Parts of the share of the pairs of a one and another in which the one has the larger margin;
    ties count half. All (n,); the area under the curve (Hanley & McNeil 1982)."""
    ones, others = np.sort(margin[is_one]), np.sort(margin[~is_one])
    above = _below(others, margin[is_one])  # of the others, those below each one
    under = 1 - _below(ones, margin[~is_one])  # of the ones, those above each other
    value = float(above.mean())
    parts = np.empty(len(is_one))
    parts[is_one] = value + (above - value) * (len(is_one) / len(ones))
    parts[~is_one] = value + (under - value) * (len(is_one) / len(others))
    return parts


def _below(sorted_: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Share of `sorted_` below each of `values`, equal ones half."""
    below, up_to = (np.searchsorted(sorted_, values, side) for side in ("left", "right"))
    return (below + up_to) / (2 * len(sorted_))


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

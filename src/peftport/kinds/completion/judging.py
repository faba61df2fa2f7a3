"""How near what was written comes to what should have been."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftport.errors import BadInput
from peftport.kinds.likelihood import Likelihood
from peftport.metrics import Metric

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Judged(Likelihood):
    """Losses of the references, and what was written in their place.

    Attributes:
        written, references: of each example. scorer: "module:function" of one's own metric.
        known: judgements that were made before, by the names in `JUDGEMENTS`.
    """

    written: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    scorer: str | None = None
    known: Mapping[str, NDArray[np.float64] | None] = field(default_factory=dict, repr=False)

    def judgement(self, name: str) -> NDArray[np.float64] | None:
        """One of `JUDGEMENTS`, of each example."""
        found: NDArray[np.float64] | None = (
            self.known[name] if name in self.known else getattr(self, name)
        )
        return found

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        """1 where what was written is the reference, in case, marks at the end and space alike."""
        pairs = zip(self.written, self.references, strict=True)
        return np.array([float(normalised(one) == normalised(other)) for one, other in pairs])

    @cached_property
    def chrf(self) -> NDArray[np.float64]:
        """chrF of each example, 0 to 100 (Popović 2015), by sacrebleu."""
        chrf = _library("sacrebleu", "metrics").CHRF()
        pairs = zip(self.written, self.references, strict=True)
        return np.array([chrf.sentence_score(one, [other]).score for one, other in pairs])

    @cached_property
    def rouge_l(self) -> NDArray[np.float64]:
        """ROUGE-L's F of each example, 0 to 1 (Lin 2004), by rouge-score."""
        scorer = _library("rouge_score", "rouge_scorer").RougeScorer(["rougeL"])
        pairs = zip(self.written, self.references, strict=True)
        return np.array([scorer.score(other, one)["rougeL"].fmeasure for one, other in pairs])

    @cached_property
    def own(self) -> NDArray[np.float64] | None:
        """What the user's own function says of each example; None without one."""
        if self.scorer is None:
            return None
        score = scorer_named(self.scorer)
        pairs = zip(self.written, self.references, strict=True)
        return np.array([_number(self.scorer, score, one, other) for one, other in pairs])


METRICS: Mapping[str, Metric] = {
    "token_loss": Metric(
        "loss per token", "lower", lambda judged: judged.token_loss, digits=3, per="tokens"
    ),
    "perplexity": Metric(
        "perplexity",
        "lower",
        lambda judged: judged.perplexity,
        digits=1,
        worth=0.1,
        per="tokens",
    ),
    "exact_match": Metric(
        "exact match", "higher", lambda judged: judged.judgement("exact"), share=True
    ),
    "chrf": Metric("chrF", "higher", lambda judged: judged.judgement("chrf"), digits=1, worth=2.0),
    "rouge_l": Metric("ROUGE-L", "higher", lambda judged: judged.judgement("rouge_l"), share=True),
    "own": Metric("own metric", "higher", lambda judged: judged.judgement("own")),
}

JUDGEMENTS = ("exact", "chrf", "rouge_l", "own")
"""What is found of each example from what was written to it."""


def normalised(text: str) -> str:
    """Text without differences that no reader would call one: case, runs of space, and full stops
    and commas at its end."""
    return _SPACE.sub(" ", text).strip().rstrip(".,").strip().casefold()


def _number(name: str, score: Callable[[str, str], Any], written: str, reference: str) -> float:
    """What a user's function says; BadInput unless it is a number."""
    try:
        found = score(written, reference)
    except Exception as error:  # it is somebody's own program
        raise BadInput(
            f"--scorer {name}: it failed for {written[:60]!r} and {reference[:60]!r}: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, Real) or not np.isfinite(float(found)):
        raise BadInput(
            f"--scorer {name}: it gave {found!r} for {written[:60]!r}; expected a number."
        )
    return float(found)


@lru_cache
def scorer_named(place: str) -> Callable[[str, str], Any]:
    """The function at "module:function"; BadInput when there is none."""
    name, _, function = place.partition(":")
    try:
        found = getattr(importlib.import_module(name), function)
    except Exception as error:  # whatever a module of somebody's own does when it is imported
        raise BadInput(
            f"--scorer {place}: {type(error).__name__}: {error}. Expected module:function, of a "
            "module that Python finds (PYTHONPATH): a function of what was written and of the "
            "reference that gives a number."
        ) from error
    if not callable(found):
        raise BadInput(f"--scorer {place}: {function} is no function.")
    checked: Callable[[str, str], Any] = found
    return checked


def _library(name: str, part: str) -> Any:
    try:
        return importlib.import_module(f"{name}.{part}")
    except ImportError as error:
        raise BadInput(
            f"tasks of kind completion are judged with the package {name.replace('_', '-')}: "
            "pip install 'peftport[completion]'."
        ) from error

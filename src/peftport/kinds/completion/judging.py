"""How near what was written comes to what should have been."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from peftport.errors import BadInput
from peftport.kinds.sequences import Likelihood
from peftport.metrics import Metric

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Judged(Likelihood):
    """Losses of the references, and what was written in their place.

    Attributes:
        written, references: of each example. scorer: "module:function" of one's own metric.
    """

    written: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    scorer: str | None = None

    @cached_property
    def exact(self) -> NDArray[np.float64]:
        """1 where what was written is the reference, in case, marks at the end and space alike."""
        pairs = zip(self.written, self.references, strict=True)
        return np.array([float(normal(one) == normal(other)) for one, other in pairs])

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
        found = []
        for one, other in zip(self.written, self.references, strict=True):
            value = score(one, other)
            if not isinstance(value, int | float) or not np.isfinite(value):
                raise BadInput(
                    f"--scorer {self.scorer}: it gave {value!r} for {one[:60]!r}; expected a "
                    "number."
                )
            found.append(float(value))
        return np.array(found)


METRICS: Mapping[str, Metric] = {
    "token_loss": Metric("loss per token", "lower", lambda judged: judged.token_loss),
    "perplexity": Metric("perplexity", "lower", lambda judged: judged.perplexity),
    "exact_match": Metric("exact match", "higher", lambda judged: judged.exact, share=True),
    "chrf": Metric("chrF", "higher", lambda judged: judged.chrf),
    "rouge_l": Metric("ROUGE-L", "higher", lambda judged: judged.rouge_l, share=True),
    "own": Metric("own metric", "higher", lambda judged: judged.own),
}


def normal(text: str) -> str:
    """Text without differences that no reader would call one: case, runs of space, and full stops
    and commas at its end."""
    return _SPACE.sub(" ", text).strip().rstrip(".,").strip().casefold()


@lru_cache
def scorer_named(place: str) -> Callable[[str, str], Any]:
    """The function at "module:function"; BadInput when there is none."""
    name, _, function = place.partition(":")
    try:
        found = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"--scorer {place}: {error}. Expected module:function, a function of what was written "
            "and of the reference that gives a number."
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

"""Assessments made up from class scores of known truth, for the rule that decides on them.

A text's margin is `knows` in favour of its class, and noise that is partly the host's own: of a
host and of the modules on it alike. A module's seed moves its knowledge a little. So corrected
accuracy and AUROC follow from `knows` alone, and accuracy as answered from the shift as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftport.correction import offsets
from peftport.kinds.classification import CLASSIFICATION
from peftport.metrics import METRICS, Scored
from peftport.reports.decision import Decision, rule
from peftport.reports.evidence import weigh
from peftport.reports.statistics import Series, resample_examples

DRAWS = 400
OPEN = ("copy", "port", "distil")
READ = (CLASSIFICATION.primary, CLASSIFICATION.plain, CLASSIFICATION.ranking)
"""The metrics that a decision reads."""


@dataclass(frozen=True)
class Truth:
    """What is true of an assessment.

    Attributes:
        host, ported, native: what each knows. sampled modules and fresh ones know what the host
            does.
        shift: what bare hosts, samplings and fresh modules give to the second class for nothing.
        methods: how many port methods are tried, all of them alike.
        same: the port answers as the bare host does, text by text, but for the shift.
        spread: standard deviation of a module's knowledge over seeds.
    """

    host: float = 0.3
    ported: float = 0.3
    native: float = 1.3
    shift: float = 0.0
    methods: int = 1
    same: bool = False
    spread: float = 0.1
    seeds: int = 3


def decided(truth: Truth, tested: int, rng: np.random.Generator) -> Decision:
    """The decision on one assessment with so many test texts."""
    here = _Assessment(truth, tested, rng)
    bare = here.series(truth.host, truth.shift, bare=True)
    shared = {
        "host": bare,
        "scratch": bare,  # a fresh module changes nothing yet
        "gaussian": here.series(truth.host, truth.shift),
        "native": here.series(truth.native, 0.0),
    }
    names = ("copy", *(f"map{i}" for i in range(1, truth.methods)))
    evidence = []
    for name in names:
        every = shared | {"ported": here.series(truth.ported, 0.0, bare=truth.same)}
        figures = ({c: found[metric] for c, found in every.items()} for metric in READ)
        evidence.append(weigh(name, *figures))
    return rule(evidence, tested)


class _Assessment:
    def __init__(self, truth: Truth, tested: int, rng: np.random.Generator) -> None:
        self.truth, self.rng = truth, rng
        self.labels = np.arange(tested) % 2
        self.apart = np.arange(500) % 2
        self.own = [rng.normal(size=tested), rng.normal(size=500)]

    def series(self, knows: float, shift: float, bare: bool = False) -> dict[str, Series]:
        """A condition's figures by metric; without a module nothing depends on the seed."""
        seeds = tuple(range(self.truth.seeds))
        parts: dict[str, list[np.ndarray]] = {metric: [] for metric in READ}
        for _ in seeds[:1] if bare else seeds:
            level = knows if bare else knows + self.truth.spread * self.rng.normal()
            scores, unlabelled = (
                self._scores(labels, own, level, shift, bare)
                for labels, own in zip((self.labels, self.apart), self.own, strict=True)
            )
            scored = Scored(scores, self.labels, offsets(unlabelled))
            for metric, found in parts.items():
                found.append(METRICS[metric].parts(scored))
        return {metric: self._series(np.stack(found), bare) for metric, found in parts.items()}

    def _scores(
        self, labels: np.ndarray, own: np.ndarray, knows: float, shift: float, bare: bool
    ) -> np.ndarray:
        noise = own if bare else 0.8 * own + 0.6 * self.rng.normal(size=len(own))
        margin = knows * (2 * labels - 1) + noise + shift
        return np.stack([np.zeros(len(margin)), margin], axis=1)

    def _series(self, parts: np.ndarray, bare: bool) -> Series:
        draws = resample_examples(parts, "simulated", DRAWS)
        values, seeds = parts.mean(1), tuple(range(self.truth.seeds))
        if bare:
            values, draws = np.repeat(values, len(seeds)), np.repeat(draws, len(seeds), axis=0)
        return Series(seeds, values, draws, fixed=bare)


NULLS = (
    Truth(),
    Truth(host=0.0, ported=0.0),
    Truth(host=0.9, ported=0.9, native=1.5, shift=3.0),
    Truth(host=0.9, ported=0.9, native=1.5, shift=3.0, same=True),
    Truth(methods=3),
    Truth(host=0.9, ported=0.9, native=0.95),
    Truth(host=0.9, ported=0.6, native=1.5, shift=3.0),
    Truth(spread=0.3, seeds=5),
)
"""Assessments in which no port keeps anything: hosts that know nothing, something or as much as a
native module; ports that win a threshold; several methods; donors that differ."""


def shares(truths: Sequence[Truth], tested: int, cases: int, seed: int = 0) -> dict[str, float]:
    """Action -> the share of so many assessments in which it is advised; the truths take turns."""
    rng = np.random.default_rng([seed, tested])
    actions = [decided(truths[i % len(truths)], tested, rng).action for i in range(cases)]
    return {action: actions.count(action) / cases for action in dict.fromkeys(actions)}


def opened(found: dict[str, float]) -> float:
    """The share in which a port of any kind is advised."""
    return sum(found.get(action, 0.0) for action in OPEN)

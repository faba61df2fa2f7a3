"""Assessments made up from class scores of known truth, for the rule that decides on them.

A text's margin is `knows` in favour of its class, and noise that is partly the host's own: of a
host and of the modules on it alike. A module's seed moves its knowledge a little. So corrected
accuracy and AUROC follow from `knows` alone, and accuracy as answered from the shift as well.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from peftport.correction import offsets
from peftport.kinds.classification import CLASSIFICATION
from peftport.metrics import METRICS, Scored
from peftport.reports.decision import Decision, rule
from peftport.reports.evidence import weigh
from peftport.reports.statistics import Series, resample_examples

TEXTS = 500
"""Unlabelled texts, on which the correction rests."""
DRAWS = 400
AT_ONCE = 100
"""Assessments that are drawn together."""
NEAR = 1.5
"""Standard errors. The rule asks for 1.96 at the least, of errors that resampling gives."""
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


@dataclass(frozen=True)
class _Answers:
    """Margins of a condition's modules in many assessments.

    Attributes:
        tested, texts: of the test texts and of the unlabelled ones, (cases, modules, texts).
    """

    tested: np.ndarray
    texts: np.ndarray

    def corrected(self) -> np.ndarray:
        """Whether the second class is the answer after the correction, (cases, modules, tested)."""
        return self.tested > np.median(self.texts, axis=2, keepdims=True)

    def scored(self, case: int, labels: np.ndarray) -> list[Scored]:
        """What the metrics are given in one assessment, of each module."""
        return [
            Scored(_as_scores(tested), labels, offsets(_as_scores(texts)))
            for tested, texts in zip(self.tested[case], self.texts[case], strict=True)
        ]


def _as_scores(margins: np.ndarray) -> np.ndarray:
    return np.stack([np.zeros_like(margins), margins], axis=1)


class Assessments:
    """Many assessments of one truth, with so many test texts each."""

    def __init__(self, truth: Truth, tested: int, cases: int, rng: np.random.Generator) -> None:
        self.truth, self.cases, self.rng = truth, cases, rng
        self.labels, self.apart = np.arange(tested) % 2, np.arange(TEXTS) % 2
        self.own = [self._noise(1, len(labels)) for labels in (self.labels, self.apart)]
        self.host = self._answers(truth.host, truth.shift, bare=True)
        self.sampled = self._answers(truth.host, truth.shift)
        self.native = self._answers(truth.native, 0.0)
        names = ("copy", *(f"map{i}" for i in range(1, truth.methods)))
        self.ports = {name: self._answers(truth.ported, 0.0, bare=truth.same) for name in names}

    def may_open(self) -> np.ndarray:
        """The assessments in which some port is `NEAR` standard errors above the bare host and the
        samplings, which is less than the rule asks for."""
        found = np.zeros(self.cases, bool)
        right = self.labels.astype(bool)
        controls = [each.corrected() == right for each in (self.host, self.sampled)]
        for port in self.ports.values():
            ported = port.corrected() == right
            apart = (ported.astype(np.float32) - control for control in controls)
            found |= np.logical_and.reduce([self._is_above(each) for each in apart])
        return np.flatnonzero(found)

    def decision(self, case: int) -> Decision:
        """What the rule says of one of them."""
        bare = self._series(self.host, case, bare=True)
        shared = {
            "host": bare,
            "scratch": bare,  # a fresh module changes nothing yet
            "gaussian": self._series(self.sampled, case),
            "native": self._series(self.native, case),
        }
        evidence = []
        for name, port in self.ports.items():
            every = shared | {"ported": self._series(port, case, bare=self.truth.same)}
            figures = ({c: found[metric] for c, found in every.items()} for metric in READ)
            evidence.append(weigh(name, *figures))
        return rule(evidence, len(self.labels))

    def _noise(self, modules: int, texts: int) -> np.ndarray:
        return self.rng.standard_normal((self.cases, modules, texts), np.float32)

    def _answers(self, knows: float, shift: float, bare: bool = False) -> _Answers:
        """A condition's; without a module nothing depends on the seed."""
        modules = 1 if bare else self.truth.seeds
        level = np.full((self.cases, modules, 1), knows, np.float32)
        if not bare:
            level += self.truth.spread * self._noise(modules, 1)
        found = []
        for labels, own in zip((self.labels, self.apart), self.own, strict=True):
            noise = own if bare else 0.8 * own + 0.6 * self._noise(modules, len(labels))
            sides = (2 * labels - 1).astype(np.float32)
            found.append(level * sides + noise + shift)  # (cases, modules, texts)
        return _Answers(*found)

    def _is_above(self, apart: np.ndarray) -> np.ndarray:
        """Whether a mean is so far above 0. The error is that of `statistics` without its
        resampling: (cases, modules, tested) -> (cases,)."""
        seeds, tested = self.truth.seeds, apart.shape[2]
        each = np.broadcast_to(apart, (self.cases, seeds, tested))
        of_seeds = each.mean(2).var(1, ddof=1) / seeds
        centred = each - each.mean(2, keepdims=True)
        own = (centred**2).sum((1, 2))
        shared = (centred.sum(1) ** 2).sum(1) - own  # of different seeds
        of_texts = shared / (seeds * (seeds - 1) * tested * (tested - 1))
        return each.mean((1, 2)) > NEAR * np.sqrt(of_seeds + np.maximum(of_texts, 0))

    def _series(self, answers: _Answers, case: int, bare: bool = False) -> dict[str, Series]:
        """A condition's figures in one assessment, by metric."""
        scored, seeds, found = answers.scored(case, self.labels), tuple(range(self.truth.seeds)), {}
        for metric in READ:
            parts = np.stack([METRICS[metric].parts(each) for each in scored])
            values, draws = parts.mean(1), resample_examples(parts, "simulated", DRAWS)
            if bare:
                values, draws = (np.repeat(x, len(seeds), axis=0) for x in (values, draws))
            found[metric] = Series(seeds, values, draws, fixed=bare)
        return found


NULLS = {
    "hosts that know something": Truth(),
    "hosts that know nothing": Truth(host=0.0, ported=0.0),
    "a port that wins a threshold": Truth(host=0.9, ported=0.9, native=1.5, shift=3.0),
    "a port that is a threshold": Truth(host=0.9, ported=0.9, native=1.5, shift=3.0, same=True),
    "three methods": Truth(methods=3),
    "hosts that know as much as native modules": Truth(host=0.9, ported=0.9, native=0.95),
    "a port that loses and wins a threshold": Truth(host=0.9, ported=0.6, native=1.5, shift=3.0),
    "five donors that differ": Truth(spread=0.3, seeds=5),
}
"""Assessments in which no port keeps anything."""


def opened(truth: Truth, tested: int, cases: int, seed: int = 0) -> float:
    """The share of so many assessments in which a port of any kind is advised.

    The rule is asked where a port may open at all; elsewhere it does not, as a test shows.
    """
    rng, found = np.random.default_rng([seed, tested]), 0
    for start in range(0, cases, AT_ONCE):
        drawn = Assessments(truth, tested, min(AT_ONCE, cases - start), rng)
        found += sum(drawn.decision(case).action in OPEN for case in drawn.may_open())
    return found / cases

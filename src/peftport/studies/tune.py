"""Chooses learning rates on validation: every candidate for every condition alike.

A study is run once for each candidate rate, on few pairs and on seeds that the study itself does
not use, and tested on the validation split alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from peftport.errors import BadInput, RunFailed
from peftport.kind import USUAL, Kind, kind_named
from peftport.metrics import Metric
from peftport.studies.plan import Plan
from peftport.studies.spec import Spec, parse_spec

TRAINED = ("native", "scratch", "ported", "sampled")
"""The conditions that a rate is chosen for, all equally."""


@dataclass(frozen=True)
class Tried:
    """One technique trained with one learning rate.

    Attributes:
        accuracy: condition -> mean validation figure (`Kind.score`: of classification the corrected
            accuracy) over seeds, pairs and budgets of at least one step; a run that failed counts
            as the worst there is.
        kind: of the tasks.
    """

    technique: str
    rate: float
    accuracy: Mapping[str, float]
    kind: Kind = field(default_factory=lambda: kind_named(USUAL))

    @property
    def mean(self) -> float:
        """The mean over conditions, by which rates are chosen."""
        return sum(self.accuracy.values()) / len(self.accuracy)

    @property
    def metric(self) -> Metric:
        """What figures are of."""
        return self.kind.metrics[self.kind.primary]

    def figure(self, score: float) -> float | None:
        """A mean as the metric has it; None where every run of it failed."""
        return score * self.metric.sign if isfinite(score) else None


def candidates(spec: Spec, rates: Iterable[float], seeds: int) -> dict[float, Spec]:
    """The study of every rate: the first pair of each relation between two hosts (the first pair
    where a study has none), the first setting, `seeds` seeds above all of the study's own.

    Raises:
        BadInput: the study trains nothing that is tested.
    """
    first = max(spec.seeds) + 1
    own = {
        "pairs": _first_pairs(spec),
        "settings": spec.settings[:1],
        "conditions": tuple(c for c in spec.conditions if c in TRAINED),
        "budgets": tuple(budget for budget in spec.budgets if budget) or spec.budgets,
        "seeds": tuple(range(first, first + seeds)),
        "split": "validation",
        "continued": {},
    }
    made = {}
    for rate in sorted(set(rates)):
        training = spec.training.model_copy(
            update={
                "learning_rates": dict.fromkeys(spec.techniques, rate),
                "learning_rates_on": {},
            }
        )
        name = f"{spec.name}-rate-{rate:g}"
        made[rate] = _validated(spec.model_copy(update={**own, "training": training, "name": name}))
    if not any(run.budget for each in made.values() for run in Plan(each).runs()):
        raise BadInput(f"study {spec.name} tests nothing that was trained: it needs no rates.")
    return made


def _validated(spec: Spec) -> Spec:
    """The specification as its study's folder will give it back."""
    return parse_spec(spec.model_dump(mode="json"), f"study {spec.name}")


def _first_pairs(spec: Spec) -> tuple[Any, ...]:
    between = {pair.relation: pair for pair in reversed(spec.pairs) if pair.relation != "same"}
    return tuple(pair for pair in spec.pairs if pair in between.values()) or spec.pairs[:1]


def tried(
    rows_of: Mapping[float, Iterable[Mapping[str, Any]]], kind: Kind | None = None
) -> list[Tried]:
    """What the rows of every rate's study say, technique by technique, rates ascending.

    Args:
        kind: of the study's tasks; classification if not given.

    Raises:
        RunFailed: a technique failed with every rate, so that none can be chosen.
    """
    kind = kind or kind_named(USUAL)
    found: dict[tuple[str, float], dict[str, list[float]]] = {}
    done = set()
    for rate, rows in rows_of.items():
        for row in rows:
            if row["budget"]:
                if row["status"] == "done":
                    done.add(row["technique"])
                conditions = found.setdefault((row["technique"], rate), {})
                conditions.setdefault(row["condition"], []).append(kind.score(row))
    failed = sorted({technique for technique, _ in found} - done)
    if failed:
        raise RunFailed(
            f"no module of {', '.join(failed)} was trained with any of the rates, so that none can "
            "be chosen; `peftport study status` says why of each rate's folder."
        )
    return [
        Tried(technique, rate, {c: sum(v) / len(v) for c, v in conditions.items()}, kind)
        for (technique, rate), conditions in sorted(found.items())
    ]


def chosen_rates(every: Sequence[Tried]) -> dict[str, float]:
    """Technique -> the rate with the best mean, the smallest of equals."""
    best: dict[str, Tried] = {}
    for each in every:
        if each.technique not in best or each.mean > best[each.technique].mean:
            best[each.technique] = each
    return {technique: each.rate for technique, each in best.items()}


def record(every: Sequence[Tried], made: Mapping[float, Spec]) -> dict[str, Any]:
    """What was tried and chosen, JSON-ready."""
    return {
        "on": _where(made),
        "tried": [
            {
                "technique": each.technique,
                "learning_rate": each.rate,
                _key(each.kind): {c: each.figure(v) for c, v in each.accuracy.items()},
                "mean": each.figure(each.mean),
            }
            for each in every
        ],
        "learning_rates": chosen_rates(every),
    }


def table_text(every: Sequence[Tried], made: Mapping[float, Spec]) -> str:
    """What was tried, as a person reads it, and what was chosen, as a specification has it."""
    best = chosen_rates(every)
    conditions = [c for c in TRAINED if any(c in each.accuracy for each in every)]
    metric = every[0].metric
    lines = [
        f"Mean {metric.directed} on validation: {_where(made)}.",
        f"{'technique':<12}{'rate':>8}" + "".join(f"{c:>9}" for c in (*conditions, "mean")),
    ]
    for each in every:
        means = [*(each.accuracy.get(c) for c in conditions), each.mean]
        figures = [None if mean is None else each.figure(mean) for mean in means]
        cells = "".join(f"{'-' if a is None else format(a, '.3f'):>9}" for a in figures)
        mark = "  chosen" if best[each.technique] == each.rate else ""
        lines.append(f"{each.technique:<12}{each.rate:>8g}{cells}{mark}")
    rates = ", ".join(f"{technique}: {rate:g}" for technique, rate in best.items())
    return "\n".join([*lines, "", "training:", f"  learning_rates: {{{rates}}}"])


def _key(kind: Kind) -> str:
    return "accuracy" if kind.of_classes else kind.primary


def _where(made: Mapping[float, Spec]) -> str:
    """The pairs, the setting and the seeds that rates were tried on."""
    spec = next(iter(made.values()))
    pairs = ", ".join(f"{pair.origin} -> {pair.receiver}" for pair in spec.pairs)
    (setting,) = spec.settings
    tasks = " -> ".join(dict.fromkeys((setting.origin_task, setting.task)))
    return f"{pairs}; {tasks}; seeds {', '.join(map(str, spec.seeds))}"

"""How much of the spread of figures each factor of a study explains.

An analysis of variance of type II, by statsmodels, with main effects and interactions of two.
Reported are shares of the total sum of squares (eta squared) and no p-values: runs that share
seeds, hosts and test examples are not the independent observations that those would need.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from peftport.reports.genealogy import direction, parents
from peftport.reports.results import Cell, Results

TIMES = " \N{MULTIPLICATION SIGN} "


@dataclass(frozen=True)
class Share:
    """What one term explains: `factors` are one or two names, none for what is left over."""

    factors: tuple[str, ...]
    degrees: int
    share: float

    @property
    def name(self) -> str:
        """The term in words."""
        return TIMES.join(self.factors) or "seeds and all that is left"


@dataclass(frozen=True)
class Decomposition:
    """Shares of the variance of a figure, largest first, what is left over last.

    Attributes:
        figure: what was decomposed, in words.
        left_out: terms that the runs cannot tell from the others.
        observations: how many figures it rests on.
    """

    figure: str
    shares: tuple[Share, ...]
    left_out: tuple[str, ...]
    observations: int

    def of(self, *factors: str) -> float | None:
        """The share of one term; None when it is not in it."""
        found = (share.share for share in self.shares if share.factors == factors)
        return next(found, None)


def decompose(frame: pd.DataFrame, figure: str, factors: Sequence[str]) -> Decomposition | None:
    """Decompose the column `y` of `frame` by the columns `factors`.

    Factors with one level are passed over, and so are terms that the figures cannot tell from
    those before them. None when no factor varies, or the figure does not.
    """
    varied = [name for name in factors if frame[name].nunique() > 1]
    total = float(((frame["y"] - frame["y"].mean()) ** 2).sum())
    if not varied or total <= 1e-12:
        return None
    # Levels by number: a name such as "NaN" would be taken for a row without one.
    levels = {name: pd.factorize(frame[name], sort=True)[0] for name in varied}
    frame = frame.assign(**levels)
    kept: list[tuple[str, ...]] = []
    left_out: list[str] = []
    terms = [(name,) for name in varied] + list(combinations(varied, 2))
    # Rows of equal factors have equal columns, and add nothing to the rank.
    distinct = frame.drop_duplicates(varied)
    for term in terms:
        columns = ols(_formula([*kept, term]), distinct).exog
        if np.linalg.matrix_rank(columns) == columns.shape[1] < len(frame):
            kept.append(term)
        else:
            left_out.append(TIMES.join(term))
    if not kept:
        return None
    with warnings.catch_warnings():
        # Without any noise the model fits perfectly and statsmodels divides by nothing: the
        # sums of squares, which are all that is used, are right all the same.
        warnings.simplefilter("ignore", RuntimeWarning)
        table = anova_lm(ols(_formula(kept), frame).fit(), typ=2)
    sums, degrees = table["sum_sq"].to_numpy(), table["df"].to_numpy()
    shares = [
        Share(term, int(df), float(max(found, 0) / total))
        for term, df, found in zip([*kept, ()], degrees, sums, strict=True)
    ]
    shares.sort(key=lambda share: (not share.factors, -share.share))
    return Decomposition(figure, tuple(shares), tuple(left_out), len(frame))


def _formula(terms: Sequence[tuple[str, ...]]) -> str:
    return "y ~ " + " + ".join(":".join(f"C({name}, Sum)" for name in term) for term in terms)


def explain(results: Results, relation: str) -> tuple[Decomposition, ...]:
    """Decompose the figures, and the leads of ported over sampled modules, of one relation; both
    corrected where the study's are."""
    factors = ("technique", "pair", "direction", "setting", "budget")
    figures = _figures(results, relation)
    leads = _leads(results, relation)
    found = []
    if len(figures):
        what = "accuracy" if results.kind.of_classes else results.rests_on.title
        of = f"{what} of ported and sampled modules"
        found.append(decompose(figures, of, (*factors, "condition")))
    if len(leads):
        what = "lead of ported over sampled modules"
        found.append(decompose(leads, what, (*factors, "method")))
    return tuple(part for part in found if part is not None)


def _figures(results: Results, relation: str) -> pd.DataFrame:
    done = results.done[results.done["relation"] == relation]
    ported = done[done["condition"] == "ported"]
    sampled = done[done["condition"] == "sampled"]
    rows: list[dict[str, Any]] = []
    for row in pd.concat([ported, sampled]).itertuples(index=False):
        cell = Cell(*(getattr(row, name) for name in Cell._fields))
        if row.condition == "sampled" and row.control not in results.controls(cell)[:1]:
            continue
        condition = cell.method or row.condition
        rows.append(
            _factors(results, cell, int(row.budget), condition)
            | {"y": results.measure([row.run_id], results.metric)}
        )
    return pd.DataFrame(rows)


def _leads(results: Results, relation: str) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell in results.cells:
        for budget in results.budgets if cell.relation == relation else ():
            ported = results.series(cell, "ported", budget)
            sampled = results.series(cell, "sampled", budget, *results.controls(cell)[:1])
            if ported is None or sampled is None:
                continue
            others = dict(zip(sampled.seeds, sampled.values, strict=True))
            rows += [
                _factors(results, cell, budget, "ported") | {"y": value - others[seed]}
                for seed, value in zip(ported.seeds, ported.values, strict=True)
                if seed in others
            ]
    return pd.DataFrame(rows)


def _factors(results: Results, cell: Cell, budget: int, condition: str) -> dict[str, Any]:
    first, second = sorted((cell.origin, cell.receiver))
    return {
        "technique": cell.technique,
        "pair": f"{first} and {second}",
        "direction": direction(cell, parents(results)),
        "setting": cell.setting,
        "budget": str(budget),
        "condition": condition,
        "method": cell.method,
    }

"""Shares of the variance: against sums of squares by hand, and what is left out."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from peftport.reports.decomposition import decompose, explain
from synthetic_studies import Synthetic, founding


def frame(**levels: tuple[str, ...]) -> pd.DataFrame:
    rows = [dict(zip(levels, row, strict=True)) for row in product(*levels.values())]
    found = pd.DataFrame(rows * 5)
    return found.assign(y=np.random.default_rng(0).normal(size=len(found)))


def test_shares_of_a_balanced_grid_are_those_by_hand_and_add_up() -> None:
    table = frame(technique=("adapter", "lora", "prefix"), budget=("0", "10"))
    table["y"] += table["technique"].map({"adapter": 0.0, "lora": 1.0, "prefix": 3.0})
    found = decompose(table, "accuracy", ("technique", "budget"))
    assert found is not None
    means = table.groupby("technique")["y"].mean()
    by_hand = 10 * ((means - table["y"].mean()) ** 2).sum() / ((table["y"].var(ddof=0)) * 30)
    assert found.of("technique") == pytest.approx(by_hand)
    assert sum(share.share for share in found.shares) == pytest.approx(1)
    assert found.shares[0].factors == ("technique",)
    assert found.shares[-1].factors == ()


def test_shares_of_an_unbalanced_grid_are_of_type_two() -> None:
    table = frame(technique=("adapter", "lora"), budget=("0", "10", "100")).iloc[:-7]
    found = decompose(table, "accuracy", ("technique", "budget"))
    assert found is not None
    model = ols("y ~ C(budget) * C(technique)", table).fit()
    expected = anova_lm(model, typ=2)["sum_sq"]
    total = ((table["y"] - table["y"].mean()) ** 2).sum()
    assert found.of("technique") == pytest.approx(expected["C(technique)"] / total)
    assert found.of("budget") == pytest.approx(expected["C(budget)"] / total)


@pytest.mark.parametrize("name", ["NaN", "nan", "None", "", "inf", "a:b", "C(x)", "'"])
def test_a_level_is_one_whatever_it_is_called(name: str) -> None:
    plain = frame(technique=("adapter", "lora"), budget=("0", "10"))
    table = plain.assign(technique=plain["technique"].replace("adapter", name))
    found, expected = (decompose(t, "x", ("technique", "budget")) for t in (table, plain))
    assert found is not None and expected is not None
    for factors in ("technique", "budget"):
        assert found.of(factors) == pytest.approx(expected.of(factors))


def test_a_factor_with_one_level_is_passed_over() -> None:
    found = decompose(
        frame(technique=("adapter", "lora"), pair=("one",)), "x", ("technique", "pair")
    )
    assert found is not None
    assert {name for share in found.shares for name in share.factors} == {"technique"}


def test_terms_that_cannot_be_told_apart_are_named_and_left_out() -> None:
    table = frame(technique=("adapter", "lora"))
    table = table.assign(pair=table["technique"].map({"adapter": "one", "lora": "two"}))
    found = decompose(table, "x", ("technique", "pair"))
    assert found is not None
    assert found.left_out == ("pair", "technique \N{MULTIPLICATION SIGN} pair")


def test_nothing_is_explained_where_nothing_varies() -> None:
    assert decompose(frame(technique=("adapter",)), "x", ("technique",)) is None
    level = frame(technique=("adapter", "lora")).assign(y=0.5)
    assert decompose(level, "x", ("technique",)) is None


def test_figures_without_noise_are_decomposed_all_the_same() -> None:
    table = frame(technique=("adapter", "lora"))
    table["y"] = table["technique"].map({"adapter": 0.2, "lora": 0.8})
    found = decompose(table, "x", ("technique",))
    assert found is not None
    assert found.of("technique") == pytest.approx(1)


def test_the_factor_that_matters_is_the_one_that_explains() -> None:
    better = {"adapter": 0.85, "compacter": 0.75, "lora": 0.65, "prefix": 0.55}

    def accuracy(row: dict) -> float:
        return better[row["technique"]] if row["condition"] == "ported" else 0.5

    accuracies, leads = explain(founding(accuracy=accuracy).results(), "continuation")
    assert leads.shares[0].factors == ("technique",)
    assert leads.shares[0].share > 0.9
    assert accuracies.shares[0].factors == ("condition",)


def test_relations_are_decomposed_each_by_itself() -> None:
    results = Synthetic().results()
    for relation in ("continuation", "independent"):
        accuracies, leads = explain(results, relation)
        assert accuracies.observations == 2 * leads.observations == 2 * 2 * 3 * 3


def test_figures_that_rows_of_an_older_package_lack_are_those_of_their_scores() -> None:
    results = Synthetic(scores=True).results()
    rows = results.rows.assign(corrected_accuracy=np.nan)
    older = replace(results, rows=rows)
    assert older.metric == results.metric == "corrected_accuracy"
    assert explain(older, "continuation") == explain(results, "continuation")

"""What a report is made from: checked, tidied, and read cell by cell."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from peftport.errors import BadInput
from peftport.reports.results import COLUMNS, Cell, Results, natural
from synthetic_studies import Synthetic

CELL = Cell("lora", "small", "small-tuned", "continuation", "films", "films", "copy")


def test_missing_columns_are_named() -> None:
    rows = Synthetic().results().rows.drop(columns=["auroc", "seed"])
    with pytest.raises(BadInput, match="lack the columns seed, auroc"):
        Results(rows)


def test_a_run_that_occurs_twice_is_refused() -> None:
    rows = Synthetic().results().rows
    with pytest.raises(BadInput, match="occurs twice"):
        Results(pd.concat([rows, rows.iloc[:1]]))


def test_rows_of_two_studies_are_refused_whatever_their_runs_are_called() -> None:
    rows = Synthetic().results().rows
    others = rows.assign(run_id="other-" + rows["run_id"], study="other")
    message = (
        r"the runs .* and .* are the same \w+ run twice, with seed 0: a report is of one study"
    )
    for both in ([rows, others], [others, rows]):
        with pytest.raises(BadInput, match=message):
            Results(pd.concat(both))


def test_predictions_must_fit_the_labels() -> None:
    study = Synthetic().results()
    run = study.rows["run_id"].iloc[0]
    with pytest.raises(BadInput, match=f"run {run} has 3 predictions, but task 'films' has 200"):
        Results(study.rows, {run: np.zeros(3)}, study.gold)


def test_rows_from_a_file_with_gaps_are_tidied() -> None:
    rows = Synthetic().results().rows.astype(object)
    rows.loc[rows["condition"] == "host", ["technique", "method", "origin"]] = None
    rows["accuracy"] = rows["accuracy"].astype(str)
    tidy = Results(rows).rows
    assert list(tidy.columns) == list(COLUMNS)
    assert set(tidy.loc[tidy["condition"] == "host", "technique"]) == {""}
    assert tidy["accuracy"].dtype == float


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("accuracy", "much", "row 3 of the rows has 'much' as its accuracy; expected a number"),
        ("accuracy", [1], r"row 3 of the rows has '\[1\]' as its accuracy"),
        ("auroc", float("inf"), "row 3 of the rows has 'inf' as its auroc"),
        ("accuracy", -1e308, "row 3 of the rows has '-1e.308' as its accuracy"),
        ("accuracy", b"\xff", "the column accuracy of the rows holds no numbers: .*decode"),
        ("seed", b"\xff", "the column seed of the rows holds no numbers: .*decode"),
        ("seed", 0.5, "row 3 of the rows has '0.5' as its seed; expected a whole number"),
        ("budget", float("inf"), "row 3 of the rows has 'inf' as its budget"),
        ("n_test", 10**40, "as its n_test; expected a whole number"),
        ("seed", None, "row 3 of the rows has nothing as its seed; expected a whole number"),
        ("budget", "", "row 3 of the rows has nothing as its budget; expected a whole number"),
        ("accuracy", 83.3, r"row 3 of the rows has 83\.3 as its accuracy; expected a share"),
        ("auroc", -0.5, r"row 3 of the rows has -0\.5 as its auroc; expected a share from 0 to 1"),
        ("condition", "Sampled", "row 3 .* unknown condition 'Sampled'. Did you mean 'sampled'"),
        ("condition", None, "row 3 of the rows has the unknown condition ''. Known: ported, "),
    ],
)
def test_what_is_no_number_is_named(column, value, message) -> None:
    rows = Synthetic().results().rows.astype(object).reset_index(drop=True)
    rows.at[2, column] = value
    with pytest.raises(BadInput, match=message):
        Results(rows)


def test_a_column_that_occurs_twice_is_refused() -> None:
    rows = Synthetic().results().rows
    with pytest.raises(BadInput, match="have the columns seed more than once"):
        Results(pd.concat([rows, rows[["seed"]]], axis=1))


def test_columns_beside_those_of_a_study_and_words_in_bytes_do_no_harm() -> None:
    rows = Synthetic().results().rows.astype(object)
    rows["study"] = [b"\xff"] * len(rows)
    beside = pd.DataFrame([["a", "b"]] * len(rows), columns=["x", "x"], index=rows.index)
    assert list(Results(pd.concat([rows, beside], axis=1)).rows.columns) == list(COLUMNS)


def test_hosts_with_numbers_come_by_their_size() -> None:
    pairs = ["base → x16", "base → x2", "base → x1", "base-tuned → base", "9", "base"]
    assert sorted(pairs, key=natural) == [
        *("9", "base", "base → x1", "base → x2", "base → x16", "base-tuned → base"),
    ]


def test_a_series_holds_the_accuracies_seed_by_seed() -> None:
    results = Synthetic().results()
    found = results.series(CELL, "ported", 10)
    rows = results.rows.query(
        "condition == 'ported' and technique == 'lora' and relation == 'continuation' "
        "and budget == 10"
    ).sort_values("seed")
    assert found is not None
    assert found.seeds == (0, 1, 2)
    assert list(found.values) == list(rows["accuracy"])
    assert found.draws is not None
    assert found.draws.mean(1) == pytest.approx(found.values, abs=0.01)


def test_baselines_belong_to_every_port_to_their_host_and_task() -> None:
    results = Synthetic().results()
    other = CELL._replace(origin="small-twin", relation="independent", origin_task="food")
    for condition in ("scratch", "native", "host"):
        ours, theirs = (results.series(cell, condition, 0) for cell in (CELL, other))
        assert ours is not None and theirs is not None
        assert list(ours.values) == list(theirs.values)
    assert results.series(other, "ported", 0) is None
    assert results.series(other, "sampled", 0, "gaussian") is None


def test_a_bare_host_has_no_seed_of_its_own_unless_its_head_has() -> None:
    results = Synthetic().results()
    host = results.series(CELL, "host", 0)
    assert host is not None and host.fixed
    runs = results.run_ids(CELL, "host", 0)
    changed = dict(results.predictions)
    changed[runs[1]] = results.gold["films"][::-1].copy()
    other = Results(results.rows, changed, results.gold).series(CELL, "host", 0)
    assert other is not None and not other.fixed


def test_failed_and_missing_runs_are_not_in_a_series() -> None:
    results = Synthetic(
        failed=lambda row: row["condition"] == "ported" and row["seed"] == 1,
        missing=lambda row: row["condition"] == "scratch",
    ).results()
    found = results.series(CELL, "ported", 0)
    assert found is not None and found.seeds == (0, 2)
    assert results.series(CELL, "scratch", 0) is None
    assert len(results.failed) == 2 * 2 * 3


def test_without_predictions_there_are_no_draws() -> None:
    results = Synthetic(predictions=False).results()
    found = results.series(CELL, "ported", 0)
    assert found is not None and found.draws is None
    assert not results.has_predictions


def test_controls_begin_with_the_gaussian_one() -> None:
    results = Synthetic(controls=("spectrum", "gaussian", "permuted")).results()
    assert results.controls(CELL) == ("gaussian", "permuted", "spectrum")


def test_settings_and_pairs_in_words() -> None:
    assert CELL.pair == "small → small-tuned"
    assert CELL.setting == "films"
    assert CELL._replace(origin_task="food").setting == "food → films"

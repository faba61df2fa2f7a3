"""Runs set against each other: pairing, families, averages that keep relations apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from peftport.reports.answers import answer_questions
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.measures import holm
from peftport.reports.results import Cell
from synthetic_studies import Synthetic, founding

CELL = Cell("lora", "small", "small-tuned", "continuation", "films", "films", "copy")


def mean_accuracy(analysis: Analysis, query: str) -> float:
    return float(analysis.results.rows.query(query)["accuracy"].mean())


def test_every_ported_figure_has_its_controls_beside_it() -> None:
    point = analyse(Synthetic().results()).point(CELL, 10)
    assert set(point.means) == {"host", "sampled", "scratch", "ported", "native"}
    assert set(point.leads) == {"sampled", "scratch", "host"}
    assert all(found is not None for found in (*point.means.values(), *point.leads.values()))


def test_leads_are_the_differences_of_the_rows() -> None:
    analysis = analyse(Synthetic().results())
    here = "technique == 'lora' and receiver == 'small-tuned' and budget == 10"
    ported = mean_accuracy(analysis, f"condition == 'ported' and {here}")
    scratch = mean_accuracy(analysis, f"condition == 'scratch' and {here}")
    lead = analysis.point(CELL, 10).leads["scratch"]
    assert lead is not None
    assert lead.value == pytest.approx(ported - scratch)


def test_p_values_are_adjusted_over_one_control_and_one_relation() -> None:
    analysis = analyse(Synthetic(budgets=(0, 10, 100)).results())
    family = [p for p in analysis.points if p.cell.relation == "independent"]
    leads = [lead for point in family if (lead := point.leads["sampled"]) is not None]
    assert len(leads) == 2 * 3
    expected = holm([lead.p for lead in leads])
    assert [lead.adjusted for lead in leads] == pytest.approx(list(expected))


def test_a_true_lead_is_found_and_none_is_made_up() -> None:
    points = analyse(
        founding(pairs=(("a", "b", "continuation"), ("a", "c", "independent"))).results()
    )
    found: dict[str, list[bool]] = {"continuation": [], "independent": []}
    for point in points.points:
        lead = point.leads["sampled"]
        if point.budget == 0 and lead is not None:
            found[point.cell.relation].append(lead.adjusted < 0.05 and lead.value > 0.2)
    assert all(found["continuation"]) and len(found["continuation"]) == 12
    assert not any(found["independent"])


def test_further_controls_go_by_their_names() -> None:
    analysis = analyse(Synthetic(controls=("gaussian", "permuted", "spectrum")).results())
    assert analysis.controls == ("sampled", "permuted", "spectrum", "scratch", "host")
    point = analysis.point(CELL, 0)
    rows = "condition == 'sampled' and technique == 'lora' and receiver == 'small-tuned'"
    permuted = mean_accuracy(analysis, f"{rows} and budget == 0 and control == 'permuted'")
    assert point.means["permuted"] is not None
    assert point.means["permuted"].value == pytest.approx(permuted)


def test_relations_are_never_averaged_together() -> None:
    analysis = analyse(Synthetic().results())
    assert {pool.relation for pool in analysis.pools} == {"continuation", "independent"}
    for relation in ("continuation", "independent"):
        pool = analysis.pool(relation, "copy", 0)
        assert pool is not None
        rows = f"condition == 'ported' and budget == 0 and relation == '{relation}'"
        assert pool.means["ported"].value == pytest.approx(mean_accuracy(analysis, rows))


def test_port_methods_are_never_averaged_together() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        return {"copy": 0.6, "procrustes": 0.8}.get(row["method"], 0.5)

    study = Synthetic(methods=("copy", "procrustes"), accuracy=accuracy)
    analysis = analyse(study.results())
    for method, truth in (("copy", 0.6), ("procrustes", 0.8)):
        pool = analysis.pool("continuation", method, 0)
        assert pool is not None
        assert pool.means["ported"].value == pytest.approx(truth, abs=0.05)


def test_averages_are_narrower_than_their_cells() -> None:
    analysis = analyse(founding().results())
    pool = analysis.pool("continuation", "copy", 0)
    lead = analysis.points[0].leads["sampled"]
    assert pool is not None and lead is not None
    assert pool.cells == pool.of == 48
    assert pool.leads["sampled"].error < 0.75 * lead.error


def test_cells_that_lack_seeds_are_left_out_of_averages_and_counted() -> None:
    def fails(row: Mapping[str, Any]) -> bool:
        return row["condition"] == "ported" and row["technique"] == "lora" and row["seed"] == 2

    analysis = analyse(Synthetic(techniques=("adapter", "lora", "prefix"), failed=fails).results())
    pool = analysis.pool("continuation", "copy", 0)
    assert pool is not None
    assert (pool.cells, pool.of) == (2, 3)
    alone = analysis.pool("continuation", "copy", 0, "technique", "lora")
    assert alone is not None
    assert alone.means["ported"].seeds == 2


def test_missing_controls_leave_leads_open() -> None:
    analysis = analyse(Synthetic(missing=lambda row: row["condition"] == "scratch").results())
    point = analysis.point(CELL, 0)
    assert point.leads["scratch"] is None and point.means["scratch"] is None
    assert point.leads["sampled"] is not None
    assert analysis.curves[CELL].to_match is None


def test_without_predictions_intervals_rest_on_seeds() -> None:
    point = analyse(Synthetic(predictions=False).results()).point(CELL, 0)
    lead = point.leads["sampled"]
    assert lead is not None and lead.basis == "seeds"
    assert point.flips == ()
    assert point.means["host"] is not None and np.isnan(point.means["host"].low)


def test_flips_are_counted_against_host_and_originating_host() -> None:
    both_ways = (("a", "b", "continuation"), ("b", "a", "continuation"))
    analysis = analyse(Synthetic(pairs=both_ways).results())
    results = analysis.results
    cell = Cell("lora", "a", "b", "continuation", "films", "films", "copy")
    flips = {found.versus: found for found in analysis.point(cell, 0).flips}
    assert set(flips) == {"host", "origin"}
    at_home = cell._replace(receiver="a")
    lost = []
    for seed in (0, 1, 2):
        before = results.correct(results.run_ids(at_home, "native", 0)[seed], "films")
        after = results.correct(results.run_ids(cell, "ported", 0)[seed], "films")
        assert before is not None and after is not None
        lost.append(int((before & ~after).sum()))
    assert flips["origin"].lost == pytest.approx(np.mean(lost))
    assert len(flips["origin"].p) == 3


def test_a_module_of_another_task_is_not_held_against_its_own_host() -> None:
    """Its answers on its own host were for another task."""
    study = Synthetic(settings=(("food", "films"), ("food", "food")))
    cell = CELL._replace(origin_task="food")
    flips = analyse(study.results()).point(cell, 0).flips
    assert [found.versus for found in flips] == ["host"]


def test_scratch_needs_many_steps_to_match_a_good_port_and_none_to_match_a_bad_one() -> None:
    analysis = analyse(Synthetic(seeds=(0, 1, 2, 3, 4), examples=600).results())
    good, bad = (
        analysis.curves[CELL._replace(receiver=receiver, relation=relation)].to_match
        for receiver, relation in (("small-tuned", "continuation"), ("small-twin", "independent"))
    )
    assert good is not None and bad is not None
    assert good.value > 100
    assert bad.value < 20
    assert analysis.curves[CELL].leads["scratch"].above_zero


def test_a_better_technique_is_told_from_the_others() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        if row["condition"] == "ported":
            return 0.85 if row["technique"] == "adapter" else 0.65
        return 0.86 if row["condition"] == "native" else 0.5

    analysis = analyse(founding(accuracy=accuracy).results())
    contrasts = analysis.contrasts("continuation", "copy", "technique", 0)
    assert len(contrasts) == 6
    sure = [c for c in contrasts if c.gap.adjusted < 0.05]
    assert [c.first.name for c in sure] == ["adapter"] * 3
    assert all(c.gap.value == pytest.approx(0.2, abs=0.03) for c in sure)


def test_relations_are_set_beside_each_other() -> None:
    analysis = analyse(Synthetic().results())
    gap = analysis.between("continuation", "independent", "copy", 0)
    assert gap.above_zero
    assert gap.value == pytest.approx(0.31, abs=0.08)
    assert analysis.between("continuation", "same", "copy", 0).seeds == 0


def test_the_same_runs_give_the_same_figures_in_any_order() -> None:
    results = Synthetic().results()
    shuffled = results.rows.sample(frac=1, random_state=3)
    again = analyse(type(results)(shuffled, results.predictions, results.gold))
    for point in analyse(results).points:
        other = again.point(point.cell, point.budget)
        for name, lead in point.leads.items():
            found = other.leads[name]
            assert lead is not None and found is not None
            assert (found.value, found.low) == pytest.approx((lead.value, lead.low), abs=1e-9)


def test_a_control_that_one_pair_has_leaves_other_pairs_in_the_averages() -> None:
    pairs = tuple(("small", name, "continuation") for name in "abc")
    results = Synthetic(
        pairs=pairs,
        controls=("gaussian", "spectral"),
        budgets=(0,),
        missing=lambda row: row["control"] == "spectral" and row["receiver"] != "a",
    ).results()
    analysis = analyse(results)
    pool = analysis.pool("continuation", "copy", 0)
    assert pool is not None
    assert pool.cells == pool.of == 6
    alone = [analysis.pool("continuation", "copy", 0, "pair", f"small → {name}") for name in "abc"]
    mean = np.mean([each.means["ported"].value for each in alone])
    assert pool.means["ported"].value == pytest.approx(mean)
    assert pool.leads["spectral"].value == pytest.approx(alone[0].leads["spectral"].value)
    assert not [each for each in alone[1:] if "spectral" in each.leads]
    (outperform, *_) = answer_questions(analysis)
    assert not [each for each in outperform.findings[0].sentences if "left out" in each]


def test_areas_are_compared_over_the_same_budgets() -> None:
    results = Synthetic(
        techniques=("lora",),
        pairs=(("small", "tuned", "continuation"),),
        failed=lambda row: (row["condition"], row["budget"]) in (("ported", 100), ("scratch", 0)),
    ).results()
    (curve,) = analyse(results).curves.values()
    assert "scratch" not in curve.areas | curve.leads
    assert "ported" in curve.areas

"""The calibration that comes with the package is what the committed study measured."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from scipy.special import stdtrit

from peftport.forecast.calibration import calibration
from peftport.techniques import TECHNIQUES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs() -> pd.DataFrame:
    found = pd.read_csv(ROOT / calibration().source)
    return found[
        (found["status"] == "done") & (found["budget"] == 0) | (found.condition == "native")
    ]


def test_every_recovery_is_that_of_the_committed_runs(runs):
    for cell in calibration().cells:
        on = runs[(runs["receiver"] == cell.receiver) & (runs["task"] == cell.task)]
        native = on[(on["condition"] == "native") & (on["technique"] == cell.technique)]
        ported = on[
            (on["condition"] == "ported")
            & (on["origin"] == cell.origin)
            & (on["technique"] == cell.technique)
        ]
        bare = on[on["condition"] == "host"]["corrected_accuracy"].mean()
        gain = native["corrected_accuracy"].mean() - bare
        lead = ported["corrected_accuracy"].mean() - bare
        assert cell.recovery == pytest.approx(lead / gain, abs=1e-3)


def test_only_cells_whose_native_modules_surely_gain_nothing_much_are_left_out(runs):
    """Less than 0.05, or seeds that differ too much for two of them to tell."""
    told = {(c.technique, c.origin, c.receiver, c.task) for c in calibration().cells}
    ported = runs[runs["condition"] == "ported"]
    bare = runs[runs["condition"] == "host"].groupby(["receiver", "task"])
    native = runs[runs["condition"] == "native"].groupby(["technique", "receiver", "task"])
    for cell in set(ported[["technique", "origin", "receiver", "task"]].itertuples(index=False)):
        gains, sure = [], []
        for host in (cell.origin, cell.receiver):
            level = bare.get_group((host, cell.task))["corrected_accuracy"].mean()
            of = native.get_group((cell.technique, host, cell.task))["corrected_accuracy"] - level
            gains.append(of.mean())
            sure.append(of.mean() > stdtrit(1, 0.975) * of.std() / 2**0.5)
        if tuple(cell) in told:
            assert min(gains) > 0.05, cell
        else:
            assert min(gains) < 0.05 or not all(sure), cell


def test_it_knows_every_technique_and_hosts_near_and_far():
    cells = calibration().cells
    assert set(calibration().techniques) == set(TECHNIQUES)
    assert {cell.relation for cell in cells} == {"continuation", "independent"}
    for technique in calibration().techniques:
        kept = [cell.recovery for cell in cells if cell.technique == technique]
        assert min(kept) < 0.1
        assert max(kept) > 0.9
    assert all(0 < cell.distance < 1.6 and -1 <= cell.answers <= 1 for cell in cells)


def test_it_says_how_many_pairs_it_rests_on():
    assert calibration().about.startswith(f"{calibration().pairs} directed pairs")

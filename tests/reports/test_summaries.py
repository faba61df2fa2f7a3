"""What was found, for JSON: plain values, nothing that JSON does not know."""

from __future__ import annotations

import json

import pytest

from peftport.reports.comparisons import analyse
from peftport.reports.summaries import summary
from synthetic_studies import Synthetic


@pytest.mark.parametrize(
    "study",
    [
        Synthetic(),
        Synthetic(predictions=False),
        Synthetic(seeds=(0,), predictions=False),
        Synthetic(failed=lambda row: row["condition"] == "native"),
        Synthetic(conditions=("scratch",)),
    ],
)
def test_a_summary_is_valid_json(study: Synthetic) -> None:
    json.dumps(summary(study.results()), allow_nan=False)


def test_a_summary_says_what_the_analysis_says() -> None:
    analysis = analyse(Synthetic().results())
    found = summary(analysis)
    assert found["runs"] == {"done": 126, "failed": 0, "not_run": 0}
    assert len(found["answers"]) == 3
    assert len(found["cells"]) == len(analysis.points) == 12
    for cell, point in zip(found["cells"], analysis.points, strict=True):
        lead = point.leads["scratch"]
        assert lead is not None and point.recovery is not None
        assert cell["technique"] == point.cell.technique
        assert cell["leads"]["scratch"]["value"] == lead.value
        assert cell["leads"]["scratch"]["p_adjusted"] == lead.adjusted
        if point.recovery.ratio is not None:
            assert cell["recovery"]["ratio"]["low"] == point.recovery.ratio.low
    assert {curve["technique"] for curve in found["curves"]} == {"adapter", "lora"}


def test_what_is_not_known_is_null() -> None:
    study = Synthetic(missing=lambda row: row["condition"] in ("native", "scratch"))
    cell = summary(study.results())["cells"][0]
    assert cell["accuracy"]["native"] is None
    assert cell["leads"]["scratch"] is None
    assert cell["recovery"]["ratio"] is None
    assert cell["recovery"]["reason"]

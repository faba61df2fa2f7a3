"""The figures as PNG files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from peftport.reports.figures import write_png
from synthetic_studies import Synthetic


def test_each_relation_has_its_figures(tmp_path: Path) -> None:
    written = write_png(Synthetic().results(), tmp_path)
    names = [f"{what}-{relation}.png" for relation in ("continuation", "independent")
             for what in ("heat", "curves", "differences")]  # fmt: skip
    assert [path.name for path in written] == names
    for path in written:
        image = imread(path)
        assert image.shape[0] > 200 and image.shape[1] > 500
        # Few colours, so that a study's figures fit into a repository.
        assert len(np.unique(image.reshape(-1, image.shape[-1]), axis=0)) <= 64
        # Something besides words is drawn in colour, but leads of 0 are white.
        colourful = (np.ptp(image[..., :3], axis=2) > 0.1).mean() > 0.005
        assert colourful or path.name == "heat-independent.png"


@pytest.mark.parametrize(
    "study",
    [
        Synthetic(failed=lambda row: row["condition"] == "ported"),
        Synthetic(predictions=False, seeds=(0,)),
        Synthetic(missing=lambda row: row["technique"] == "lora" and row["relation"] == ""),
        Synthetic(budgets=(0,), controls=("gaussian", "permuted"), methods=("copy", "procrustes")),
    ],
)
def test_what_is_missing_leaves_a_gap(study: Synthetic, tmp_path: Path) -> None:
    assert len(write_png(study.results(), tmp_path)) == 6

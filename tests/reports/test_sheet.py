"""Sheets show what the page's drawings say, where they say it, in the page's colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from peftport.reports import svg
from peftport.reports.sheet import Sheet, colour_of, mixed
from peftport.reports.statistics import Estimate

SHARPNESS = 1.5


def pixels(sheet: Sheet, folder: Path) -> np.ndarray:
    return imread(sheet.save(folder / "sheet.png"))[..., :3]


def colour_at(image: np.ndarray, x: float, y: float) -> np.ndarray:
    return image[round(y * SHARPNESS), round(x * SHARPNESS)]


def alike(found: np.ndarray, colour: str) -> bool:
    return bool(np.abs(found - to_rgb(colour)).max() < 0.05)


def test_the_page_s_elements_are_drawn_where_they_are(tmp_path):
    drawing = (
        '<svg viewBox="0 0 100 50"><title>no picture</title>'
        '<rect class="mark sampled" x="10" y="10" width="20" height="20"/>'
        '<polygon class="mark scratch" points="50,10 70,10 70,30 50,30"/>'
        '<circle class="mark ported" cx="90" cy="20" r="8"/>'
        '<polyline class="line native" points="0,40 0,40"/></svg>'
    )
    sheet = Sheet(220, 120)
    sheet.place(drawing, 10, 10, 200)
    image = pixels(sheet, tmp_path)
    for name, x in (("sampled", 20), ("scratch", 60), ("ported", 90)):
        assert alike(colour_at(image, 10 + 2 * x, 10 + 2 * 20), colour_of(name))
    assert alike(colour_at(image, 10 + 2 * 40, 10 + 2 * 20), "white")


def test_shares_of_the_width_are_of_the_room_there_is(tmp_path):
    nothing = float("nan")
    found = {"ported": Estimate(0.75, nothing, nothing, nothing, nothing, 1, "")}
    sheet = Sheet(240, 40)
    sheet.place(svg.ranges("one", found, (0.0, 1.0), 20), 20, 10, 200)
    assert alike(colour_at(pixels(sheet, tmp_path), 20 + 150, 20), colour_of("ported"))


def test_what_is_drawn_later_lies_above(tmp_path):
    below, above = (f'<rect class="mark {name}" x="0" y="0" width="40" height="40"/>'
                    for name in ("sampled", "ported"))  # fmt: skip
    sheet = Sheet(60, 60)
    sheet.place(f'<svg viewBox="0 0 40 40">{below}{above}</svg>', 10, 10, 40)
    assert alike(colour_at(pixels(sheet, tmp_path), 30, 30), colour_of("ported"))


def test_colours_are_the_style_sheet_s():
    assert colour_of("ported") == "#0b5cab"
    assert colour_of("a condition of another package") == colour_of("other")
    assert mixed("ported", 0) == colour_of("surface") and mixed("ported", 1) == colour_of("ported")


def test_words_end_further_right_the_more_there_are():
    sheet = Sheet(400, 40)
    one, two = sheet.words(10, 20, "bare host"), sheet.words(10, 20, "bare host and more")
    assert 10 < one < two < 400


@pytest.mark.parametrize("text", ["50 $ and 60 $", "a_b^c", "lab:small → lab:large"])
def test_words_are_shown_as_they_are(text, tmp_path):
    sheet = Sheet(300, 40)
    assert sheet.words(10, 20, text) > 40
    sheet.save(tmp_path / "words.png")

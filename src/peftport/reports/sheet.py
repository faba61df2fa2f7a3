"""White sheets with the page's drawings on them, as PNG files.

A sheet takes the SVG that `peftport.reports.svg` writes, and colours and dashes from the page's
style sheet, so that what a drawing is and how it looks is said once.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Polygon, Rectangle
from PIL import Image

from peftport.files import write_atomic

_INCH = 100
"""Pixels of the page to an inch of a sheet."""
_SHARPNESS = 1.5
"""Pixels of the file to a pixel of the page."""
_POINT = 72 / _INCH
_SIZE = 11
_SHADES = 64


class Sheet:
    """A white sheet; places and sizes are in pixels of the page, from the upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / _INCH, height / _INCH), dpi=_INCH * _SHARPNESS)
        self._canvas = FigureCanvasAgg(self._figure)
        self._axes: Any = self._figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        self._axes.set_axis_off()
        self._above = 0

    def headed(self, title: str, what: str) -> None:
        """Say what the sheet is, and what it shows."""
        self.words(20, 20, title, size=13, weight="bold")
        self.words(20, 36, what)

    def words(self, x: float, y: float, text: str, **how: Any) -> float:
        """Write `text` on the line at `y`, and give back where it ends.

        Args:
            how: `size` in pixels, `weight`, `anchor` as in SVG, `colour` by its name.
        """
        side = {"start": "left", "middle": "center", "end": "right"}[how.get("anchor", "start")]
        made = self._axes.text(
            x, y, text, ha=side, va="baseline", color=colour_of(how.get("colour", "ink")),
            fontsize=how.get("size", _SIZE) * _POINT, fontweight=how.get("weight", "normal"),
            parse_math=False,
        )  # fmt: skip
        return float(made.get_window_extent(self._canvas.get_renderer()).x1) / _SHARPNESS

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled box with a thin edge."""
        made = Rectangle((x, y), width, height, fc=colour, ec=colour_of("rule"), lw=_POINT)
        self._axes.add_patch(made)

    def place(self, drawing: str, x: float, y: float, width: float) -> None:
        """Put one of the page's drawings at (x, y), as wide as that."""
        root = ElementTree.fromstring(drawing)
        frame = root.get("viewBox")
        scale = width / float(frame.split()[2]) if frame else 1.0
        for element in root:
            self._draw(element, _Frame(x, y, width, scale))

    def save(self, path: Path) -> Path:
        """Write the sheet. Few colours are enough, and take a quarter of the room."""
        self._canvas.draw()
        image = Image.fromarray(np.asarray(self._canvas.buffer_rgba())[..., :3])
        buffer = io.BytesIO()
        image.quantize(_SHADES).save(buffer, "PNG", optimize=True)
        write_atomic(path, buffer.getvalue())
        return path

    def _draw(self, element: ElementTree.Element, frame: _Frame) -> None:
        kind, condition = [*(element.get("class") or "").split(), "", ""][:2]
        tag = element.tag
        # What is drawn later lies above.
        self._above += 1
        if tag == "text":
            (place,) = frame.points(element, ("x", "y"))
            anchor = element.get("text-anchor", "start")
            self.words(*place, element.text or "", anchor=anchor, colour="soft")
        elif tag in ("line", "polyline"):
            places = frame.points(element, ("x1", "y1"), ("x2", "y2"))
            look = _stroke(kind, condition)
            self._axes.plot(*zip(*places, strict=True), zorder=self._above, **look)
        elif tag in ("polygon", "rect", "circle"):
            shape = _shape(element, frame)
            shape.set(zorder=self._above, **_fill(kind, condition))
            self._axes.add_patch(shape)


@dataclass(frozen=True)
class _Frame:
    """Where on a sheet a drawing is. Its shares of the width are of `width`, all else is times
    `scale`."""

    x: float
    y: float
    width: float
    scale: float

    def points(
        self, element: ElementTree.Element, *names: tuple[str, str]
    ) -> list[tuple[float, float]]:
        """The points of an element, by the names of its attributes or in its `points`."""
        if written := element.get("points"):
            pairs = [point.split(",") for point in written.split()]
        else:
            pairs = [[element.get(name, "0") for name in pair] for pair in names]
        return [(self.x + self._length(x), self.y + self._length(y)) for x, y in pairs]

    def _length(self, written: str) -> float:
        if written.endswith("%"):
            return self.width * float(written[:-1]) / 100
        return self.scale * float(written)


def _shape(element: ElementTree.Element, frame: _Frame) -> Patch:
    """A filled element as matplotlib has it."""
    if element.tag == "polygon":
        return Polygon(frame.points(element))
    size = [float(element.get(name, 0)) * frame.scale for name in ("width", "height", "r")]
    if element.tag == "rect":
        (corner,) = frame.points(element, ("x", "y"))
        return Rectangle(corner, *size[:2])
    (centre,) = frame.points(element, ("cx", "cy"))
    return Circle(centre, size[2])


_WIDTHS = {"grid": 1.0, "tick": 1.0, "zero": 1.3, "line": 1.8, "span": 2.4}
_INKS = {"grid": "rule", "tick": "soft", "zero": "ink"}


def _stroke(kind: str, condition: str) -> dict[str, Any]:
    """How a line looks; the style sheet says the same of it on the page."""
    width = 2.6 if (kind, condition) == ("line", "ported") else _WIDTHS[kind]
    dash = _dashes().get(condition, (3.0, 2.0)) if kind == "line" else ()
    # matplotlib counts dashes in widths of the line.
    style = (0, tuple(part / width for part in dash)) if dash else "-"
    return {
        "color": colour_of(_INKS.get(kind, condition)),
        "alpha": 0.75 if kind == "span" else 1.0,
        "lw": width * _POINT,
        "ls": style,
    }


def _fill(kind: str, condition: str) -> dict[str, Any]:
    """How a filled shape looks; the style sheet says the same of it on the page."""
    if kind == "band":
        return {"fc": colour_of(condition), "ec": "none", "alpha": 0.14}
    return {"fc": colour_of(condition), "ec": colour_of("surface"), "lw": _POINT}


def mixed(name: str, share: float) -> str:
    """A colour of the style sheet on white, as strong as `share` says."""
    white, full = np.asarray(to_rgb(colour_of("surface"))), np.asarray(to_rgb(colour_of(name)))
    return str(to_hex(white + share * (full - white)))


def colour_of(name: str) -> str:
    """A colour of the style sheet as it is on light paper; of unknown names that of others."""
    return _colours().get(name) or _colours()["other"]


@cache
def _style() -> str:
    return (files("peftport.reports") / "templates" / "style.css").read_text()


@cache
def _colours() -> dict[str, str]:
    return dict(re.findall(r"--(\w+): light-dark\((#\w+),", _style()))


@cache
def _dashes() -> dict[str, tuple[float, ...]]:
    """Condition -> lengths of its dashes and gaps in pixels; empty for a whole line."""
    found = re.findall(r"^\.(\w+) \{.*--dash: ([^;]+);", _style(), re.MULTILINE)
    return {name: tuple(map(float, re.findall(r"\d+", dash))) for name, dash in found}

"""What the forecast is calibrated on: copies that were measured, and the signals of their hosts.

`calibration.json` is data: `benchmarks/forecast.py calibrate` writes it, from a study's export and
the hosts.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from pydantic import BaseModel, ConfigDict

from peftport.hosts.genealogy import Relation


class MeasuredCopy(BaseModel):
    """One copy that was measured: a technique's modules for a task, from one host to another.

    recovery: (copied - bare host) / (native - bare host) without a step of training, the ratio of
        the means over seeds. The signals are those of `forecast.signals`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    technique: str
    origin: str
    receiver: str
    relation: Relation
    task: str
    recovery: float
    distance: float
    overlap: float
    cka: float
    answers: float


class Calibration(BaseModel):
    """Cells, and in a sentence where they are from."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    about: str
    source: str
    cells: tuple[MeasuredCopy, ...]

    @property
    def techniques(self) -> tuple[str, ...]:
        """The techniques that were measured."""
        return tuple(sorted({cell.technique for cell in self.cells}))

    @property
    def pairs(self) -> int:
        """Number of directed pairs of hosts."""
        return len({(cell.origin, cell.receiver) for cell in self.cells})


@cache
def calibration() -> Calibration:
    """What comes with the package."""
    file = resources.files("peftport.forecast") / "calibration.json"
    return Calibration.model_validate_json(file.read_text())

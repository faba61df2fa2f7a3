"""What a copy of a module will keep, from the hosts alone: nothing of the task is looked at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from peftport.errors import BadInput
from peftport.forecast.calibration import Calibration, calibration
from peftport.forecast.curve import FROM_TEXTS, FROM_WEIGHTS, LEVEL, Calibrated
from peftport.forecast.signals import (
    TextSignals,
    WeightSignals,
    compare_on_texts,
    compare_weights,
    layers_of,
)
from peftport.hosts.genealogy import Relation, relation_of, settled

if TYPE_CHECKING:
    from peftport.porting.base import Request
    from peftport.porting.means import Means
    from peftport.techniques.base import Parameters

_MARGIN = 1.1


@dataclass(frozen=True)
class Forecast:
    """The recovery to expect of a copy without a step of training.

    Attributes:
        recovery, low, high: the forecast and its interval, which is made so that `level` of the
            measured copies lie in theirs.
        weights, on_texts: the signals; those on texts are None without texts.
        texts: how many were used.
        genealogy: of the two hosts, as stated or as their records say; None where nothing does.
        notes: sentences that say what to beware of.
        calibrated_on: what was measured for the calibration, in words.
    """

    recovery: float
    low: float
    high: float
    level: float
    weights: WeightSignals
    on_texts: TextSignals | None
    texts: int
    genealogy: Relation | None
    notes: tuple[str, ...]
    calibrated_on: str

    def record(self) -> dict[str, Any]:
        """The forecast, JSON-ready."""
        return asdict(self)


def forecast(
    request: Request,
    donor: Parameters,
    means: Means,
    stated: Relation | None = None,
) -> Forecast:
    """Forecast the recovery of a copy.

    Args:
        request: the copy, as `Copy().request` makes it.
        donor: the module's tensors, without lane axis. Without texts they are not looked at.
        means: both hosts; with texts, the copy is tried on them, which asks for no label.
        stated: how the hosts stand to each other, where the user knows it.

    Raises:
        BadInput: the hosts differ in shape, the technique was not calibrated, the texts cannot
            be used, or what is stated cannot be: the hosts have the same weights.
    """
    known = calibration()
    _require_covered(request, means, known)
    layers = layers_of(request.shapes, request.receiver)
    weights = compare_weights(means.origin, means.receiver, layers)
    on_texts = compare_on_texts(request, donor, means) if means.texts else None
    recorded = relation_of(means.origin.folder, "", means.receiver.folder)
    relation = settled(stated, recorded, f"{means.origin.name} -> {means.receiver.name}")
    tried = on_texts is not None and on_texts.answers is not None
    calibrated = _calibrated(FROM_TEXTS if tried else FROM_WEIGHTS)
    signals = asdict(weights) | (asdict(on_texts) if on_texts else {})
    recovery = calibrated.curve(request.donor.technique, signals)
    doubt = _doubt(weights.distance, relation, known)
    low, high = calibrated.interval(recovery, None if doubt else relation)
    notes = [doubt] if doubt else []
    if not tried and _lies_between(weights.distance, known):
        low, high = min(low, 0.0), max(high, 1.0)
        notes.append("no pair of hosts at such a distance was measured: hence the wide interval")
    return Forecast(
        recovery=recovery,
        low=low,
        high=high,
        level=LEVEL,
        weights=weights,
        on_texts=on_texts,
        texts=len(means.texts),
        genealogy=relation,
        notes=tuple(notes),
        calibrated_on=known.about,
    )


@cache
def _calibrated(names: tuple[str, ...]) -> Calibrated:
    """The curve over these signals, fitted once a process, also without each pair of hosts."""
    return Calibrated(calibration().cells, names)


def _require_covered(request: Request, means: Means, known: Calibration) -> None:
    if request.origin != request.receiver:
        raise BadInput(
            f"{means.origin.name} and {means.receiver.name} differ in shape: a forecast is for "
            "copies, and a copy needs hosts of one shape. Leave --forecast out to see what other "
            "methods can do."
        )
    if request.donor.technique not in known.techniques:
        raise BadInput(
            f"there is no forecast for the technique {request.donor.technique}: it is calibrated "
            f"on {', '.join(known.techniques)}."
        )


def _ends(known: Calibration) -> tuple[float, float]:
    """Distance of the farthest continuation, and of the nearest independent hosts."""
    near = max(cell.distance for cell in known.cells if cell.relation == "continuation")
    apart = min(cell.distance for cell in known.cells if cell.relation == "independent")
    return near, apart


def _lies_between(distance: float, known: Calibration) -> bool:
    """Whether a distance lies where nothing was measured: between continuations and independent
    hosts, where the curves fall."""
    near, apart = _ends(known)
    return near * _MARGIN < distance < apart / _MARGIN


def _doubt(distance: float, relation: Relation | None, known: Calibration) -> str | None:
    """Why the weights speak against a genealogy; None when they do not."""
    far = distance > sum(_ends(known)) / 2
    if relation == "continuation" and far:
        return "a continuation, but the weights are as far apart as those of independent hosts"
    if relation == "independent" and not far:
        return "independent hosts, but the weights are as near as those of a continuation"
    return None

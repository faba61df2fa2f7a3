"""What a study or an assessment found, as plain values for JSON."""

from __future__ import annotations

from math import isfinite
from typing import Any

from peftport.kind import USUAL, Kind
from peftport.reports.answers import Answer, answer_questions
from peftport.reports.compared import Curve, Flips, Point
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.continuation import Fading, fadings
from peftport.reports.measures import Recovery, Steps
from peftport.reports.results import Results
from peftport.reports.statistics import Estimate
from peftport.reports.tables import missing_rows


def summary(results: Results | Analysis) -> dict[str, Any]:
    """Answers, and every cell at every budget beside its controls.

    Returns:
        `study`, `kind` (of its tasks, where they are not of classification), `metric` (what every
        "accuracy" is; other kinds have their metrics' names in its place), `runs` (done, failed,
        not_run), `answers`,
        `cells` (one for every technique, pair, setting, method and budget), `continuations`
        (recovery over further pretraining, see `peftport.reports.continuation`) and `curves` (one
        for every cell with several budgets).
        Figures are objects of `value`, `low`, `high`, `seeds` and `basis`; leads add `p` and
        `p_adjusted`; what is not known is null.
    """
    analysis = analyse(results)
    known = analysis.results
    return {
        "study": known.name,
        **({} if known.kind.name == USUAL else {"kind": known.kind.name}),
        "metric": known.metric,
        "runs": {
            "done": len(known.done),
            "failed": len(known.failed),
            "not_run": missing_rows(known),
        },
        "answers": [_answer(answer) for answer in answer_questions(analysis)],
        "cells": [_cell(point, known.kind) for point in analysis.points],
        "continuations": [_fading(fading) for fading in fadings(analysis)],
        "curves": [_curve(curve) for curve in analysis.curves.values()],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    findings = [
        {
            "relation": finding.relation,
            "method": finding.method,
            "short": finding.short,
            "sentences": list(finding.sentences),
        }
        for finding in answer.findings
    ]
    return {"question": answer.question, "findings": findings}


def _cell(point: Point, kind: Kind) -> dict[str, Any]:
    primary, plain, ranking = keys(kind)
    of_classes = {"agreement": point.agreement, "only_threshold": point.only_threshold}
    return point.cell._asdict() | {
        "budget": point.budget,
        primary: {name: _figure(found) for name, found in point.means.items()},
        plain: {name: _figure(found) for name, found in point.plain.items()},
        **({} if kind.of_classes else {f"{plain}_lift_kept": _recovery(point.plain_effect)}),
        ranking: {name: _figure(found) for name, found in point.ranking.items()},
        f"{ranking}_lift_kept": _recovery(point.effect),
        **(of_classes if kind.of_classes else {}),
        "leads": {name: _lead(found) for name, found in point.leads.items()},
        "recovery": _recovery(point.recovery),
        "flips": [_flips(flips) for flips in point.flips],
    }


def _fading(fading: Fading) -> dict[str, Any]:
    return {
        "technique": fading.technique,
        "origin": fading.origin,
        "setting": fading.setting,
        "method": fading.method,
        "budget": fading.budget,
        "unit": fading.unit,
        "sentence": fading.sentence,
        "half": [_plain(end) for end in fading.half] if fading.half else None,
        "places": [
            {
                "amount": place.amount,
                "receiver": place.point.cell.receiver,
                "recovery": {n: _recovery(kept) for n, kept in place.recovered.items()},
            }
            for place in fading.places
        ],
    }


def _curve(curve: Curve) -> dict[str, Any]:
    return curve.cell._asdict() | {
        "areas": {name: _figure(area) for name, area in curve.areas.items()},
        "area_leads": {name: _lead(lead) for name, lead in curve.leads.items()},
        "scratch_matches_after": _steps(curve.to_match),
        "matches_native_after": _steps(curve.to_native),
    }


def keys(kind: Kind) -> tuple[str, str, str]:
    """What the figures of a kind's three metrics are called: the primary, the plain, the third."""
    first = ("accuracy", "as_answered") if kind.of_classes else (kind.primary, kind.plain)
    return (*first, kind.ranking)


def _figure(found: Estimate | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": _plain(found.value),
        "low": _plain(found.low),
        "high": _plain(found.high),
        "seeds": found.seeds,
        "basis": found.basis,
    }


def _lead(found: Estimate | None) -> dict[str, Any] | None:
    figure = _figure(found)
    if found is None or figure is None:
        return None
    return figure | {"p": _plain(found.p), "p_adjusted": _plain(found.adjusted)}


def _recovery(found: Recovery | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "ratio": _figure(found.ratio),
        "reason": found.reason,
        "points": _figure(found.points),
        "gain": _figure(found.gain),
    }


def _flips(found: Flips) -> dict[str, Any]:
    return {
        "versus": found.versus,
        "lost": found.lost,
        "won": found.won,
        "examples": found.examples,
        "p": list(found.p),
    }


def _steps(found: Steps | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "value": _plain(found.value),
        "low": _plain(found.low),
        "high": _plain(found.high),
        "most": found.most,
    }


def _plain(value: float) -> float | None:
    return float(value) if isfinite(value) else None

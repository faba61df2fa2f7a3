"""What the figures of a study are, in words: by its kind, and whether they are corrected."""

from __future__ import annotations

from peftport.metrics import Metric
from peftport.reports.comparisons import Analysis
from peftport.reports.recorrected import on_test
from peftport.reports.results import Results
from peftport.reports.wording import BASES, sentence


def plain_name(results: Results) -> str:
    """What tables call the plain metric."""
    of_classes = results.kind.of_classes
    return "as answered" if of_classes else results.metrics[results.kind.plain].title


def ranking_name(results: Results) -> str:
    """What tables call the third metric."""
    return results.metrics[results.kind.ranking].title


def shows_plain(results: Results) -> bool:
    """Whether the plain metric is another than the one that everything rests on."""
    return results.metric != results.kind.plain


def minus(metric: Metric) -> str:
    """How a difference to a control is taken, so that ported is ahead above 0."""
    return "ported minus" if metric.better == "higher" else "ported below"


def interval_note(analysis: Analysis) -> str:
    """What the intervals of the tables speak for."""
    bases = {e.basis for p in analysis.points for e in p.means.values() if e is not None}
    notes = [BASES[basis] for basis in sorted(bases) if BASES[basis]]
    over = "seeds and test examples" + (f" (some: {'; '.join(notes)})" if notes else "")
    if not any("examples" in basis for basis in bases):
        over = "seeds only: rows do not say what was answered. Other test examples would move "
        over += "figures further"
    return (
        f"{_what(analysis.results)} 95 % intervals are over {over}. "
        f"Recovery is (ported - host) / (native - host), given only where {_given(analysis)}."
    )


def _given(analysis: Analysis) -> str:
    """Where a recovery means anything."""
    metric = analysis.results.rests_on
    above, end = ("above", "above 0") if metric.better == "higher" else ("below", "below 0")
    return f"native is at least {metric.worth:g} {above} host and its interval lies {end}"


def _what(results: Results) -> str:
    """What the figures are."""
    kind = results.kind
    if kind.of_classes and not results.is_corrected:
        return _NOT_CORRECTED
    third = results.metrics[kind.ranking].directed
    if kind.ranking_about:
        third += f", {kind.ranking_about},"
    if results.is_corrected:
        texts = "the test texts themselves" if on_test(results) else "training texts"
        return _CORRECTED.format(third=third, texts=texts)
    plain = results.metrics[kind.plain].directed
    return (
        f"{sentence(results.rests_on.directed)}. Beside it stand {plain} and {third}, with the "
        "share of the native module's lift of them that a port keeps."
    )


_CORRECTED = (
    "Accuracy after the label-free correction, which every condition gets alike, the bare host "
    "too: an offset by which classes are answered equally often on {texts} without labels. "
    "Accuracy as answered, without the correction, stands beside it, and {third} with the share of "
    "the native module's lift of it that a port keeps."
)
_NOT_CORRECTED = (
    "Accuracy as answered: not all of these runs kept the scores that a correction needs, so a "
    "threshold, which the bare host could have without a module, may be part of every gain."
)

"""The study's questions answered in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from peftport.reports.compared import Contrast, Point, Pool
from peftport.reports.comparisons import Analysis, analyse
from peftport.reports.evidence import THRESHOLD
from peftport.reports.measures import Recovery
from peftport.reports.results import Results
from peftport.reports.statistics import SURE, Estimate
from peftport.reports.wording import (
    after,
    count,
    figure,
    listed,
    ones,
    p_text,
    recovery_text,
    relation_name,
    sentence,
    with_span,
)

_NOT_ASKED = "Not asked here"
_CHANCE = "No: nothing that these runs can tell from chance"


@dataclass(frozen=True)
class Finding:
    """What is found about one relation of hosts: a short answer and the sentences behind it."""

    relation: str
    method: str
    about: str
    short: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """A question of the study with what was found, each relation by itself."""

    question: str
    findings: tuple[Finding, ...]


def answer_questions(results: Results | Analysis) -> tuple[Answer, ...]:
    """Answer the study's three questions; continuations and independent hosts stay apart."""
    analysis = analyse(results)
    questions: tuple[tuple[str, Callable[[Analysis, str, str], Finding]], ...] = (
        ("Do ported modules outperform sampled ones and ones trained from scratch?", _outperform),
        ("Does the technique matter?", _technique),
        ("Do the differences between hosts matter?", _hosts),
    )
    groups = [(r, m) for r in analysis.results.relations for m in _methods(analysis, r)]
    return tuple(
        Answer(question, tuple(find(analysis, relation, method) for relation, method in groups))
        for question, find in questions
    )


def _methods(analysis: Analysis, relation: str) -> list[str]:
    cells = analysis.results.cells
    return list(dict.fromkeys(cell.method for cell in cells if cell.relation == relation))


def _about(analysis: Analysis, relation: str, method: str) -> str:
    name = relation_name(relation)
    return name if len(analysis.results.methods) < 2 else f"{name}, method {method}"


def _outperform(analysis: Analysis, relation: str, method: str) -> Finding:
    about = (relation, method, _about(analysis, relation, method))
    pools = [analysis.pool(relation, method, budget) for budget in analysis.results.budgets]
    known = [pool for pool in pools if pool is not None]
    if not known:
        return Finding(*about, "Not known", (_nothing(analysis, relation),))
    first, last = known[0], known[-1]
    results = analysis.results
    sentences = [_where_things_stand(first, results), _lead_sentence(first, results)]
    sentences += _recovered(first)
    sentences += _beside_native(first)
    sentences += _as_answered(analysis, first)
    sentences += _plain(results, first)
    sentences += _ranking(results, first)
    sentences += _cells_sentence(analysis, relation, method, first.budget)
    if last.budget != first.budget and last.leads:
        sentences.append(f"{sentence(after(last.budget))} they are at {_leads(last, results)}.")
    if first.cells < first.of:
        sentences.append(
            f"{first.of - first.cells} of {count(first.of, 'cell')} are left out of these "
            "averages because runs are missing or failed."
        )
    return Finding(*about, short_answer(first), tuple(sentences))


def short_answer(pool: Pool) -> str:
    """Yes, no or in part, from the leads over every control and the bare host."""
    against = [lead for name, lead in pool.leads.items() if name != "host"]
    host = pool.leads.get("host")
    when = "zero-shot" if pool.budget == 0 else after(pool.budget)
    if not against:
        return "Not known: there is nothing to compare with"
    if pool.only_threshold:
        return f"No: {THRESHOLD}"
    ahead = [lead.above_zero and _sure(lead) for lead in against]
    if all(ahead) and host is not None and not (host.above_zero and _sure(host)):
        return f"Only in part: {when} they are not surely ahead of the bare host"
    if all(ahead):
        return f"Yes, by {figure(min(against, key=lambda lead: lead.value))} or more {when}"
    if any(ahead):
        return f"Only in part, {when}"
    if any(lead.below_zero and _sure(lead) for lead in against):
        return f"No: they do worse {when}"
    return f"No: {when} there is nothing that these runs can tell from chance"


def _sure(lead: Estimate) -> bool:
    """Whether a lead is none of chance, after the adjustment for all that were asked; leads that
    have no p-value, of one seed, go by their interval."""
    return not lead.adjusted >= SURE


def _where_things_stand(pool: Pool, results: Results) -> str:
    others = [
        f"{ones(name)} {with_span(pool.means[name])}"
        for name in pool.means
        if name not in ("ported", "host")
    ]
    host = f"the bare host has {figure(pool.means['host'])}, " if "host" in pool.means else ""
    return (
        f"{sentence(after(pool.budget))}, ported modules reach "
        f"{with_span(pool.means['ported'])} {results.rests_on.directed}; {host}{listed(others)}."
    )


def _lead_sentence(pool: Pool, results: Results) -> str:
    if not pool.leads:
        return "No control was run, so nothing can be said of a lead."
    return f"That is {_leads(pool, results)}."


def _leads(pool: Pool, results: Results) -> str:
    return listed(
        [
            f"{with_span(lead, sign=True)} {results.over} {ones(name)} ({p_text(lead.adjusted)})"
            for name, lead in pool.leads.items()
        ]
    )


def _recovered(pool: Pool) -> Iterator[str]:
    if pool.recovery is None:
        return
    if pool.recovery.ratio is not None:
        yield f"They keep {recovery_text(pool.recovery)} of what native modules gain."
    else:
        yield f"There is no recovery to speak of: {pool.recovery.reason}."


def _beside_native(pool: Pool) -> Iterator[str]:
    """How far ports are from what training there gives, which also stands where that is too
    little for a recovery."""
    lead = pool.beside_native
    if lead is not None:
        sure = lead.above_zero or lead.below_zero
        told = "" if sure else ", which these runs do not tell from nothing"
        yield f"Set beside native modules, their lead is {with_span(lead, sign=True)}{told}."


def _as_answered(analysis: Analysis, pool: Pool) -> Iterator[str]:
    """What the figures are without the correction, and whether a gain goes with it."""
    if not analysis.results.is_corrected or "ported" not in pool.plain:
        return
    said = [f"{ones(name)} {figure(pool.plain[name])}" for name in pool.plain if name != "ported"]
    yield (
        f"As answered, without the correction, ported modules have {figure(pool.plain['ported'])}; "
        f"{listed(said)}."
    )
    if pool.only_threshold:
        yield f"{sentence(THRESHOLD)}."


def _plain(results: Results, pool: Pool) -> Iterator[str]:
    """What stands beside figures that are no corrected ones."""
    if not results.kind.of_classes:
        metric = results.metrics[results.kind.plain]
        yield from _by_metric(metric.directed, pool.plain, pool.plain_effect)


def _ranking(results: Results, pool: Pool) -> Iterator[str]:
    """The third metric, of classes AUROC, which no threshold touches, and the share of the native
    lift that ports keep."""
    kind = results.kind
    about = f", {kind.ranking_about}" if kind.ranking_about else ""
    title = f"{results.metrics[kind.ranking].directed}{about}"
    yield from _by_metric(title, pool.ranking, pool.effect)


def _by_metric(title: str, means: Mapping[str, Estimate], kept: Recovery | None) -> Iterator[str]:
    if "ported" not in means or len(means) < 2:
        return
    said = [f"{ones(name)} {figure(found)}" for name, found in means.items() if name != "ported"]
    yield f"By {title}, ported modules reach {with_span(means['ported'])}; {listed(said)}."
    if kept is not None and kept.ratio is not None:
        yield f"They keep {with_span(kept.ratio)} of the native modules' lift of it."


def _cells_sentence(analysis: Analysis, relation: str, method: str, budget: int) -> Iterator[str]:
    points = _points(analysis, relation, method, budget)
    if len(points) < 2:
        return
    parts = []
    for name in ("sampled", "scratch"):
        leads = [lead for p in points if (lead := p.leads.get(name)) is not None]
        above = sum(lead.adjusted < SURE and lead.value > 0 for lead in leads)
        below = sum(lead.adjusted < SURE and lead.value < 0 for lead in leads)
        if leads:
            parts.append(f"surely above {ones(name)} in {above} of {len(leads)} (below in {below})")
    if parts:
        yield f"Cell by cell (technique, pair and setting) they are {listed(parts)}."


def _points(analysis: Analysis, relation: str, method: str, budget: int) -> list[Point]:
    return [
        point
        for point in analysis.points
        if (point.cell.relation, point.cell.method, point.budget) == (relation, method, budget)
    ]


def _nothing(analysis: Analysis, relation: str) -> str:
    rows = analysis.results.rows
    failed = int(((rows["relation"] == relation) & (rows["status"] == "failed")).sum())
    return "No technique, pair and setting has all its runs, so nothing can be averaged" + (
        f"; {count(failed, 'run')} failed." if failed else "."
    )


def _technique(analysis: Analysis, relation: str, method: str) -> Finding:
    return _by(analysis, relation, method, "technique")


def _by(analysis: Analysis, relation: str, method: str, by: str) -> Finding:
    """How the leads over sampled modules differ between techniques or between pairs."""
    about = (relation, method, _about(analysis, relation, method))
    budget = min(analysis.results.budgets)
    pools = [
        pool
        for pool in analysis.pools
        if (pool.relation, pool.method, pool.by, pool.budget) == (relation, method, by, budget)
        and "sampled" in pool.leads
    ]
    if not pools:
        return Finding(*about, "Not known", (_nothing(analysis, relation),))
    pools.sort(key=lambda pool: -pool.leads["sampled"].value)
    sentences = [
        f"{sentence(after(budget))}, ported modules lead sampled ones by "
        + listed([f"{with_span(p.leads['sampled'], sign=True)} for {p.name}" for p in pools])
        + "."
    ]
    with_ratio = [p for p in pools if p.recovery is not None and p.recovery.ratio is not None]
    if with_ratio:
        sentences.append(
            "Recovery: "
            + "; ".join(f"{p.name} {recovery_text(p.recovery)}" for p in with_ratio)
            + "."
        )
    gaps = analysis.contrasts(relation, method, by, budget)
    if not gaps:
        return Finding(*about, f"{_NOT_ASKED}: there is one {by}", tuple(sentences))
    short, told = differences_told(gaps, by)
    sentences.append(told)
    sentences += _explained(analysis, relation, (by, "direction") if by == "pair" else (by,))
    return Finding(*about, short, tuple(sentences))


def differences_told(contrasts: Sequence[Contrast], by: str) -> tuple[str, str]:
    """Whether techniques or pairs (`by`) differ, in a few words and in a sentence. How much they
    differ is told of a difference that is sure, though a wider one may be not."""
    widest = max(contrasts, key=_gap)
    sure = [contrast for contrast in contrasts if contrast.gap.adjusted < SURE]
    told = (
        f"Of {count(len(contrasts), 'difference')} between two {by}s, {len(sure)} "
        f"{'is' if len(sure) == 1 else 'are'} sure; the widest, {_contrast_text(widest)}."
    )
    if not sure:
        return _CHANCE, told
    safest = max(sure, key=_gap)
    if safest is not widest:
        told += f" The widest that is sure, {_contrast_text(safest)}."
    return f"Yes, by up to {figure(safest.gap)}", told


def _gap(contrast: Contrast) -> float:
    return contrast.gap.value


def _contrast_text(contrast: Contrast) -> str:
    names = f"{contrast.first.name} over {contrast.second.name}"
    return f"{names}, is {with_span(contrast.gap)}, {p_text(contrast.gap.adjusted)}"


def _explained(analysis: Analysis, relation: str, factors: Sequence[str]) -> Iterator[str]:
    found = analysis.decompositions.get(relation, ())
    lead = next((d for d in found if d.figure.startswith("lead")), None)
    if lead is None:
        return
    known = [(name, share) for name in factors if (share := lead.of(name)) is not None]
    if known:
        parts = listed([f"the {name} explains {share:.0%}" for name, share in known])
        of = " and by all methods" if len(_methods(analysis, relation)) > 1 else ""
        yield f"Of the variance of the lead over sampled modules at all budgets{of}, {parts}."


def _hosts(analysis: Analysis, relation: str, method: str) -> Finding:
    found = _by(analysis, relation, method, "pair")
    budget = min(analysis.results.budgets)
    gaps = {
        other: gap
        for other in analysis.results.relations
        if other != relation and (gap := analysis.between(relation, other, method, budget)).seeds
    }
    if not gaps:
        return found
    told = [
        f"Set beside {relation_name(other)}, the lead over sampled ones differs by "
        f"{with_span(gap, sign=True)} ({p_text(gap.adjusted)})."
        for other, gap in gaps.items()
    ]
    sure = [
        f"{'more' if gap.value > 0 else 'less'} survives than with {relation_name(other)}"
        for other, gap in gaps.items()
        if (gap.above_zero or gap.below_zero) and _sure(gap)
    ]
    short = _CHANCE if found.short.startswith(_NOT_ASKED) else found.short
    if sure:
        short = f"Yes: {listed(sure)}"
    return replace(found, short=short, sentences=(*told, *found.sentences))

"""The questions answered: right where the truth is known, and honest where it is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peftport.reports.answers import Finding, answer_questions, differences_told, short_answer
from peftport.reports.compared import Contrast
from peftport.reports.comparisons import analyse
from synthetic_studies import Synthetic, founding


def findings(study: Synthetic, question: int) -> dict[str, Finding]:
    return {found.relation: found for found in answer_questions(study.results())[question].findings}


def said(finding: Finding) -> str:
    return " ".join(finding.sentences)


def test_relations_are_answered_apart() -> None:
    found = findings(Synthetic(), 0)
    assert found["continuation"].short.startswith("Yes, by 0.3")
    assert found["independent"].short.startswith("No: zero-shot there is nothing")
    assert found["independent"].about == "independent hosts"


def test_an_answer_has_its_numbers() -> None:
    results = Synthetic().results()
    finding = answer_questions(results)[0].findings[0]
    pool = analyse(results).pool("continuation", "copy", 0)
    assert pool is not None
    text = said(finding)
    assert f"ported modules reach {pool.means['ported'].value:.2f} (" in text
    assert f"+{pool.leads['scratch'].value:.2f} (+" in text
    assert "of what native modules gain" in text
    assert "By AUROC" in text
    assert "surely above sampled ones in 2 of 2 (below in 0)" in text
    assert "After 100 steps" in text


def test_ports_are_set_beside_native_modules_also_where_these_gain_too_little_to_recover() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        return {"ported": 0.62, "native": 0.62}.get(row["condition"], 0.6)

    text = said(findings(Synthetic(accuracy=accuracy), 0)["independent"])
    assert "There is no recovery to speak of" in text
    assert re.search(
        r"Set beside native modules, their lead is \S+ \(\S+ to \S+\), which these runs do not",
        text,
    )
    worse = said(findings(Synthetic(), 0)["independent"])
    assert re.search(r"Set beside native modules, their lead is \S+ \(\S+ to \S+\)\.", worse)
    alone = Synthetic(conditions=("ported", "sampled", "scratch", "host"))
    assert "beside native" not in said(findings(alone, 0)["independent"])


def test_worse_than_the_controls_is_said() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        return {"ported": 0.3, "native": 0.86}.get(row["condition"], 0.5)

    found = findings(Synthetic(accuracy=accuracy), 0)["continuation"]
    assert found.short == "No: they do worse zero-shot"
    assert "(below in 2)" in said(found)


def test_only_one_control_beaten_is_only_in_part() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        return {"ported": 0.7, "scratch": 0.7, "native": 0.86}.get(row["condition"], 0.5)

    assert findings(Synthetic(accuracy=accuracy), 0)["independent"].short == (
        "Only in part, zero-shot"
    )


def test_a_further_control_that_ports_do_not_beat_counts() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        strong = row["condition"] == "ported" or row["control"] == "spectrum"
        return 0.8 if strong else {"native": 0.86}.get(row["condition"], 0.5)

    found = findings(Synthetic(accuracy=accuracy, controls=("gaussian", "spectrum")), 0)
    assert found["continuation"].short == "Only in part, zero-shot"


def test_every_pair_stands_beside_the_first_control_that_was_run_for_it() -> None:
    """A pair that cannot be copied has samples of another method's ports, and no others."""

    def missing(row: Mapping[str, Any]) -> bool:
        apart = (row["relation"] == "independent") != (row["control"] == "spectrum")
        return row["condition"] == "sampled" and apart

    results = Synthetic(controls=("gaussian", "spectrum"), missing=missing).results()
    analysis = analyse(results)
    assert analysis.controls == ("sampled", "scratch", "host")
    for point in analysis.points:
        assert results.controls(point.cell) == (
            ("spectrum",) if point.cell.relation == "independent" else ("gaussian",)
        )
        assert all(point.means[name] is not None for name in ("sampled", "scratch", "host"))
    for answer in answer_questions(analysis):
        for found in answer.findings:
            assert not found.short.startswith("Not known"), said(found)
            assert "sampled ones" in said(found)
    whole = answer_questions(analysis)[0]
    assert all("sampled ones in" in said(found) for found in whole.findings)
    assert {part.figure for part in analysis.decompositions["independent"]} == {
        part.figure for part in analysis.decompositions["continuation"]
    }


def test_a_lead_that_does_not_outlast_the_adjustment_is_no_yes() -> None:
    results = Synthetic().results()
    pool = analyse(results).pool("continuation", "copy", 0)
    assert pool is not None
    weak = {name: replace(lead, adjusted=0.3) for name, lead in pool.leads.items()}
    assert short_answer(pool).startswith("Yes, by ")
    assert short_answer(replace(pool, leads=weak)).startswith("No: zero-shot there is nothing")


def test_the_technique_matters_where_it_does() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        if row["condition"] == "ported":
            return 0.85 if row["technique"] == "adapter" else 0.65
        return 0.86 if row["condition"] == "native" else 0.5

    found = findings(founding(accuracy=accuracy), 1)["continuation"]
    assert found.short.startswith("Yes, by up to 0.2")
    assert "Of 6 differences between two techniques, 3 are sure" in said(found)
    assert re.search(r"the technique explains [89]\d%", said(found))
    same = findings(founding(), 1)["continuation"]
    assert same.short == "No: nothing that these runs can tell from chance"


def test_how_much_techniques_differ_is_told_of_a_difference_that_is_sure() -> None:
    def contrasts(*pairs: tuple[float, float]) -> list[Contrast]:
        pool = analyse(Synthetic().results()).pools[0]
        return [
            Contrast(
                replace(pool, name=f"first {value}"),
                replace(pool, name="second"),
                replace(pool.leads["sampled"], value=value, adjusted=p),
            )
            for value, p in pairs
        ]

    short, told = differences_told(
        contrasts((0.13, 0.138), (0.04, 0.03), (0.02, 0.01)), "technique"
    )
    assert short == "Yes, by up to 0.04"
    assert "2 are sure; the widest, first 0.13 over second, is 0.13" in told
    assert "The widest that is sure, first 0.04 over second, is 0.04" in told
    short, told = differences_told(contrasts((0.13, 0.01), (0.04, 0.03)), "technique")
    assert short == "Yes, by up to 0.13"
    assert "The widest that is sure" not in told
    assert differences_told(contrasts((0.13, 0.138)), "pair")[0].startswith("No")


def test_hosts_matter_between_relations_and_within_one() -> None:
    found = findings(Synthetic(), 2)
    assert found["continuation"].short == "Yes: more survives than with independent hosts"
    assert found["independent"].short == "Yes: less survives than with continuations"

    alike = findings(Synthetic(accuracy=lambda row: 0.6), 2)["continuation"]
    assert alike.short == "No: nothing that these runs can tell from chance"

    def accuracy(row: Mapping[str, Any]) -> float:
        if row["condition"] == "ported":
            return 0.8 if row["origin"].endswith("tuned") else 0.7
        return 0.86 if row["condition"] == "native" else 0.5

    within = findings(founding(accuracy=accuracy), 2)["continuation"]
    assert within.short.startswith("Yes, by up to 0.1")
    assert "the direction explains" in said(within)


def test_what_was_not_compared_is_not_answered() -> None:
    one = Synthetic(techniques=("lora",), pairs=(("a", "b", "continuation"),))
    assert findings(one, 1)["continuation"].short == "Not asked here: there is one technique"
    alone = Synthetic(conditions=("ported",))
    assert findings(alone, 0)["continuation"].short.startswith("Not known")
    assert answer_questions(Synthetic(conditions=("host",)).results())[0].findings == ()


def test_failures_are_part_of_the_answer() -> None:
    def fails(row: Mapping[str, Any]) -> bool:
        return row["condition"] == "ported" and row["technique"] == "lora" and row["seed"] == 2

    study = Synthetic(techniques=("adapter", "lora", "prefix"), failed=fails)
    assert "1 of 3 cells are left out" in said(findings(study, 0)["continuation"])
    nothing = Synthetic(failed=lambda row: row["condition"] == "ported")
    assert said(findings(nothing, 0)["continuation"]).endswith("; 18 runs failed.")


def test_port_methods_are_answered_apart() -> None:
    study = Synthetic(methods=("copy", "procrustes"))
    found = [finding.about for finding in answer_questions(study.results())[0].findings]
    assert found == [
        "continuations, method copy",
        "continuations, method procrustes",
        "independent hosts, method copy",
        "independent hosts, method procrustes",
    ]


def test_relations_are_told_apart_after_the_adjustment_over_all_that_is_asked() -> None:
    """Nothing differs here; three relations and three methods are nine chances to think so."""
    pairs = (("s", "s", "same"), ("s", "t", "continuation"), ("s", "u", "independent"))
    told = []
    for seed in range(40):
        study = Synthetic(
            techniques=("lora",),
            pairs=pairs,
            methods=("copy", "ridge", "procrustes"),
            budgets=(0,),
            seeds=(0, 1, 2, 3, 4),
            conditions=("ported", "sampled", "host"),
            accuracy=lambda row: 0.5 if row["condition"] == "host" else 0.6,
        )
        answers = answer_questions(study.results(seed))[2]
        told.append(any(each.short.startswith("Yes") for each in answers.findings))
    assert sum(told) <= 4
    assert "(p" in answers.findings[0].sentences[0]


def test_a_share_of_the_variance_says_that_it_is_of_all_methods() -> None:
    def accuracy(row: Mapping[str, Any]) -> float:
        best = row["condition"] == "ported" and row["method"] == "copy"
        return 0.9 if best and row["technique"] == "adapter" else 0.6

    every = findings(Synthetic(methods=("copy", "ridge"), accuracy=accuracy), 1)["continuation"]
    assert "at all budgets and by all methods, the technique explains" in said(every)
    one = findings(Synthetic(accuracy=accuracy, methods=("copy",)), 1)["continuation"]
    assert "at all budgets, the technique explains" in said(one)

"""The page without a browser: whole by itself, small, safe, and honest about what is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from page_outline import Outline, words
from peftport.kind import USUAL, kind_named
from peftport.reports.page import render, run_columns, write_report
from peftport.reports.results import Results
from synthetic_studies import Synthetic, founding


@pytest.mark.parametrize(
    "study",
    [
        Synthetic(),
        Synthetic(predictions=False),
        Synthetic(failed=lambda row: True),
        Synthetic(conditions=("ported",), seeds=(3,)),
        Synthetic(conditions=("host", "scratch")),
        Synthetic(controls=("gaussian", "spectrum"), methods=("copy", "procrustes"), budgets=(5,)),
    ],
)
def test_the_page_is_well_formed_whatever_is_missing(study: Synthetic) -> None:
    outline = Outline(render(study.results()))
    assert outline.open == []
    identifiers = [found["id"] for _, found in outline.tags if "id" in found]
    assert len(identifiers) == len(set(identifiers))
    targets = [str(found["href"])[1:] for tag, found in outline.tags if tag == "a"]
    assert set(targets) <= set(identifiers)


def test_the_page_names_nothing_outside_itself() -> None:
    page = render(Synthetic().results())
    outline = Outline(page)
    for tag, found in outline.tags:
        for key in ("src", "href", "data", "action", "srcset"):
            assert (found.get(key) or "#").startswith(("#", "data:")), (tag, found)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", page)


def test_a_study_of_1440_runs_makes_a_page_under_five_megabytes() -> None:
    results = founding().results()
    assert len(results.rows.query("condition in ('ported', 'sampled')")) == 1440
    assert len(render(results).encode()) < 2_000_000


def test_figures_have_words_and_tables_have_controls() -> None:
    outline = Outline(render(Synthetic().results()))
    drawings = [found for tag, found in outline.tags if tag == "svg"]
    assert all(
        "aria-label" in found or "aria-labelledby" in found or found.get("aria-hidden") == "true"
        for found in drawings
    )
    assert len([found for found in drawings if found.get("class") == "curves"]) == 4
    text = words(render(Synthetic().results()))
    assert "bare host sampled from scratch ported native" in text


def test_answers_come_first() -> None:
    text = words(render(Synthetic().results()))
    answer = text.index("Do ported modules outperform")
    assert answer < text.index("Learning curves Accuracy as answered on the receiving host")


def test_all_runs_are_in_the_page_once() -> None:
    results = Synthetic(failed=lambda row: row["condition"] == "native").results()
    page = render(results)
    found = re.search(r'id="runs-data">(.*?)</script>', page)
    assert found is not None
    runs = json.loads(found.group(1))
    columns = run_columns(kind_named(USUAL))
    assert tuple(runs["columns"]) == columns
    assert {len(runs["data"][name]) for name in columns} == {len(results.rows)}
    assert [runs["words"][i] for i in runs["data"]["status"]] == list(results.rows["status"])
    accuracies = [x for x in runs["data"]["accuracy"] if x is not None]
    assert accuracies == [round(x, 4) for x in results.done["accuracy"]]


def test_names_cannot_break_out_of_the_page() -> None:
    evil = "</script><script>alert(1)</script>'\"&"
    results = Synthetic(
        techniques=(evil,),
        pairs=((evil, "new", "continuation"),),
        settings=((evil, evil),),
        controls=(evil,),
        facts={"study": evil, "hosts": [{"name": evil}], "spec": {"x": evil}},
    ).results()
    outline = Outline(render(results))
    assert len([tag for tag, _ in outline.tags if tag == "script"]) == 2
    assert outline.open == []


def test_missing_and_failed_runs_are_told() -> None:
    study = Synthetic(
        failed=lambda row: row["condition"] == "ported" and row["technique"] == "lora",
        missing=lambda row: row["condition"] == "scratch" and row["seed"] == 2,
        facts={"plan": {"rows": 126}},
    )
    text = words(render(study.results()))
    assert "This study is not whole: what is missing or failed" in text
    assert "18 runs failed: the loss is not a number at step 3" in text
    assert "12 runs that were planned are not run yet." in text
    assert "from scratch 2 of 3 seeds" in text
    assert "ported 0 of 3 seeds" in text


def test_a_whole_study_says_so() -> None:
    text = words(render(Synthetic().results()))
    assert "Nothing: every run is done." in text
    assert "not whole" not in text


def test_the_facts_are_shown() -> None:
    facts = {
        "study": "quick",
        "spec": {"budgets": [0, 10]},
        "hosts": [{"name": "small", "family": "t5", "fingerprint": "ab" * 32}],
        "tasks": [{"name": "films", "fingerprint": "cd" * 32}],
        "versions": {"torch": "2.13.0"},
        "plan": {"rows": 126},
        "durations": {"running": 250.0},
    }
    text = words(render(Synthetic(facts=facts).results()))
    for expected in ("ab" * 32, "cd" * 32, "torch 2.13.0", "rows: 126", "running: 4 min", "t5"):
        assert expected in text
    assert '"budgets"' in text


def test_without_predictions_it_is_said_what_the_intervals_speak_for() -> None:
    assert "Not every run has its predictions" in words(
        render(Synthetic(predictions=False).results())
    )


def test_the_same_runs_make_the_same_page() -> None:
    assert render(Synthetic().results()) == render(Synthetic().results())


def test_the_report_is_written_whole_and_over_an_older_one(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "quick"
    page = write_report(Synthetic().results(), folder)
    assert page == folder / "index.html"
    assert sorted(path.name for path in folder.iterdir()) == [
        "index.html", "results.md", "results.tex",
    ]  # fmt: skip
    before = page.read_text()
    write_report(Synthetic(techniques=("prefix",)).results(), folder)
    assert page.read_text() != before
    assert len(list(folder.iterdir())) == 3


def test_an_empty_study_makes_a_page_too() -> None:
    empty = Synthetic().results().rows.iloc[:0]
    assert "nothing can be answered" in words(render(Results(empty)))

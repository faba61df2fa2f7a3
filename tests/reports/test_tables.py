"""Tables: no ported figure without its controls, readable in a terminal, valid in LaTeX."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from peftport.reports.comparisons import analyse
from peftport.reports.tables import (
    accuracy_grids,
    average_grids,
    latex,
    markdown,
    missing_rows,
    summary_line,
    terminal_table,
    with_half,
)
from peftport.reports.wording import with_span
from synthetic_studies import Synthetic


def printed(study: Synthetic, width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(terminal_table(study.results()))
    return stream.getvalue()


def test_every_table_has_the_controls_beside_ported() -> None:
    grids = list(accuracy_grids(analyse(Synthetic(controls=("gaussian", "permuted")).results())))
    assert len(grids) == 2
    for grid in grids:
        assert grid.head == (
            "technique", "steps", "bare host", "sampled", "sampled (permuted)", "from scratch",
            "ported", "native", "recovery", "AUROC, bare host", "AUROC, ported", "AUROC lift kept",
        )  # fmt: skip
        assert all(len(row) == len(grid.head) for row in grid.rows)


def test_a_table_says_what_the_rows_say() -> None:
    results = Synthetic().results()
    grid = next(iter(accuracy_grids(analyse(results))))
    rows = results.rows.query(
        "condition == 'ported' and technique == 'lora' and budget == 10 "
        "and relation == 'continuation'"
    )
    row = next(row for row in grid.rows if row[:2] == ("lora", "10"))
    assert row[grid.head.index("ported")].startswith(f"{rows['accuracy'].mean():.2f} (")


def bare_shifted(row) -> float:
    """Bare hosts name one class for nearly all texts; modules do not."""
    return 3.0 if row["condition"] in ("host", "sampled", "scratch") else 0.0


def test_corrected_figures_have_plain_ones_and_aurocs_beside_them() -> None:
    results = Synthetic(scores=True, shift=bare_shifted).results()
    grid = next(iter(accuracy_grids(analyse(results))))
    assert grid.head[-5:] == (
        "bare host as answered", "ported as answered",
        "AUROC, bare host", "AUROC, ported", "AUROC lift kept",
    )  # fmt: skip
    (row,) = [row for row in grid.rows if row[:2] == ("lora", "0")]
    bare = results.done.query("condition == 'host' and receiver == 'small-tuned'")
    ported = results.rows.query(
        "condition == 'ported' and technique == 'lora' and budget == 0 "
        "and relation == 'continuation'"
    )
    told = dict(zip(grid.head, row, strict=True))
    assert told["bare host"].startswith(f"{bare['corrected_accuracy'].mean():.2f} (")
    assert told["bare host as answered"] == f"{bare['accuracy'].mean():.2f}"
    assert told["ported"].startswith(f"{ported['corrected_accuracy'].mean():.2f} (")
    assert told["AUROC, ported"] == f"{ported['auroc'].mean():.2f}"
    text = markdown(results)
    assert "Accuracy after the label-free correction" in text
    assert "As answered, without the correction, ported modules have" in text


def test_a_terminal_shows_plain_figures_and_aurocs_at_the_smallest_budget() -> None:
    text = printed(Synthetic(scores=True, techniques=("compacter",)))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    assert len(re.findall(r"as answered", text)) >= 2
    assert len(re.findall(r"^\s*AUROC +0\.\d\d", text, re.MULTILINE)) == 2


def test_figures_that_are_not_corrected_say_so() -> None:
    assert "Accuracy as answered: not all of these runs kept the scores" in markdown(
        Synthetic().results()
    )


def test_averages_by_technique_stand_beside_their_controls_in_narrow_tables() -> None:
    analysis = analyse(Synthetic(scores=True).results())
    grids = list(average_grids(analysis))
    title = "Continuations, all pairs and settings: "
    figures, leads, plain, ranking = grids[: len(grids) // 2]
    assert [grid.title.removeprefix(title) for grid in (figures, leads, plain, ranking)] == [
        "corrected accuracy", "leads of ported modules (* adjusted p < 0.05)", "as answered",
        "AUROC",
    ]  # fmt: skip
    assert all(grid.title.startswith("Independent hosts") for grid in grids[len(grids) // 2 :])
    conditions = ("bare host", "sampled", "from scratch", "ported", "native")
    for grid in (figures, plain, ranking):
        assert grid.head[2:7] == conditions
    pool = analysis.pool("continuation", "copy", 10, "technique", "lora")
    assert pool is not None
    row = next(row for row in figures.rows if row[:2] == ("lora", "10"))
    assert row[5] == with_span(pool.means["ported"])
    assert row[2] == f"{pool.means['host'].value:.2f}"
    row = next(row for row in leads.rows if row[:2] == ("lora", "10"))
    for name, cell in zip(analysis.controls, row[2:], strict=True):
        found = pool.leads[name]
        assert cell == with_span(found, sign=True) + "*" * (found.adjusted < 0.05)
    assert f"## {leads.title}" in markdown(analysis)


def test_tables_in_markdown_have_at_most_100_columns() -> None:
    text = markdown(Synthetic(scores=True, techniques=("compacter",)).results())
    tables = [line for line in text.splitlines() if line.startswith("| ")]
    assert max(map(len, tables)) <= 100


def test_a_terminal_of_80_columns_shows_whole_figures() -> None:
    text = printed(Synthetic(techniques=("adapter", "compacter"), budgets=(0, 10, 30, 100)))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80
    line = next(line for line in text.splitlines() if "compacter" in line)
    assert len(re.findall(r"\d\.\d\d ±\.\d\d", line)) == 6
    assert "small → small-tuned (continuation), films" in text
    more = printed(Synthetic(techniques=("compacter",), controls=("gaussian", "spectrum")))
    line = next(line for line in more.splitlines() if "compacter" in line)
    assert len(re.findall(r"\d\.\d\d±\.\d\d", line)) == 7
    assert "…" not in more and "spectrum" in more
    assert "Do ported modules outperform" in text
    assert "126 runs done" in printed(Synthetic())


def test_missing_runs_show_as_dashes_and_are_counted() -> None:
    study = Synthetic(
        missing=lambda row: row["condition"] == "scratch",
        failed=lambda row: row["condition"] == "native",
        facts={"plan": {"rows": 126}},
    )
    results = study.results()
    assert missing_rows(results) == 36
    assert summary_line(results) == "78 runs done, 12 failed, 36 not run; 3 seeds"
    grid = next(iter(accuracy_grids(analyse(results))))
    for row in grid.rows:
        assert row[grid.head.index("from scratch")] == "\N{EN DASH}"
        assert row[grid.head.index("native")] == "\N{EN DASH}"
        assert row[grid.head.index("recovery")].startswith("none; +")


def test_without_predictions_the_table_says_what_its_intervals_rest_on() -> None:
    assert "over seeds only" in " ".join(printed(Synthetic(predictions=False)).split())


def test_markdown_has_answers_and_well_formed_tables() -> None:
    text = markdown(Synthetic(pairs=(("a|b", "c", "continuation"),)).results())
    assert "**Continuations: Yes, by 0.3" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 4 * (2 + 2 * 3)
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in lines]
    assert bars == [9] * 8 + [6] * 8 + [9] * 16


def test_latex_is_escaped_and_balanced() -> None:
    text = latex(Synthetic(pairs=(("a_b", "50% & more", "continuation"),)).results())
    assert r"a\_b $\rightarrow$ 50\% \& more" in text
    for begun in ("longtable",):
        assert text.count(rf"\begin{{{begun}}}") == text.count(rf"\end{{{begun}}}") == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and " & " in line]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in rows[-6:]} == {10}
    assert not re.search(r"[^\x00-\x7f]", text)


@pytest.mark.parametrize("predictions", [True, False])
def test_half_a_width_is_left_out_where_there_is_none(predictions: bool) -> None:
    analysis = analyse(Synthetic(seeds=(0,), predictions=predictions).results())
    text = with_half(analysis.points[0].means["ported"])
    assert ("±" in text) == predictions
    assert with_half(None) == "\N{EN DASH}"

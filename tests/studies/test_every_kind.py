"""A study of every kind of task runs to its end, keeps what its metrics need, and is reported."""

from __future__ import annotations

import json
import shutil
import sqlite3

import numpy as np
import pytest

from inline_executor import Inline
from page_outline import Outline
from peftport.api.study_files import export_of, report_of
from peftport.errors import BadInput
from peftport.kind import Kind, kind_named
from peftport.kinds.likelihood import Likelihood
from peftport.metrics import Evaluation
from peftport.reports.stored import read_exported, read_results
from peftport.studies.resolve import resolve
from peftport.studies.run import run_study
from peftport.studies.schema import columns_of
from peftport.studies.store import NAME, read_store, read_study
from study_specs import tiny_spec

FAMILIES = ("qwen2", "t5")
KINDS = ("classification", "choice", "completion", "language")


def spec_of(kind, family, tiny_host, tiny_continuation, task, **changes):
    """A small study of a kind, on a tiny host and its continuation."""
    return tiny_spec(
        {"a": tiny_host(family), "b": tiny_continuation(family)},
        task,
        **{
            "kind": kind,
            "max_answer": 2 if kind == "completion" else None,
            "techniques": {"lora": {}},
            "pairs": [{"origin": "a", "receiver": "b", "relation": "continuation"}],
            "budgets": [0, 3],
            "donor_steps": 6,
            "native_steps": 6,
            "limit_train": 24,
            "limit_test": 8,
            "training": {"batch_size": 8, "learning_rates": {"lora": 0.01}},
            **changes,
        },
    )


@pytest.fixture(scope="module", params=[(k, f) for k in KINDS for f in FAMILIES], ids="-".join)
def study(request, tiny_host, tiny_continuation, tiny_task, tmp_path_factory):
    """A kind, and the folder of a study of it that has been run."""
    kind, family = request.param
    folder = tmp_path_factory.mktemp(f"{kind}-{family}") / "study"
    spec = spec_of(kind, family, tiny_host, tiny_continuation, tiny_task)
    outcome = run_study(spec, folder, Inline())
    assert outcome.done == outcome.total
    return kind_named(kind), folder


def test_its_rows_have_the_metrics_of_its_kind(study):
    kind, folder = study
    with read_study(folder) as store:
        assert store.kind is kind
        rows = list(store.rows())
    assert {row["condition"] for row in rows} == {"ported", "sampled", "scratch", "native", "host"}
    for row in rows:
        assert tuple(row) == columns_of(kind)
        assert all(row[name] is not None for name in (kind.primary, kind.plain, kind.ranking))
        assert row["n_test"] == 8


def test_what_it_keeps_of_the_examples_gives_its_figures_again(study):
    kind, folder = study
    results = read_results(folder)
    assert results.has_predictions
    for row in results.done.to_dict("records"):
        found = results.scored[row["run_id"]]
        for name, metric in kind.metrics.items():
            figure = metric.figure(found)
            if figure is None or np.isnan(row[name]):
                assert figure is None and np.isnan(row[name])
                continue
            assert figure == pytest.approx(row[name], rel=1e-3, abs=2e-3), name
            assert len(metric.parts(found)) == 8


def test_its_report_says_nothing_of_what_its_kind_does_not_have(study, tmp_path):
    kind, folder = study
    found = report_of(folder, tmp_path / "report")
    page, tables = (
        (tmp_path / "report" / name).read_text() for name in ("index.html", "results.md")
    )
    shown, record = " ".join(Outline(page).text), found.to_dict()
    title = kind.metrics[kind.primary].title
    assert title in shown and title in tables
    assert record["metric"] == kind.primary
    told = json.dumps(record, allow_nan=False)
    if not kind.of_classes:
        for text in (shown, tables, told):
            for word in ("AUROC", "auroc", "correction", "threshold", "kappa"):
                assert word not in text
        assert "accuracy" not in tables + told


def test_its_exported_rows_tell_the_kind(study, tmp_path):
    kind, folder = study
    export_of(folder, tmp_path / "rows.csv")
    assert read_exported(tmp_path / "rows.csv").kind is kind


def test_agreement_with_donors_is_there_for_classes_alone(study):
    kind, folder = study
    with read_store(folder) as store:
        ported = [row for row in store.rows() if row["condition"] == "ported"]
    if kind.of_classes:
        assert all(row["agreement"] is not None for row in ported)
    else:
        assert "agreement" not in ported[0]


def test_tasks_of_two_kinds_are_refused_by_name(tiny_host, tiny_continuation, tiny_task, tmp_path):
    other = tmp_path / "texts"
    other.mkdir()
    for split in ("train", "validation", "test"):
        (other / f"{split}.jsonl").write_text('{"prompt": "a", "completion": "film"}\n')
    spec = spec_of(
        None,
        "qwen2",
        tiny_host,
        tiny_continuation,
        tiny_task,
        tasks={"films": str(tiny_task), "plays": str(other)},
        settings=[
            {"origin_task": "films", "task": "films"},
            {"origin_task": "plays", "task": "plays"},
        ],
    )
    with pytest.raises(BadInput, match=r"films is of kind class.*, plays is of kind completion"):
        resolve(spec, fetch=True)


def test_an_encoder_is_refused_for_kinds_that_write(tiny_host, tiny_continuation, tiny_task):
    spec = spec_of("completion", "bert", tiny_host, tiny_continuation, tiny_task)
    with pytest.raises(BadInput, match="host a is an encoder and writes nothing"):
        resolve(spec, fetch=True)


def test_an_unknown_kind_is_refused_with_those_that_are_known(
    tiny_host, tiny_continuation, tiny_task
):
    with pytest.raises(BadInput, match="Did you mean 'completion'"):
        spec_of("completions", "qwen2", tiny_host, tiny_continuation, tiny_task)


def test_a_store_with_answers_of_another_length_is_refused(study, tmp_path):
    _, folder = study
    shutil.copytree(folder, tmp_path / "s")
    with sqlite3.connect(tmp_path / "s" / NAME) as db:
        db.execute("UPDATE runs SET scores = substr(scores, 1, length(scores) - 4)")
    with pytest.raises(BadInput, match="answers of another number of examples"):
        read_study(tmp_path / "s")


def test_of_a_kind_that_says_nothing_else_the_parts_of_its_metrics_are_kept():
    class Plain(type(kind_named("language"))):
        name = "plain"

    for method in ("gold", "read_gold", "pack", "unpack", "lengths"):
        setattr(Plain, method, getattr(Kind, method))
    kind = Plain()
    scored = Likelihood(np.array([4.0, 6.0]), np.array([2, 2]), np.array([8, 8]))
    evaluation = Evaluation.of(scored, kind.metrics, 2)
    answers, gold = kind.pack(evaluation), kind.read_gold(bytes(2), {})
    kept = kind.unpack(answers, gold, {})
    for name in kind.metrics:
        assert np.array_equal(kind.parts(kept, name), kind.metrics[name].parts(scored))
    assert len(answers.scores) == kind.lengths(gold, {}).scores

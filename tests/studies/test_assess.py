"""An assessment: learning rates for each condition by itself, agreement of ports with donors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from modules.formats.modules import made
from peftport.correction import agreement
from peftport.kind import kind_named
from peftport.metrics import Evaluation
from peftport.modules import Module
from peftport.porting import port
from peftport.porting.methods import way
from peftport.studies import assess
from peftport.studies.assess import Assessment
from peftport.studies.donors import answers_of
from peftport.studies.ports import Taken
from peftport.studies.trial import Found
from peftport.tasks import load_task
from peftport.techniques import technique
from peftport.techniques.embeddings import without_embeddings
from peftport.training import TrainingSettings, evaluate_one
from tiny_runs import host_in, task_in


@pytest.fixture
def assessment(tiny_host, tiny_task, monkeypatch) -> Assessment:
    """Of two LoRA modules on their own host, whose ports are the modules themselves."""
    host = host_in(tiny_host("t5"))
    modules = [made(host, "lora", seed=seed) for seed in (0, 1)]
    monkeypatch.setattr(assess, "port_apart", lambda job, _progress: Taken(job.donor, 0.1, 0.0))
    return Assessment(
        modules=modules,
        host=host,
        task=task_in(tiny_task),
        relation="same",
        budgets=[0, 2],
        seeds=[0, 1],
        native_steps=6,
        rates=[0.001, 0.1],
        settings=TrainingSettings(batch_size=8),
        ways=[way("copy")],
        origin=lambda: host,
    )


def judged(assessment, monkeypatch, best: dict[int, float]) -> list[tuple]:
    """Validation figures are such that each number of steps has that best rate; what is tested is
    trained, and gives the (condition, budgets, rate) of each lane."""
    trained, real = [], assessment.trial.train

    def train(lanes, budgets, rates, split=None):
        if split is None:
            trained.extend((lane.condition, tuple(budgets), rates[lane.name]) for lane in lanes)
            yield from real(lanes, budgets, rates)
            return
        assert split == assessment.trial.encoded("validation")
        for lane in lanes:
            yield validated(assessment, lane, budgets[-1], rates[lane.name] == best[budgets[-1]])

    monkeypatch.setattr(assessment.trial, "train", train)
    return trained


def validated(assessment, lane, steps: int, figure: float) -> Found:
    """A lane with a figure of the validation split."""
    figures = {assessment.task.asks.primary: float(figure)}
    return Found(lane, steps, Evaluation(None, None, figures), 0.0)


def test_native_modules_take_the_rate_that_is_best_where_they_end(assessment, monkeypatch):
    trained = judged(assessment, monkeypatch, best={2: 0.1, 6: 0.001})
    outcome = assessment.run()
    assert outcome.rates["scratch"] == outcome.rates["copy"] == 0.1
    assert outcome.rates["native"] == 0.001
    assert ("scratch", (6,), 0.001) in trained
    assert ("scratch", (0, 2), 0.1) in trained
    rows = [row for row in outcome.rows if row["condition"] == "native"]
    assert [(row["budget"], row["status"]) for row in rows] == [(6, "done")] * 2


@pytest.fixture
def taught(assessment, monkeypatch) -> Assessment:
    """Whose port took three steps of training itself."""

    def port_apart(job, _progress):
        record = job.donor.record.model_copy(update={"port": {"steps": 3}})
        return Taken(replace(job.donor, record=record), 0.1, 0.0)

    monkeypatch.setattr(assess, "port_apart", port_apart)
    assessment.budgets = [0]
    return assessment


def test_what_stands_beside_a_method_that_trains_has_the_rate_that_is_best_there(
    taught, monkeypatch
):
    """Also where nothing else is trained."""
    trained = judged(taught, monkeypatch, best={3: 0.1, 6: 0.001})
    outcome = taught.run()
    assert outcome.rates["scratch, 3 steps"] == 0.1
    assert outcome.rates["native"] == outcome.rates["scratch"] == 0.001
    assert ("scratch", (3,), 0.1) in trained
    assert ("scratch", (0, 6), 0.001) in trained
    rows = [(r["condition"], r["budget"]) for r in outcome.rows]
    assert [row for row in rows if row[0] in ("scratch", "native")].count(("scratch", 3)) == 2
    assert {row for row in rows if row[0] == "native"} == {("native", 6)}


def test_a_fresh_module_of_a_budget_s_steps_is_trained_once(taught, monkeypatch):
    judged(taught, monkeypatch, best={3: 0.1, 6: 0.001})
    taught.budgets = [0, 3]
    outcome = taught.run()
    rows = [(row["condition"], row["budget"]) for row in outcome.rows]
    assert rows.count(("scratch", 3)) == 2
    assert "scratch, 3 steps" not in outcome.rates


def test_a_port_agrees_with_its_donor_as_kappa_says(assessment):
    outcome = assessment.run()
    ported = [row for row in outcome.rows if row["condition"] == "ported"]
    assert [row["agreement"] for row in ported if row["budget"] == 0] == [1.0, 1.0]
    others = [row for row in outcome.rows if row["condition"] != "ported"]
    assert all(row["agreement"] is None for row in others)
    first, second = answers_of(assessment.host, assessment.modules, assessment.task)
    assert agreement(first, second) < 1


def test_each_port_is_tested_with_its_own_embeddings_and_no_control_with_any(
    assessment, monkeypatch
):
    host = assessment.host
    rows = host.model.get_input_embeddings().weight.detach()
    for seed, module in enumerate(assessment.modules):
        noise = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
        module.tensors["embedding.input.weight"] = rows + 2 * rows.std() * noise
    plain = [Module(m.record, without_embeddings(m.tensors)) for m in assessment.modules]
    drawn = [port(m, host.geometry, m.record.host, "gaussian", seed=s) for s, m in enumerate(plain)]
    found = assessment.run().rows

    def log_losses(**wanted):
        these = [row for row in found if wanted.items() <= row.items() and not row["budget"]]
        return [row["log_loss"] for row in these]

    def alone(module):
        data = assessment.trial.encoded("test"), assessment.trial.readout
        made = technique("lora")
        return evaluate_one(host, made, module.config, module.tensors, *data).figures["log_loss"]

    ported = log_losses(condition="ported")
    assert ported == pytest.approx([alone(each) for each in assessment.modules], abs=1e-5)
    assert ported != pytest.approx([alone(each) for each in plain], abs=1e-2)
    sampled = log_losses(condition="sampled", control="gaussian")
    assert sampled == pytest.approx([alone(each.module) for each in drawn], abs=1e-5)
    assert {row["budget"] for row in found if row["condition"] == "ported"} == {0, 2}
    assert not [row["error"] for row in found if row["error"]]
    assert host.model.get_input_embeddings().weight.equal(rows)


def test_every_condition_is_corrected_on_the_same_texts(assessment):
    outcome = assessment.run()
    assert all(row["corrected_accuracy"] is not None for row in outcome.rows)
    assert all(scored.offsets is not None for scored in outcome.scored.values())
    assert {len(scored.labels) for scored in outcome.scored.values()} == {48}


@pytest.mark.parametrize("family", ["qwen2", "t5"])
@pytest.mark.parametrize("kind", ["choice", "completion", "language"])
def test_every_kind_is_assessed_in_its_own_metric(kind, family, tiny_host, tiny_task, monkeypatch):
    """With two rates to choose from, each tried on the validation split."""
    host = host_in(tiny_host(family))
    task = load_task(
        str(tiny_task), kind=kind, limit_train=24, limit_test=8, limit_validation=8, max_answer=2
    )
    rates = [0.003, 0.3]
    monkeypatch.setattr(assess, "port_apart", lambda job, _progress: Taken(job.donor, 0.1, 0.0))
    found = Assessment(
        modules=[made(host, "lora")],
        host=host,
        task=task,
        relation="same",
        budgets=[0, 2],
        seeds=[0],
        native_steps=3,
        rates=rates,
        settings=TrainingSettings(batch_size=8),
        ways=[way("copy")],
        origin=lambda: host,
    ).run()
    asks = task.asks
    assert {row["condition"] for row in found.rows} == {
        "host",
        "sampled",
        "scratch",
        "ported",
        "native",
    }
    for row in found.rows:
        assert row["status"] == "done"
        assert all(row[name] is not None for name in (asks.primary, asks.plain, asks.ranking))
    assert len(found.gold[task.name]) == 8
    assert set(found.rates.values()) <= set(rates)


@pytest.mark.parametrize(("kind", "best"), [("completion", 0.001), ("classification", 0.1)])
def test_the_rate_is_the_one_with_the_lower_loss_or_the_higher_accuracy(
    assessment, kind, best, monkeypatch
):
    """Of a kind whose primary figure is a loss, or an accuracy, which are read here alike."""
    figure, real = {0.001: 0.5, 0.1: 0.75}, assessment.trial.train
    primary, score = kind_named(kind).primary, kind_named(kind).score

    def train(lanes, budgets, rates, split=None):
        if split is None:
            yield from real(lanes, budgets, rates)
            return
        for lane in lanes:
            found = Evaluation(None, None, {primary: figure[rates[lane.name]]})
            yield Found(lane, budgets[-1], found, 0.0)

    monkeypatch.setattr(assessment.trial, "train", train)
    monkeypatch.setattr(type(assessment.task.asks), "score", lambda _, found: score(found))
    rates = assessment.run().rates
    assert rates and set(rates.values()) == {best}

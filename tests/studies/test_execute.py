"""Packs worked off by the real training code, on tiny hosts."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from safetensors.torch import load

from peftport.errors import BadInput
from peftport.hosts.fingerprint import of_weights
from peftport.modules import Module, Record, expected_shapes
from peftport.porting import port
from peftport.studies.execute import execute
from peftport.studies.resolve import resolve, texts_at
from peftport.studies.work import Kept, LaneStart, PackReading, Texts, Work
from port_methods import soft, turned
from study_specs import tiny_spec

__all__ = ["soft", "turned"]

FAMILIES = {"encoder-decoder": "t5", "encoder": "bert", "decoder": "qwen2"}


@pytest.fixture
def work(tiny_host, tiny_continuation, tiny_task, request):
    """A pack of three lanes from scratch on the receiving host of a kind."""
    family = FAMILIES[getattr(request, "param", "encoder-decoder")]
    hosts = {"a": tiny_host(family), "b": tiny_continuation(family)}
    pairs = [{"origin": "a", "receiver": "b", "relation": "continuation"}]
    facts = resolve(tiny_spec(hosts, tiny_task, pairs=pairs), fetch=True)
    return Work(
        number=4,
        host=facts.hosts["b"]["location"],
        host_name="b",
        host_mark=facts.hosts["b"]["fingerprint"],
        tokenizer=facts.hosts["b"]["tokenizer"],
        task=facts.tasks["films"]["location"],
        task_name="films",
        task_mark=facts.tasks["films"]["fingerprint"],
        technique="lora",
        options=facts.techniques["lora"],
        training={"batch_size": 8, "warmup": 2, "clip": 1.0, "weight_decay": 0.0},
        limit_train=None,
        split="test",
        limit_test=None,
        texts=None,
        budgets=(0, 4, 8),
        starts=tuple(LaneStart("scratch", seed, 0.01) for seed in (0, 1, 2)),
        tests={0: (0, 1, 2), 4: (0, 1, 2), 8: (0, 1)},
        keeps={0: (), 4: (), 8: (0, 2)},
    )


def run(work: Work) -> dict[int, PackReading]:
    return {reading.budget: reading for reading in execute(work, 1)}


def donors(work: Work) -> dict[int, Kept]:
    """Donors by seed, trained on the receiving host itself."""
    return {
        work.starts[found.lane].seed: found.module
        for found in run(work)[8].lanes
        if found.module is not None
    }


@pytest.mark.parametrize("work", FAMILIES, indirect=True)
@pytest.mark.parametrize("technique", ["adapter", "compacter", "lora", "prefix"])
def test_a_pack_tests_and_keeps_what_was_asked_for(work, technique):
    options = {"reduction": 4} if technique == "compacter" else {}
    found = run(replace(work, technique=technique, options=options))
    assert list(found) == [0, 4, 8]
    assert [[r.lane for r in found[b].lanes] for b in (0, 4, 8)] == [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1, 2],
    ]
    for result in found[4].lanes:
        assert result.figures["n_test"] == len(result.answers.predictions) == 48
        assert math.isfinite(result.figures["log_loss"])
        assert set(result.answers.predictions) <= {0, 1}
        assert result.module is None
    first, second, third = found[8].lanes
    assert first.module and not second.module
    assert third.module and not third.figures and third.answers is None


def test_a_donor_is_a_whole_module_with_its_provenance(work):
    kept = donors(work)[2]
    module = Module(Record.model_validate_json(kept.record), load(kept.tensors))
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    assert shapes == expected_shapes(module.record)
    assert module.record.host.fingerprint == work.host_mark
    assert module.record.task["fingerprint"] == work.task_mark
    assert module.record.training == {"steps": 8, "learning_rate": 0.01, **work.training}
    assert module.record.seed == 2


@pytest.mark.parametrize("work", FAMILIES, indirect=True)
def test_a_copy_at_budget_0_is_the_donor(work):
    """Received by the host that it was trained on, a copied module predicts what it did."""
    trained = run(work)
    kept = donors(work)
    starts = (
        LaneStart("ported", 0, 0.01, "copy", kept[0]),
        LaneStart("ported", 2, 0.01, "copy", kept[2]),
    )
    ported = run(replace(work, starts=starts, budgets=(0,), tests={0: (0, 1)}, keeps={}))
    assert ported[0].lanes[0].answers.predictions == trained[8].lanes[0].answers.predictions
    assert ported[0].lanes[0].figures["log_loss"] == pytest.approx(
        trained[8].lanes[0].figures["log_loss"], abs=1e-5
    )


def test_a_port_method_is_given_both_hosts_and_texts(work, soft, tmp_path):
    kept = donors(work)[0]
    (tmp_path / "some.txt").write_text("\n\n".join(f"text number {i}" for i in range(20)))
    place = str(tmp_path / "some.txt")
    texts = Texts(place, 18, texts_at(place, 18)[1])
    starts = (LaneStart("ported", 0, 0.01, f"{soft}:scale=2", kept, origin=work.host),)
    pack = replace(work, starts=starts, tests={b: (0,) for b in work.budgets}, keeps={8: (0,)})
    found = run(replace(pack, texts=texts))[8].lanes[0]
    told = Record.model_validate_json(found.module.record)
    assert found.figures["n_test"] == 48
    assert told.host.name == "b"
    failed = run(replace(pack, texts=None))[0].lanes[0]
    assert "needs unlabelled texts" in failed.error
    changed = run(replace(pack, texts=replace(texts, mark="another")))[0].lanes[0]
    assert "texts are no longer what they were" in changed.error


def test_a_sample_may_be_of_what_a_port_method_makes(work, turned):
    kept = donors(work)[0]
    how = f"gaussian of {turned}"
    starts = (LaneStart("ported", 0, 0.01, turned, kept), LaneStart("sampled", 0, 0.01, how, kept))
    pack = replace(work, starts=starts, budgets=(0,), tests={0: (0, 1)}, keeps={0: (0, 1)})
    ported, sampled = (r.module for r in run(pack)[0].lanes)
    assert Record.model_validate_json(sampled.record).config["rank"] == 2
    made, drawn = load(ported.tensors), load(sampled.tensors)
    assert {n: t.shape for n, t in made.items()} == {n: t.shape for n, t in drawn.items()}
    assert not all(made[name].equal(drawn[name]) for name in made)


def test_a_port_and_a_sample_of_it_are_ported_once(work, turned, monkeypatch):
    work = replace(work, training={**work.training, "warmup": 1})  # donors that no test ported yet
    kept, how = donors(work), f"gaussian of {turned}"
    starts = tuple(
        LaneStart(kind, seed, 0.01, way, kept[seed])
        for seed in (0, 2)
        for kind, way in (("ported", turned), ("sampled", how))
    )
    asked = []

    def counted(donor, receiver, host, method, **rest):
        asked.append(method)
        return port(donor, receiver, host, method, **rest)

    monkeypatch.setattr("peftport.studies.starts.port", counted)
    pack = replace(work, starts=starts, budgets=(0,), tests={0: (0, 1, 2, 3)}, keeps={0: (0, 2)})
    found = run(pack)[0].lanes
    assert asked == [turned, "gaussian"] * 2
    first, second = (load(found[lane].module.tensors) for lane in (0, 2))
    assert not all(first[name].equal(second[name]) for name in first)


def test_a_port_may_make_another_kind_of_module_than_those_beside_it(work, turned):
    kept = donors(work)[0]
    starts = tuple(
        LaneStart(kind, seed, 0.01, how, kept)
        for kind, how, seed in (
            ("ported", "copy", 0),
            ("ported", turned, 0),
            ("sampled", "gaussian", 0),
            ("ported", turned, 1),
        )
    )
    pack = replace(work, starts=starts, tests={b: (0, 1, 2, 3) for b in work.budgets})
    found = run(replace(pack, keeps={8: (0, 1)}))
    for reading in found.values():
        assert [r.lane for r in reading.lanes if r.figures] == [0, 1, 2, 3]
    alone = run(replace(pack, starts=starts[1:2], tests={8: (0,)}, budgets=(8,), keeps={}))
    assert found[8].lanes[1].answers.predictions == alone[8].lanes[0].answers.predictions
    copied, other = (Record.model_validate_json(r.module.record) for r in found[8].lanes[:2])
    assert (copied.config["rank"], other.config["rank"]) == (8, 2)


def test_a_sample_differs_by_its_seed_and_from_the_copy(work):
    kept = donors(work)[0]
    starts = (
        LaneStart("ported", 0, 0.01, "copy", kept),
        LaneStart("sampled", 0, 0.01, "gaussian", kept),
        LaneStart("sampled", 1, 0.01, "gaussian", kept),
    )
    found = run(replace(work, starts=starts, budgets=(0,), tests={0: (0, 1, 2)}, keeps={}))
    assert len({result.figures["log_loss"] for result in found[0].lanes}) == 3


def test_a_reparametrised_donor_is_kept_without_its_network(work):
    """Whole by its own record, and under the study's name for its host."""
    options = {"reparametrise": True, "bottleneck": 12, "length": 5}
    kept = donors(replace(work, technique="prefix", options=options))[0]
    record, tensors = Record.model_validate_json(kept.record), load(kept.tensors)
    assert record.config["reparametrise"] is False
    assert {name.rpartition(".")[2] for name in tensors} == {"keys", "values"}
    assert {n: tuple(t.shape) for n, t in tensors.items()} == expected_shapes(record)
    assert record.host.name == record.origin.name == "b"


@pytest.mark.parametrize("technique", ["lora", "prefix"])
def test_a_folded_donor_is_received_and_trained(work, technique):
    options = {"reparametrise": True} if technique == "prefix" else {}
    made = replace(work, technique=technique, options=options)
    kept = donors(made)[0]
    starts = (
        LaneStart("ported", 0, 0.01, "copy", kept),
        LaneStart("sampled", 0, 0.01, "gaussian", kept),
    )
    found = run(replace(made, starts=starts, tests={b: (0, 1) for b in (0, 4, 8)}, keeps={}))
    trained = run(made)
    assert found[0].lanes[0].answers.predictions == trained[8].lanes[0].answers.predictions
    assert found[8].lanes[0].figures["log_loss"] != found[0].lanes[0].figures["log_loss"]


def test_doing_a_pack_again_gives_the_same_bits(work):
    first, again = run(work), run(work)
    for budget, reading in first.items():
        for one, other in zip(reading.lanes, again[budget].lanes, strict=True):
            assert replace(one, figures=_untimed(one)) == replace(other, figures=_untimed(other))


def test_reading_fewer_budgets_changes_no_bit_of_the_others(work):
    whole = run(work)
    part = run(replace(work, budgets=(8,)))
    assert list(part) == [8]
    for one, other in zip(whole[8].lanes, part[8].lanes, strict=True):
        assert replace(one, figures=_untimed(one)) == replace(other, figures=_untimed(other))


def _untimed(result):
    return {k: v for k, v in result.figures.items() if k != "train_seconds"}


def test_a_lane_that_diverges_fails_from_there_on_and_the_others_go_on(work):
    sick = (work.starts[0], replace(work.starts[1], learning_rate=1e38), work.starts[2])
    keeps = {0: (), 4: (), 8: (0, 1)}
    found = run(replace(work, starts=sick, keeps=keeps))
    assert not any(result.error for result in found[0].lanes)
    first, second, third = found[4].lanes
    assert "finite" in second.error
    assert second.answers is None and not second.figures
    assert first.figures and third.figures
    first, second = found[8].lanes
    assert "finite" in second.error
    assert second.module is None
    assert first.module is not None


def test_a_lane_without_its_donor_fails_and_the_others_go_on(work):
    kept = donors(work)[0]
    starts = (
        LaneStart("ported", 0, 0.01, "copy", None, "its donor failed"),
        LaneStart("ported", 2, 0.01, "copy", kept),
    )
    found = run(replace(work, starts=starts, tests={b: (0, 1) for b in (0, 4, 8)}, keeps={}))
    for reading in found.values():
        assert reading.lanes[0].error == "its donor failed"
        assert reading.lanes[1].figures
    none = run(replace(work, starts=starts[:1], tests={b: (0,) for b in (0, 4, 8)}, keeps={}))
    assert [r.lanes[0].error for r in none.values()] == ["its donor failed"] * 3


@pytest.mark.parametrize("work", FAMILIES, indirect=True)
def test_a_bare_host_is_tested_for_every_seed(work):
    bare = replace(work, technique="", budgets=(0,), tests={0: (0, 1, 2)}, keeps={})
    found = run(bare)[0].lanes
    assert [result.lane for result in found] == [0, 1, 2]
    losses = {result.figures["log_loss"] for result in found}
    is_encoder = "bert" in work.host
    assert len(losses) == (3 if is_encoder else 1)


def test_a_mark_of_weights_alone_names_the_host_still(work):
    older = replace(work, host_mark=of_weights(work.host_mark), budgets=(0,), tests={0: (0,)})
    assert run(older)[0].lanes[0].error == ""


@pytest.mark.parametrize("mark", ["host_mark", "tokenizer", "task_mark"])
def test_what_changed_since_the_plan_is_refused(work, mark):
    with pytest.raises(BadInput, match="no longer what it was"):
        run(replace(work, **{mark: "another"}))


def test_a_pack_is_tested_on_the_split_that_it_names(work):
    tested = {split: run(replace(work, split=split))[8] for split in ("test", "validation")}
    rows = {split: found.lanes[0].figures["n_test"] for split, found in tested.items()}
    assert rows == {"test": 48, "validation": 32}
    bare = replace(work, technique="", budgets=(0,), tests={0: (0,)}, keeps={}, split="validation")
    assert run(bare)[0].lanes[0].figures["n_test"] == 32

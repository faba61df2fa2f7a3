"""A module is made with its provenance, without what only its training needed."""

from __future__ import annotations

import math

import pytest
import torch

from families import ONE_OF_EACH_KIND
from peftport.errors import BadInput, RunFailed
from peftport.hosts import load_host
from peftport.modules import expected_shapes, load_module
from peftport.tasks import encode_unlabelled
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes, take_lane
from peftport.training import TrainingSettings, evaluate_one, readout_of, scores
from peftport.training.module import as_module, initial_module, train_further, train_module
from tiny_runs import CASES, encoded, host_in, run, task_in

REPARAMETRISED = CASES["reparametrised prefix"]


@pytest.fixture
def t5(tiny_host, tiny_task):
    return host_in(tiny_host("t5")), task_in(tiny_task)


# A start


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_a_fresh_module_is_drawn_from_its_seed_and_has_the_shapes_it_needs(family, case, tiny_host):
    name, options = CASES[case]
    host, made = host_in(tiny_host(family)), technique(name)
    config = made.configure(options)
    one, same, other = (initial_module(made, config, host, 3, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[n], same[n]) for n in one)
    assert any(not torch.equal(one[n], other[n]) for n in one)
    heads = {"head.weight": (3, 32), "head.bias": (3,)} if family == "bert" else {}
    shapes = made.shapes(config, host.geometry) | heads
    assert {n: tuple(tensor.shape) for n, tensor in one.items()} == shapes


# From tensors to a module


@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_a_reparametrised_prefix_is_folded_and_acts_as_before(
    family, tiny_host, tiny_task, tmp_path
):
    host, task = host_in(tiny_host(family)), task_in(tiny_task)
    name, options = REPARAMETRISED
    made = technique(name)
    config = made.configure(options)
    tensors = initial_module(made, config, host, 2, 3)
    module = as_module(made, config, host, tensors, task.record(), 3, {"steps": 0})
    assert module.config.reparametrise is False
    assert not any("reparametrisation" in n for n in module.tensors)
    assert {n: tuple(t.shape) for n, t in module.tensors.items()} == expected_shapes(module.record)
    split, readout = encoded(host, task, "test"), readout_of(host, task)
    before = scores(host, made, config, stack_lanes([tensors]), split, readout)
    module.save(tmp_path / "module")
    loaded = load_module(tmp_path / "module")
    after = scores(host, made, loaded.config, stack_lanes([loaded.tensors]), split, readout)
    assert torch.equal(after, before)


def test_a_module_knows_where_it_is_from_and_holds_tensors_of_its_own(t5):
    host, task = t5
    made = technique("lora")
    config = made.configure({"rank": 4})
    tensors = initial_module(made, config, host, 2, 3)
    tensors = {n: t.T.contiguous().T.requires_grad_() for n, t in tensors.items()}
    module = as_module(made, config, host, tensors, task.record(), 3, {"steps": 9})
    record = module.record
    assert (record.technique, record.seed, record.training) == ("lora", 3, {"steps": 9})
    assert record.config["rank"] == 4
    assert record.host == record.origin
    assert (record.host.name, record.host.fingerprint) == (host.name, host.fingerprint)
    assert record.geometry == host.geometry.record()
    assert record.task["fingerprint"] == task.fingerprint
    assert record.port is None
    for tensor in module.tensors.values():
        assert tensor.is_contiguous() and not tensor.requires_grad


# From a task to a module


def test_a_trained_module_is_the_trajectory_s_end_with_its_record_and_its_validation(t5):
    host, task = t5
    told: list[tuple[int, float]] = []
    trained = train_module(
        *(host, task, "lora", {"rank": 4}),
        steps=50,
        seed=2,
        learning_rate=1e-2,
        settings=TrainingSettings(batch_size=8),
        progress=lambda step, loss: told.append((step, loss)),
    )
    (expected,) = run("lora", host, task, [50], [1e-2], [2])
    found = trained.module.tensors
    assert all(torch.equal(t, found[n]) for n, t in take_lane(expected.parameters, 0).items())
    assert tuple(told) == trained.losses
    assert [step for step, _ in told] == [*range(2, 51, 2)]
    assert told[-1][1] < told[0][1]
    assert trained.module.record.training == {
        "steps": 50,
        "learning_rate": 1e-2,
        "batch_size": 8,
        "warmup": 5,
        "clip": 1.0,
        "weight_decay": 0.0,
        "precision": "fp32",
    }
    split = encoded(host, task, "validation")
    again = evaluate_one(
        host,
        technique("lora"),
        trained.module.config,
        found,
        split,
        readout_of(host, task),
        encode_unlabelled(host.tokenizer, task, host.geometry.kind),
    )
    assert trained.validation.figures["n_test"] == 32
    assert trained.validation.figures == again.figures


@pytest.mark.parametrize("name", ["adapter", "compacter", "lora", "prefix"])
def test_the_technique_s_own_rate_is_taken_when_none_is_given(name, t5):
    options = {"reduction": 4} if name == "compacter" else {}
    trained = train_module(*t5, name, options, steps=1, seed=0)
    assert trained.module.record.training["learning_rate"] == technique(name).learning_rate
    assert trained.module.record.training["batch_size"] == 16
    assert [step for step, _ in trained.losses] == [1]


@pytest.fixture
def t5_in_bf16(tiny_host):
    return load_host(str(tiny_host("t5")), precision="bf16")


def test_a_precision_has_its_effect_and_is_recorded(t5, t5_in_bf16):
    """Five steps in bfloat16 go the same way as in single precision, by other numbers."""
    host, task = t5
    full, low = (
        train_module(
            *(each, task, "lora", {"rank": 4}),
            steps=5,
            seed=1,
            settings=TrainingSettings(batch_size=8, precision=each.precision),
        )
        for each in (host, t5_in_bf16)
    )
    assert full.module.record.training["precision"] == "fp32"
    assert low.module.record.training["precision"] == "bf16"
    assert low.losses != full.losses
    assert low.losses[-1][1] == pytest.approx(full.losses[-1][1], rel=0.05)
    settings = TrainingSettings(batch_size=8, precision="bf16")
    further = train_further(t5_in_bf16, task, full.module, steps=2, seed=1, settings=settings)
    assert further.module.record.port["trained"]["precision"] == "bf16"
    assert not torch.equal(
        further.module.tensors["encoder.0.self.q.lora_B"],
        train_further(
            host, task, full.module, steps=2, seed=1, settings=TrainingSettings(batch_size=8)
        ).module.tensors["encoder.0.self.q.lora_B"],
    )


def test_a_precision_that_the_host_does_not_have_is_refused(t5, t5_in_bf16):
    """Else a record would tell of products that never were."""
    host, task = t5
    asked = TrainingSettings(batch_size=8, precision="bf16")
    with pytest.raises(BadInput, match=r"set to bf16 and host .* was loaded in fp32: load it with"):
        train_module(host, task, "lora", {}, steps=1, seed=0, settings=asked)
    with pytest.raises(BadInput, match=r"set to fp32 and host .* was loaded in bf16"):
        train_module(t5_in_bf16, task, "lora", {}, steps=1, seed=0)


def test_training_again_gives_the_same_bits_and_another_seed_others(t5):
    one, same, other = (
        train_module(*t5, *REPARAMETRISED, steps=4, seed=seed).module for seed in (1, 1, 2)
    )
    assert all(torch.equal(t, same.tensors[n]) for n, t in one.tensors.items())
    assert one.record == same.record
    assert any(not torch.equal(t, other.tensors[n]) for n, t in one.tensors.items())


def test_a_loss_that_is_not_finite_ends_the_training_with_its_reason(t5):
    with pytest.raises(RunFailed) as error:
        train_module(*t5, "lora", {"rank": 4}, steps=9, seed=0, learning_rate=1e38)
    message = str(error.value)
    assert f"lora on {t5[0].name}: the loss or its gradient was not finite at step 2" in message
    assert "learning rate 1e+38" in message
    assert message.endswith("Lower the learning rate.")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("loar", {}, "unknown technique 'loar'. Did you mean 'lora'"),
        ("lora", {"rnk": 3}, "option 'rnk'.* Did you mean 'rank'"),
        ("lora", {"targets": ("nothing",)}, "nothing"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is(name, options, message, t5):
    with pytest.raises(BadInput, match=message):
        train_module(*t5, name, options, steps=9, seed=0)


def test_losses_are_finite_numbers(t5):
    assert all(
        math.isfinite(loss) for _, loss in train_module(*t5, "lora", {}, steps=3, seed=0).losses
    )

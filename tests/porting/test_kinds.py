"""Modules that write are distilled, mapped and copied as those that classify are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftport.errors import BadInput
from peftport.hosts import streaming
from peftport.hosts.host import Host
from peftport.kind import Asking, kind_named
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.porting.activations import Spaces
from peftport.porting.grades import AnswerGrade
from peftport.porting.means import Means, side
from peftport.porting.prompts import made_prompts
from peftport.porting.reading import read_pair, task_of
from peftport.porting.walk import Walk
from peftport.tasks import Task, load_task
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import readout_of, scores
from peftport.training.module import train_module
from peftport.training.teacher import Teacher
from tiny_hosts import write_host
from tiny_runs import encoded, host_in

WRITTEN = ("choice", "completion", "language")
HALVES = {"origin": 0.0, "receiver": 0.05}


def asked(folder: Path, kind: str) -> Task:
    """The tiny task as another kind has it, of a few rows, which any module can learn."""
    words = None if kind == "language" else ("bad", "good")
    return load_task(str(folder), kind=kind, limit_train=16, label_words=words, max_answer=8)


def named(host: Host) -> HostName:
    return HostName(name=host.name, fingerprint=host.fingerprint)


def means(origin: Host, receiver: Host, task: Task) -> Means:
    return Means(side(origin.name), side(receiver.name), tuple(task.split("train").texts))


def teacher_of(host: Host, module: Module) -> Teacher:
    return Teacher(host, technique(module.technique), module.config, module.tensors)


def mapped(donor: Module, origin: Host, receiver: Host, task: Task) -> Module:
    """The donor on another host, by maps."""
    there = means(origin, receiver, task)
    options = {"places": 256}
    name = named(receiver)
    return port(
        donor, receiver.geometry, name, "procrustes", options=options, means=there, seed=0
    ).module


def loss(host: Host, module: Module | None, task: Task) -> float:
    """Mean loss in nats of a token of the training rows' answers."""
    body, config, lanes = None, None, {}
    if module is not None:
        body, config = technique(module.technique), module.config
        lanes = stack_lanes([module.tensors])
    rows: Any = encoded(host, task, "train")
    found = scores(host, body, config, lanes, rows, readout_of(host, task))
    return float(found.sum() / rows.answer_lengths.sum())


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize(("origin", "receiver"), [("llama", "t5"), ("t5", "gpt2")])
def test_a_new_module_learns_what_the_donor_does(kind, origin, receiver, tiny_host, tiny_task):
    host, other = host_in(tiny_host(origin)), host_in(tiny_host(receiver))
    task = asked(tiny_task, kind)
    donor = train_module(host, task, "lora", {"rank": 4}, steps=30, seed=0, learning_rate=0.02)
    options = {"steps": 30, "learning_rate": 0.02}
    found = port(
        donor.module,
        other.geometry,
        named(other),
        "distill",
        options=options,
        means=means(host, other, task),
        seed=1,
    ).module
    assert found.record.task["kind"] == kind
    if kind != "language":  # what a tiny random host writes itself is like no text
        assert loss(other, found, task) < loss(other, None, task)
    else:
        assert found.record.port["written"] == 16


def test_distilling_by_writing_repeats_and_follows_its_seed(tiny_host, tiny_task):
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = asked(tiny_task, "completion")
    donor = train_module(host, task, "lora", {}, steps=2, seed=0).module
    options = {"steps": 2, "samples": 2, "keep": 0.5}

    def taught(seed: int) -> Module:
        there = means(host, other, task)
        return port(
            donor, other.geometry, named(other), "distill", options=options, means=there, seed=seed
        ).module

    one, two, another = taught(1), taught(1), taught(2)
    assert all(torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)
    assert one.record.port["examples"] == two.record.port["examples"]
    assert one.record.port["kept"] == max(1, round(one.record.port["written"] / 2))
    assert any(not torch.equal(one.tensors[n], another.tensors[n]) for n in one.tensors)


def test_what_is_kept_of_answers_are_those_that_the_donor_finds_probable(tiny_host, tiny_task):
    host, task = host_in(tiny_host("llama")), asked(tiny_task, "completion")
    donor = train_module(host, task, "lora", {}, steps=5, seed=0).module
    texts, kind = task.split("train").texts, kind_named("completion")
    how = Asking(samples=3, temperature=2.0, seed=5)
    every = kind.lessons(teacher_of(host, donor), task, texts, how)
    best = kind.lessons(
        teacher_of(host, donor), task, texts, Asking(3, temperature=2.0, keep=0.25, seed=5)
    )

    def a_token(lessons: Any) -> float:
        rows = lessons.encode(host.tokenizer, "decoder")
        answers = teacher_of(host, donor).answers(rows, readout_of(host, task))
        return float(answers.sum() / rows.answer_lengths.sum())

    assert best.told["kept"] < every.told["kept"] == every.told["written"]
    assert a_token(best) < a_token(every)


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_maps_carry_a_module_of_any_kind_and_copy_it_to_its_own_host(
    kind, family, tiny_host, tiny_continuation, tiny_task
):
    host, other = host_in(tiny_host(family)), host_in(tiny_continuation(family))
    task = asked(tiny_task, kind)
    donor = train_module(host, task, "lora", {"rank": 4}, steps=30, seed=0, learning_rate=0.02)
    found = mapped(donor.module, host, other, task)
    assert loss(other, found, task) < loss(other, None, task)
    home = means(host, host, task)
    same = port(donor.module, host.geometry, named(host), "procrustes", means=home).module
    assert all(torch.equal(same.tensors[n], t) for n, t in donor.module.tensors.items())


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_gradients_are_of_the_likelihood_of_the_answers(family, tiny_host, tiny_task):
    """A small change of an output moves the log-likelihood by the gradient times the change."""
    host, task = host_in(tiny_host(family)), asked(tiny_task, "completion")
    kind, tokenizer = host.geometry.kind, host.tokenizer
    texts = task.split("train").texts
    answers = ["good", "bad"] * (len(texts) // 2)
    start = 0 if kind == "encoder-decoder" else None
    one, _ = read_pair(
        (tokenizer, tokenizer),
        (start, start),
        task_of(task.record()),
        kind,
        texts,
        4096,
        torch.Generator(),
        answers,
    )
    point = f"decoder.{host.geometry.stacks['decoder'] - 1}.ffn.down"
    if point not in host.geometry.linears:
        point = next(p for p in reversed(host.geometry.linears) if p.startswith("decoder."))
    walk = Walk(host, [one[0]], AnswerGrade())
    (gradient,) = [
        found
        for layer in walk.layers(Spaces(changes=(point,)))
        for found in layer.gradients.values()
    ]
    labels = one[0].labels
    assert labels is not None
    counted = sum(len(tokenizer(a, add_special_tokens=False)["input_ids"]) for a in answers)
    assert int((labels >= 0).sum()) >= counted
    linear = host.part(host.geometry.linears[point].path)
    step = 1e-2 * gradient[0].sum(0) / gradient[0].sum(0).norm()

    def likelihood(sign: float) -> float:
        hook = linear.register_forward_hook(lambda _m, _i, made: made + sign * step)
        with torch.no_grad():
            found = sum(float(AnswerGrade().states(host, part).sum()) for part in one[0].parts())
        hook.remove()
        return found

    every = one[0].places["decoder"]
    if len(every) == int(one[0].attention_mask.sum()) or kind == "encoder-decoder":
        wanted = 2 * float(gradient[0].sum(0) @ step)
        assert likelihood(1.0) - likelihood(-1.0) == pytest.approx(wanted, rel=0.05, abs=2e-3)


def test_prompts_are_made_of_none_of_the_examples(tiny_host, tiny_task):
    host, texts = host_in(tiny_host("llama")), asked(tiny_task, "completion").split("train").texts
    made = made_prompts(host, texts, 5, seed=3)
    assert 0 < len(made) <= 5
    assert len(set(made)) == len(made)
    assert not set(made) & set(texts)
    assert made == made_prompts(host, texts, 5, seed=3)


def test_ridge_says_that_such_a_module_has_no_scores_of_classes(tiny_host, tiny_task):
    host, task = host_in(tiny_host("llama")), asked(tiny_task, "completion")
    donor = train_module(host, task, "lora", {}, steps=1, seed=0).module
    with pytest.raises(BadInput, match="of kind completion and has no scores of classes"):
        port(donor, host.geometry, named(host), "ridge", means=means(host, host, task))


def test_an_encoder_writes_nothing(tiny_host, tiny_task):
    host, task = host_in(tiny_host("bert")), asked(tiny_task, "completion")
    with pytest.raises(BadInput, match="is an encoder and writes nothing"):
        train_module(host, task, "lora", {}, steps=1, seed=0)


def test_a_teacher_acts_only_while_it_is_asked(tiny_host, tiny_task):
    host, task = host_in(tiny_host("llama")), asked(tiny_task, "completion")
    donor = train_module(host, task, "lora", {}, steps=5, seed=0, learning_rate=0.05).module
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        before = host.model(ids).logits
        with teacher_of(host, donor).attached():
            meanwhile = host.model(ids).logits
        after = host.model(ids).logits
    assert torch.equal(before, after)
    assert not torch.equal(before, meanwhile)
    assert stack_lanes([donor.tensors])


def test_a_host_in_half_precision_is_mapped_for_a_module_that_writes(
    tmp_path, tiny_task, monkeypatch
):
    """Read a layer at a time, such a host keeps its vocabulary in half precision."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(streaming, "LOADED_WHOLE", 0)
    folders = [write_host("llama", tmp_path / name, noise=noise) for name, noise in HALVES.items()]
    for folder in folders:
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.to(torch.bfloat16).save_pretrained(folder)
    host, other = map(host_in, folders)
    task = asked(tiny_task, "completion")
    donor = train_module(host, task, "lora", {"rank": 4}, steps=30, seed=0, learning_rate=0.02)
    found = mapped(donor.module, host, other, task)
    assert loss(other, found, task) < loss(other, None, task)

"""A new module learns a donor's whole distributions where both hosts have one vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from peftport.hosts.host import Host
from peftport.kind import Asking
from peftport.kinds import distributions
from peftport.kinds.distributions import DistributionReadout, TaughtPairs
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.porting.means import Means, side
from peftport.tasks import Task, load_task
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import readout_of
from peftport.training.module import train_module
from peftport.training.teacher import Teacher
from tiny_runs import host_in


def asked(folder: Any, kind: str = "completion") -> Task:
    words = None if kind == "language" else ("bad", "good")
    return load_task(str(folder), kind=kind, limit_train=16, label_words=words, max_answer=8)


def donor_on(host: Host, task: Task) -> Module:
    trained = train_module(host, task, "lora", {"rank": 4}, steps=20, seed=0, learning_rate=0.02)
    return trained.module


def taught(host: Host, donor: Module, task: Task, **how: Any) -> tuple[Any, Any]:
    """What the donor gives, as rows of its own host, and how they are trained on."""
    teacher = Teacher(host, technique(donor.technique), donor.config, donor.tensors)
    asking = Asking(**{"distributions": True, **how})
    lessons = task.asks.lessons(teacher, task, task.split("train").texts, asking)
    rows = lessons.encode(host.tokenizer, host.geometry.kind)
    return rows, lessons.readout(rows, readout_of(host, task))


def loss(host: Host, module: Module | None, rows: Any, readout: Any) -> float:
    batch = rows.batch(np.arange(len(rows)))
    if module is None:
        return float(readout.losses(host, batch, {}, 1))
    lanes = stack_lanes([module.tensors])
    with torch.no_grad(), technique(module.technique).attach(host, module.config, lanes):
        return float(readout.losses(host, batch, lanes, 1))


@pytest.mark.parametrize("kind", ["completion", "language"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_the_donors_own_distributions_are_learnt_best_by_the_donor_itself(
    kind: str, family: str, tiny_host: Any, tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributions, "MOST", 10_000)  # all of them
    host, task = host_in(tiny_host(family)), asked(tiny_task, kind)
    donor = donor_on(host, task)
    rows, readout = taught(host, donor, task)
    assert isinstance(rows, TaughtPairs)
    assert isinstance(readout, DistributionReadout)
    shares = readout.seen.shares
    entropy = float(-(shares * shares.clamp_min(1e-30).log()).sum(-1).mean())
    known = len(host.tokenizer)
    if host.geometry.vocabulary == known:
        assert loss(host, donor, rows, readout) == pytest.approx(entropy, rel=1e-4)
    assert entropy < loss(host, donor, rows, readout) + 1e-5
    assert loss(host, donor, rows, readout) < loss(host, None, rows, readout)


def test_a_few_most_probable_tokens_are_kept_with_what_they_have_among_themselves(
    tiny_host: Any, tiny_task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributions, "MOST", 3)
    host, task = host_in(tiny_host("llama")), asked(tiny_task)
    _, readout = taught(host, donor_on(host, task), task)
    seen = readout.seen
    assert seen.tokens.shape == seen.shares.shape == (len(seen.targets), 3)
    assert torch.allclose(seen.shares.sum(-1), torch.ones(len(seen.targets)))
    # What a donor writes is what it finds most probable, up to the token that ends a text.
    ends = seen.ends[1:] - 1
    inside = torch.ones(len(seen.targets), dtype=torch.bool)
    inside[ends] = False
    assert torch.equal(seen.tokens[inside, 0], seen.targets[inside])


def test_other_tokens_of_an_answer_are_learnt_as_they_are_written(
    tiny_host: Any, tiny_task: Any
) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = asked(tiny_task)
    donor = donor_on(host, task)
    teacher = Teacher(host, technique("lora"), donor.config, donor.tensors)
    texts = task.split("train").texts
    lessons = task.asks.lessons(teacher, task, texts, Asking(distributions=True))
    rows = lessons.encode(other.tokenizer, other.geometry.kind)
    usual = readout_of(other, task)
    assert not isinstance(rows, TaughtPairs)
    assert lessons.readout(rows, usual) is usual


@pytest.mark.parametrize(("receiver", "learnt"), [("llama", True), ("gpt2", None)])
def test_a_port_says_whether_distributions_were_learnt(
    receiver: str, learnt: bool | None, tiny_host: Any, tiny_continuation: Any, tiny_task: Any
) -> None:
    host, task = host_in(tiny_host("llama")), asked(tiny_task)
    other = host_in((tiny_continuation if receiver == "llama" else tiny_host)(receiver))
    name = HostName(name=other.name, fingerprint=other.fingerprint)
    there = Means(side(host.name), side(other.name), tuple(task.split("train").texts))
    donor = donor_on(host, task)
    made = [
        port(
            donor,
            other.geometry,
            name,
            "distill",
            options={"steps": 3, "distributions": wanted},
            means=there,
            seed=1,
        ).module
        for wanted in (True, False)
    ]
    records = [module.record.port for module in made]
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].get("distributions") is learnt
    assert "distributions" not in records[1]
    tensors = (module.tensors for module in made)
    same = all(torch.equal(a, b) for a, b in zip(*(t.values() for t in tensors), strict=True))
    assert same is (learnt is None)

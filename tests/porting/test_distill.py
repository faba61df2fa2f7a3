"""A module distilled on another host answers as its donor does, whatever the two hosts are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftport.errors import BadInput
from peftport.hosts.host import Host
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.porting.means import Means, side
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import readout_of, scores
from peftport.training.module import train_module
from tiny_runs import encoded, few_rows_of, host_in


def taught(module: Module, origin: Host, receiver: Host, task: Any, **options: Any) -> Any:
    """The module distilled on the very texts that `answers` compares: tiny random hosts know no
    language by which they could tell other texts."""
    name = HostName(name=receiver.name, fingerprint=receiver.fingerprint)
    means = Means(side(origin.name), side(receiver.name), tuple(task.split("train").texts))
    return port(module, receiver.geometry, name, "distill", options=options, means=means, seed=1)


def answers(host: Host, module: Module, task: Any) -> torch.Tensor:
    lanes = stack_lanes([module.tensors])
    made, split = technique(module.technique), encoded(host, task, "train")
    found = scores(host, made, module.config, lanes, split, readout_of(host, task))
    return found[0].argmax(1)


@pytest.mark.parametrize(
    ("origin", "receiver", "student"),
    [("llama", "t5", None), ("bert", "roberta", "lora"), ("gpt2", "bert", "adapter")],
)
def test_the_new_module_answers_as_the_donor_does(
    origin: str, receiver: str, student: str | None, tiny_host: Any, tiny_task: Path
) -> None:
    host, other = host_in(tiny_host(origin)), host_in(tiny_host(receiver))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {"rank": 4}, steps=40, seed=0).module
    found = taught(donor, host, other, task, steps=60, learning_rate=0.02, technique=student)
    assert found.module.technique == (student or "lora")
    assert found.module.geometry == other.geometry
    same = answers(other, found.module, task) == answers(host, donor, task)
    assert same.float().mean() >= 0.9
    assert {entry.action for entry in found.account.entries} == {"initialised"}


def test_two_ports_of_one_seed_are_the_same(tiny_host: Any, tiny_task: Path) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=2, seed=0).module
    one, two = (taught(donor, host, other, task, steps=2).module.tensors for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_module_without_classes_cannot_teach(tiny_host: Any, tiny_task: Path) -> None:
    host = host_in(tiny_host("llama"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=1, seed=0).module
    blank = donor.record.model_copy(update={"task": {"name": "unknown", "labels": []}})
    with pytest.raises(BadInput, match="does not say which classes"):
        taught(Module(blank, donor.tensors), host, host, task)


def test_a_place_that_the_receiving_host_lacks_is_named(
    tiny_host: Any, tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And the new module stands where modules usually stand there, with all else as it was."""
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    options = {"targets": ["ffn.gate"], "rank": 3}
    donor = train_module(host, task, "lora", options, steps=1, seed=0).module
    found = taught(donor, host, other, task, steps=1)
    why = "no linear layer called 'ffn.gate' on a gpt2 host"
    assert f"usual places of {other.name} and not at the donor's: lora: {why}" in caplog.text
    assert why in found.module.record.port["usual_places"]
    assert found.module.config.rank == 3
    shapes = technique("lora").shapes(technique("lora").configure({"rank": 3}), other.geometry)
    assert shapes.keys() <= found.module.tensors.keys()
    caplog.clear()
    same = taught(donor, host, host, task, steps=1)
    assert "usual" not in caplog.text
    assert "usual_places" not in same.module.record.port


def test_what_fits_at_no_place_is_refused(tiny_host: Any, tiny_task: Path) -> None:
    host, other = host_in(tiny_host("t5")), host_in(tiny_host("bert"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "compacter", {"n": 2, "reduction": 8}, steps=1, seed=0).module
    config = {**donor.record.config, "n": 5}
    odd = Module(donor.record.model_copy(update={"config": config}), donor.tensors)
    with pytest.raises(BadInput, match="n = 5 does not divide"):
        taught(odd, host, other, task)

"""A module in closed form answers as its donor does, on hosts that share nothing."""

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


def ported(module: Module, origin: Host, receiver: Host, task: Any, **options: Any) -> Any:
    name = HostName(name=receiver.name, fingerprint=receiver.fingerprint)
    means = Means(side(origin.name), side(receiver.name), tuple(task.split("train").texts))
    return port(module, receiver.geometry, name, "ridge", options=options, means=means, seed=1)


def answers(host: Host, module: Module, task: Any) -> torch.Tensor:
    lanes = stack_lanes([module.tensors])
    made, split = technique(module.technique), encoded(host, task, "train")
    found = scores(host, made, module.config, lanes, split, readout_of(host, task))
    return found[0].argmax(1)


@pytest.mark.parametrize(
    ("origin", "receiver", "name"),
    [("llama", "gpt2", "lora"), ("gpt2", "llama", "prefix"), ("llama", "t5", "adapter")],
)
def test_the_new_module_answers_as_the_donor_does(
    origin: str, receiver: str, name: str, tiny_host: Any, tiny_task: Path
) -> None:
    host, other = host_in(tiny_host(origin)), host_in(tiny_host(receiver))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, name, {}, steps=40, seed=0, learning_rate=0.02).module
    found = ported(donor, host, other, task)
    assert found.module.technique == "lora"
    assert found.module.geometry == other.geometry
    same = answers(other, found.module, task) == answers(host, donor, task)
    assert same.float().mean() >= 0.9


def test_one_layer_alone_is_changed_and_it_can_be_chosen(tiny_host: Any, tiny_task: Path) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=5, seed=0).module
    found = ported(donor, host, other, task, layer=0)
    acting = {name for name, tensor in found.module.tensors.items() if tensor.any()}
    assert acting == {"decoder.0.ffn.down.lora_A", "decoder.0.ffn.down.lora_B"}
    assert found.module.record.port is not None
    assert found.module.record.port["layer"] == "decoder.0.ffn.down"


def test_two_ports_of_one_seed_are_the_same(tiny_host: Any, tiny_task: Path) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=2, seed=0).module
    one, two = (ported(donor, host, other, task).module.tensors for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_encoders_are_refused_with_the_way_out(tiny_host: Any, tiny_task: Path) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("bert"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=1, seed=0).module
    with pytest.raises(BadInput, match=r"encoders are read by a head; distill can"):
        ported(donor, host, other, task)

"""A module in closed form answers as its donor does, on hosts that share nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from peftport.errors import BadInput
from peftport.hosts import load_host
from peftport.hosts.host import Host
from peftport.metrics import measure
from peftport.modules import HostName, Module
from peftport.modules.card import card
from peftport.porting import port, ridge
from peftport.porting.means import Means, side
from peftport.tasks import load_task
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import TrainingSettings, readout_of, scores
from peftport.training.module import train_module
from tiny_runs import encoded, few_rows_of, host_in


def ported(module: Module, origin: Host, receiver: Host, task: Any, **options: Any) -> Any:
    name = HostName(name=receiver.name, fingerprint=receiver.fingerprint)
    means = Means(side(origin.name), side(receiver.name), tuple(task.split("train").texts))
    return port(module, receiver.geometry, name, "ridge", options=options, means=means, seed=1)


@pytest.fixture(scope="module")
def donor() -> Module:
    """An adapter of a lab host that tells good reviews from bad ones."""
    task = load_task("lab:films", limit_train=800)
    settings = TrainingSettings(batch_size=16)
    trained = train_module(
        load_host("lab:small"), task, "adapter", {"reduction": 4}, steps=150, seed=0,
        learning_rate=0.003, settings=settings,
    )  # fmt: skip
    return trained.module


@pytest.mark.parametrize("receiver", ["lab:small-twin", "lab:large"])
def test_what_the_donor_tells_apart_is_told_apart_on_a_host_that_shares_nothing(
    receiver: str, donor: Module
) -> None:
    host, task = load_host(receiver), load_task("lab:films", limit_train=400, limit_test=400)
    found = ported(donor, load_host("lab:small"), host, task)
    assert found.module.technique == "lora"
    assert found.module.geometry == host.geometry
    split, readout = encoded(host, task, "test"), readout_of(host, task)
    lanes, made = stack_lanes([found.module.tensors]), technique("lora")
    told = scores(host, made, found.module.config, lanes, split, readout)[0].numpy()
    figures = measure(told, split.labels, told).figures
    assert figures["auroc"] > 0.8
    assert figures["accuracy"] > 0.7


def test_one_layer_alone_is_changed_and_it_can_be_chosen(tiny_host: Any, tiny_task: Path) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=5, seed=0).module
    found = ported(donor, host, other, task, layer=0)
    acting = {name for name, tensor in found.module.tensors.items() if tensor.any()}
    assert acting == {"decoder.0.ffn.down.lora_A", "decoder.0.ffn.down.lora_B"}
    assert found.module.record.port is not None
    assert found.module.record.port["places"] == ["decoder.0.ffn.down"]
    fitted = {each.target for each in found.account.entries if each.why.startswith("fitted")}
    assert fitted == acting
    rest = {each.why for each in found.account.entries if each.target not in acting}
    assert rest == {"zero, for other layers are changed"}
    assert "It changes `decoder.0.ffn.down` alone." in card(found.module, "peft", "", None)


@pytest.mark.parametrize("readings", [1, 2, 5])
def test_as_many_layers_are_changed_as_are_asked_for_and_there_are(
    readings: int, tiny_host: Any, tiny_task: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(ridge, "_WORSE", 1e9)
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=5, seed=0).module
    found = ported(donor, host, other, task, readings=readings)
    assert found.module.record.port is not None
    places = found.module.record.port["places"]
    depth = other.geometry.stacks["decoder"]
    assert len(places) == min(readings, depth)
    assert places == [p for p in other.geometry.linears if p in places]
    acting = {name for name, tensor in found.module.tensors.items() if tensor.any()}
    assert acting == {f"{place}.lora_{factor}" for place in places for factor in "AB"}
    assert f"It changes {', '.join(f'`{p}`' for p in places)} alone." in card(
        found.module, "peft", "", None
    )


def test_layers_that_read_worse_than_the_best_are_left_alone(
    tiny_host: Any, tiny_task: Path, monkeypatch: Any
) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=5, seed=0).module
    one = ported(donor, host, other, task, readings=1)
    monkeypatch.setattr(ridge, "_WORSE", 1.0)
    found = ported(donor, host, other, task)
    assert all(torch.equal(found.module.tensors[n], t) for n, t in one.module.tensors.items())


def test_layers_that_read_together_move_the_scores_as_far_as_one_that_reads_alone(
    tiny_host: Any, tiny_task: Path, monkeypatch: Any
) -> None:
    """Each writes a share of what it reads: were it the whole, the scores would move too far."""
    monkeypatch.setattr(ridge, "_WORSE", 1e9)
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=20, seed=0, learning_rate=0.01).module
    gains = []
    for readings in (1, 2):
        found = ported(donor, host, other, task, readings=readings)
        assert found.module.record.port is not None
        assert len(found.module.record.port["places"]) == readings
        gains.append(found.module.record.port["gain"])
    assert gains[1] == pytest.approx(gains[0], rel=0.5)


def test_a_donor_is_asked_whole_where_the_receiving_host_has_not_all_of_its_places(
    tiny_host: Any, tiny_task: Path, monkeypatch: Any
) -> None:
    """GPT-2 has no gate: no tensor of the module goes there, and its answers do."""
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {"targets": ["ffn.gate", "ffn.down"]}, steps=5, seed=0)
    asked, real = [], ridge.donor_scores
    monkeypatch.setattr(ridge, "donor_scores", lambda *a: asked.append(real(*a)) or asked[-1])
    ported(donor.module, host, other, task)
    lanes, made = stack_lanes([donor.module.tensors]), technique("lora")
    split, readout = encoded(host, task, "train"), readout_of(host, task)
    whole = scores(host, made, donor.module.config, lanes, split, readout)[0]
    torch.testing.assert_close(asked[0].sort(0).values, whole.sort(0).values, atol=1e-5, rtol=0)


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


@pytest.mark.parametrize(("much", "said"), [(-1.0, True), (1e9, False)])
def test_it_says_when_it_misses_most_of_the_donor(
    much: float, said: bool, tiny_host: Any, tiny_task: Path, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(ridge, "MUCH", much)
    host, other = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=2, seed=0).module
    with caplog.at_level("WARNING"):
        ported(donor, host, other, task)
    assert ("of what the module says of texts that were left out" in caplog.text) is said


def test_scores_that_do_not_move_as_asked_are_not_pushed_harder_and_harder(
    tiny_host: Any, tiny_task: Path, tmp_path: Path, caplog: Any
) -> None:
    """A host caps its logits far below what the donor says: what a sweep misses would be divided
    by next to nothing."""
    folder = tmp_path / "capped"
    shutil.copytree(tiny_host("gemma3_text"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 1e-3}))
    host, other = host_in(tiny_host("llama")), host_in(folder)
    task = few_rows_of(tiny_task)
    donor = train_module(host, task, "lora", {}, steps=20, seed=0, learning_rate=0.01).module
    once = ported(donor, host, other, task, layer=0, sweeps=1).module.tensors
    found = ported(donor, host, other, task, layer=0).module
    assert found.record.port is not None
    assert found.record.port["gain"] < 0.1
    assert all(torch.equal(found.tensors[name], once[name]) for name in once)
    assert "it goes no further" in caplog.text

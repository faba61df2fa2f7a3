"""A module in closed form answers as its donor does, on hosts that share nothing."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Unlike:
    """Two tiny decoders of unlike families, and few texts of a task."""

    origin: Host
    receiver: Host
    task: Any

    def donor(self, steps: int = 2, learning_rate: float | None = None, **lora: Any) -> Module:
        return train_module(
            self.origin, self.task, "lora", lora, steps=steps, seed=0, learning_rate=learning_rate
        ).module

    def ported(self, donor: Module, **options: Any) -> Any:
        return ported(donor, self.origin, self.receiver, self.task, **options)


@pytest.fixture
def unlike(tiny_host: Any, tiny_task: Path) -> Unlike:
    hosts = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    return Unlike(*hosts, few_rows_of(tiny_task))


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


def test_one_layer_alone_is_changed_and_it_can_be_chosen(unlike: Unlike) -> None:
    donor = unlike.donor(5)
    found = unlike.ported(donor, layer=0)
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
    readings: int, unlike: Unlike, monkeypatch: Any
) -> None:
    monkeypatch.setattr(ridge, "_WORSE", 1e9)
    donor = unlike.donor(5)
    found = unlike.ported(donor, readings=readings)
    assert found.module.record.port is not None
    places = found.module.record.port["places"]
    depth = unlike.receiver.geometry.stacks["decoder"]
    assert len(places) == min(readings, depth)
    assert places == [p for p in unlike.receiver.geometry.linears if p in places]
    acting = {name for name, tensor in found.module.tensors.items() if tensor.any()}
    assert acting == {f"{place}.lora_{factor}" for place in places for factor in "AB"}
    assert f"It changes {', '.join(f'`{p}`' for p in places)} alone." in card(
        found.module, "peft", "", None
    )


def test_layers_that_read_worse_than_the_best_are_left_alone(
    unlike: Unlike, monkeypatch: Any
) -> None:
    donor = unlike.donor(5)
    one = unlike.ported(donor, readings=1)
    monkeypatch.setattr(ridge, "_WORSE", 1.0)
    found = unlike.ported(donor)
    assert all(torch.equal(found.module.tensors[n], t) for n, t in one.module.tensors.items())


def test_layers_that_read_together_move_the_scores_as_far_as_one_that_reads_alone(
    unlike: Unlike, monkeypatch: Any
) -> None:
    """Each writes a share of what it reads: were it the whole, the scores would move too far."""
    monkeypatch.setattr(ridge, "_WORSE", 1e9)
    donor = unlike.donor(20, learning_rate=0.01)
    gains = []
    for readings in (1, 2):
        found = unlike.ported(donor, readings=readings)
        assert found.module.record.port is not None
        assert len(found.module.record.port["places"]) == readings
        gains.append(found.module.record.port["gain"])
    assert gains[1] == pytest.approx(gains[0], rel=0.5)


def test_a_donor_is_asked_whole_where_the_receiving_host_has_not_all_of_its_places(
    unlike: Unlike, monkeypatch: Any
) -> None:
    """GPT-2 has no gate: no tensor of the module goes there, and its answers do."""
    donor = unlike.donor(5, targets=["ffn.gate", "ffn.down"])
    asked, real = [], ridge.donor_scores
    monkeypatch.setattr(ridge, "donor_scores", lambda *a: asked.append(real(*a)) or asked[-1])
    unlike.ported(donor)
    lanes, made = stack_lanes([donor.tensors]), technique("lora")
    split, readout = (
        encoded(unlike.origin, unlike.task, "train"),
        readout_of(unlike.origin, unlike.task),
    )
    whole = scores(unlike.origin, made, donor.config, lanes, split, readout)[0]
    torch.testing.assert_close(asked[0].sort(0).values, whole.sort(0).values, atol=1e-5, rtol=0)


def test_two_ports_of_one_seed_are_the_same(unlike: Unlike) -> None:
    donor = unlike.donor()
    one, two = (unlike.ported(donor).module.tensors for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_encoders_are_refused_with_the_way_out(unlike: Unlike, tiny_host: Any) -> None:
    encoder = replace(unlike, receiver=host_in(tiny_host("bert")))
    with pytest.raises(BadInput, match=r"encoders are read by a head; distill can"):
        encoder.ported(unlike.donor())


@pytest.mark.parametrize(("much", "said"), [(-1.0, True), (1e9, False)])
def test_it_says_when_it_misses_most_of_the_donor(
    much: float, said: bool, unlike: Unlike, monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(ridge, "MUCH", much)
    donor = unlike.donor()
    with caplog.at_level("WARNING"):
        unlike.ported(donor)
    assert ("of what the module says of texts that were left out" in caplog.text) is said


def test_scores_that_do_not_move_as_asked_are_not_pushed_harder_and_harder(
    unlike: Unlike, tiny_host: Any, tmp_path: Path, caplog: Any
) -> None:
    """A host caps its logits far below what the donor says: what a sweep misses would be divided
    by next to nothing."""
    folder = tmp_path / "capped"
    shutil.copytree(tiny_host("gemma3_text"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"final_logit_softcapping": 1e-3}))
    capped, donor = replace(unlike, receiver=host_in(folder)), unlike.donor(20, learning_rate=0.01)
    once = capped.ported(donor, layer=0, sweeps=1).module.tensors
    found = capped.ported(donor, layer=0).module
    assert found.record.port is not None
    assert found.record.port["gain"] < 0.1
    assert all(torch.equal(found.tensors[name], once[name]) for name in once)
    assert "it goes no further" in caplog.text

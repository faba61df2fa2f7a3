"""Every family of hosts with every technique: train, save, load, copy to itself, copy to a
continuation, draw the controls.

A new technique or family adds a row and is held to the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from families import FAMILIES, KINDS
from more_families import MORE
from peftport.hosts import families
from peftport.hosts.host import Host
from peftport.modules import HostName, Module, load_module
from peftport.porting import SAMPLINGS, port
from peftport.tasks import Encoded, Task
from peftport.techniques import TECHNIQUES, technique
from peftport.techniques.base import Parameters, stack_lanes
from peftport.training import evaluate_one, readout_of, scores
from peftport.training.module import initial_module, train_module
from tiny_runs import CASES, encoded, few_rows_of, host_in

pytestmark = pytest.mark.long

STEPS = 20
CELLS = [(family, case) for family in FAMILIES for case in CASES]
CONTROLS = ("scratch", *SAMPLINGS)


@dataclass(frozen=True)
class Cell:
    """A module trained on a tiny host, its start, and where it is ported to."""

    host: Host
    continuation: Host
    task: Task
    start: Parameters
    module: Module

    @property
    def split(self) -> Encoded:
        return encoded(self.host, self.task, "train")

    def name(self, host: Host) -> HostName:
        return HostName(name=host.name, fingerprint=host.fingerprint)

    def scores(self, host: Host, module: Module | None) -> torch.Tensor:
        """Class logits of every training row; without a module, those of the bare host."""
        readout = readout_of(host, self.task)
        if module is None:
            head = {n: t for n, t in self.module.tensors.items() if n.startswith("head.")}
            lanes = stack_lanes([head])
            return scores(host, None, None, lanes, self.split, readout)
        made, lanes = technique(module.technique), stack_lanes([module.tensors])
        return scores(host, made, module.config, lanes, self.split, readout)

    def loss(self, config: Any, tensors: Parameters) -> float:
        made, readout = technique(self.module.technique), readout_of(self.host, self.task)
        found = evaluate_one(self.host, made, config, tensors, self.split, readout)
        return found.figures["log_loss"]


@pytest.fixture(scope="module", params=CELLS, ids=[f"{f}-{case}" for f, case in CELLS])
def cell(request, tiny_host, tiny_continuation, tiny_task) -> Cell:
    family, case = request.param
    host, task = host_in(tiny_host(family)), few_rows_of(tiny_task)
    name, options = CASES[case]
    made = technique(name)
    config = made.configure(options)
    start = initial_module(made, config, host, 2, seed=5)
    trained = train_module(host, task, name, options, steps=STEPS, seed=5, learning_rate=1e-2)
    _, folded = made.fold(config, host.geometry, start)
    return Cell(host, host_in(tiny_continuation(family)), task, folded, trained.module)


def test_the_matrix_has_every_technique_and_every_family():
    assert {name for name, _ in CASES.values()} == set(TECHNIQUES)
    kinds = {entry["kind"] for entry in families().values()}
    assert set(KINDS.values()) == kinds
    models = {t for entry in families().values() for t in entry["model_types"]}
    assert {*FAMILIES, *MORE} >= models  # test_families.py has those of MORE


def test_a_few_steps_lower_the_loss_and_change_every_layer(cell):
    before = cell.loss(cell.module.config, cell.start)
    after = cell.loss(cell.module.config, cell.module.tensors)
    assert after < before - 0.03
    moved = {
        ".".join(name.split(".")[:2])
        for name, tensor in cell.module.tensors.items()
        if not torch.equal(tensor, cell.start[name])
    }
    assert moved >= set(cell.host.geometry.blocks)


def test_a_saved_module_loads_equal(cell, tmp_path):
    cell.module.save(tmp_path / "module")
    loaded = load_module(tmp_path / "module")
    assert loaded.record == cell.module.record
    assert loaded.tensors.keys() == cell.module.tensors.keys()
    assert all(torch.equal(loaded.tensors[n], t) for n, t in cell.module.tensors.items())
    assert loaded.geometry == cell.host.geometry


def test_a_copy_to_its_own_host_gives_bit_equal_scores(cell):
    copied = port(cell.module, cell.host.geometry, cell.name(cell.host))
    assert torch.equal(cell.scores(cell.host, copied.module), cell.scores(cell.host, cell.module))


def test_a_copy_to_a_continuation_is_whole_and_acts_there(cell):
    copied = port(cell.module, cell.continuation.geometry, cell.name(cell.continuation))
    tensors = len(cell.module.tensors)
    assert copied.account.counts() == {
        "copied": tensors,
        "mapped": 0,
        "dropped": 0,
        "initialised": 0,
    }
    assert copied.module.record.host == cell.name(cell.continuation)
    assert copied.module.record.origin == cell.module.record.host
    there = cell.scores(cell.continuation, copied.module)
    assert (there - cell.scores(cell.host, cell.module)).abs().max() > 1e-3
    assert (there - cell.scores(cell.continuation, None)).abs().max() > 1e-3


@pytest.mark.parametrize("method", CONTROLS)
def test_a_control_has_the_module_s_shapes_and_none_of_its_tensors(cell, method):
    name = cell.name(cell.continuation)
    drawn = port(cell.module, cell.continuation.geometry, name, method, seed=3)
    assert drawn.account.counts()["initialised"] == len(cell.module.tensors)
    assert drawn.account.counts()["copied"] == 0
    for tensor_name, tensor in cell.module.tensors.items():
        found = drawn.module.tensors[tensor_name]
        assert found.shape == tensor.shape
        # A shuffle of two numbers can be the same two numbers, and zeros stay zeros: the query
        # of a decoder that sees one token gets no gradient.
        if tensor.ndim > 1 and tensor.any():
            assert not torch.equal(found, tensor), tensor_name
    assert torch.isfinite(cell.scores(cell.continuation, drawn.module)).all()

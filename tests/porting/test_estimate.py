"""What a port will take is told before it runs, and grows with what makes it grow."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import replace

import pytest
import torch

from peftport.porting import METHODS, judge, port_method
from peftport.porting import estimate as estimates
from peftport.porting.estimate import Load, memory_at_hand
from peftport.techniques.embeddings import shape_there
from porting.spaces import geometry
from porting.test_map_based import asked

measured_pace = estimates.products_per_second


@pytest.fixture(autouse=True)
def a_known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "products_per_second", lambda: 1e9)


def requested(name: str, technique: str = "lora", **options):
    narrow = {"reduction": 4} if technique == "compacter" else {}
    request = asked(geometry("llama", 32), geometry("llama", 48, 4), technique, **narrow)
    method = port_method(name)
    return method, replace(request, options=method.configure(options))


@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_that_applies_has_an_estimate(name):
    method, request = requested(name)
    verdict = judge(method, request, load=Load(200))
    if verdict.account is None:
        assert verdict.estimate is None
        return
    found = verdict.estimate
    assert found.seconds > 1
    assert found.memory > 1e8
    assert found.disk > 0
    assert set(found.record()) == {"seconds", "memory_bytes", "disk_bytes", "temporary_bytes"}
    assert judge(method, request).estimate is None


@pytest.mark.parametrize("technique", ["lora", "adapter", "compacter", "prefix"])
@pytest.mark.parametrize("name", ["procrustes", "correlation"])
def test_more_text_takes_longer_and_more_memory(name, technique):
    method, request = requested(name, technique)
    few, many = (method.estimate(request, Load(texts)) for texts in (100, 10_000))
    assert few.seconds < many.seconds
    assert few.memory < many.memory
    assert few.disk == many.disk


def test_fewer_places_take_less():
    method, request = requested("procrustes")
    _, fewer = requested("procrustes", places=64)
    whole, less = (method.estimate(each, Load(1000)) for each in (request, fewer))
    assert less.seconds < whole.seconds
    assert less.memory < whole.memory


def test_large_hosts_are_counted_one_layer_at_a_time(monkeypatch):
    monkeypatch.setattr(estimates, "_LARGE", 0.0)
    monkeypatch.setattr("peftport.porting.aside._FEW", 0)
    monkeypatch.setattr("peftport.porting.map_based.bf16_is_fast", lambda: False)
    method = port_method("procrustes")

    def found(*hosts):
        request = replace(asked(*hosts, "lora"), options=method.configure({}))
        return method.estimate(request, Load(1))  # maps on so few tokens take less than a layer

    narrow, wide, deep = geometry("llama", 32), geometry("llama", 512), geometry("llama", 512, 8)
    layer = 4.0 * estimates.largest_layer(wide)
    one, both = found(narrow, wide), found(wide, wide)
    assert 1.3 * layer < one.memory - found(narrow, narrow).memory < 1.3 * 2.2 * layer
    assert both.memory - one.memory < 0.1 * layer
    assert found(deep, deep).memory == pytest.approx(both.memory, rel=1e-6)
    assert found(deep, deep).temporary > both.temporary > one.temporary


def test_the_system_tells_how_much_memory_is_at_hand():
    found = memory_at_hand()
    assert (found is None) == (sys.platform != "linux")
    assert found is None or 2**26 < found < 2**50


def test_the_narrowest_group_says_how_much_is_at_hand(monkeypatch):
    left = {"here": 2340.0, "above": math.inf}
    monkeypatch.setattr(estimates, "control_groups", lambda: list(left))
    monkeypatch.setattr(estimates, "left_in_group", left.get)
    assert memory_at_hand() in (None, 2340)


def test_a_machine_is_as_fast_while_others_have_its_cores(monkeypatch):
    multiply, threads = torch.mm, torch.get_num_threads()
    measured_pace.cache_clear()
    undisturbed = measured_pace()
    monkeypatch.setattr(torch, "mm", lambda *both: time.sleep(0.02) or multiply(*both))
    measured_pace.cache_clear()
    assert measured_pace() > undisturbed / 3
    assert torch.get_num_threads() == threads


def test_an_estimate_reads_in_words():
    found = estimates.CostEstimate(150.0, 2.36e9, 7.6e6)
    assert found.text() == "about 2 min, 2.4 GB of memory, 7.6 MB written"
    assert replace(found, seconds=40.2).text().startswith("about 40 s")


EMBEDDINGS = {
    "embedding.input.weight": ((7, 32), (50, 48)),
    "embedding.output.lora_A": ((2, 32), (2, 48)),
    "embedding.output.lora_B": ((7, 2), (50, 2)),
    "embedding.input.lora_A": ((2, 7), (2, 50)),
    "embedding.input.lora_B": ((32, 2), (48, 2)),
}


@pytest.mark.parametrize("name", list(METHODS))
def test_embeddings_that_a_module_brings_along_are_counted(name):
    method, request = requested(name)
    there = replace(request.receiver, vocabulary=50)
    plain = replace(request, receiver=there)
    shapes = {name: shape for name, (shape, _) in EMBEDDINGS.items()}
    brings = replace(plain, donor=request.donor.model_copy(update={"embeddings": shapes}))
    found, without = (judge(method, each, load=Load(200)) for each in (brings, plain))
    if found.account is None:
        return
    numbers = sum(math.prod(shape) for shape in shapes.values())
    assert found.estimate.memory >= without.estimate.memory + 4.0 * numbers
    goes_over = method.carries and method.rows == "mapped"  # the hosts differ in width
    written = sum(math.prod(shape) for _, shape in EMBEDDINGS.values()) if goes_over else 0
    assert found.estimate.disk == without.estimate.disk + 4.0 * written


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_embedding_s_shape_follows_its_host(name):
    here, there = EMBEDDINGS[name]
    host = replace(geometry("llama", 48, 4), vocabulary=50)
    assert shape_there(name, here, host) == there

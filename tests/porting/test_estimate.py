"""What a port will take is told before it runs, and grows with what makes it grow."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import torch

from peftport.porting import METHODS, judge, port_method
from peftport.porting import estimate as estimates
from peftport.porting.estimate import Load, memory_at_hand
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
    assert set(found.record()) == {"seconds", "memory_bytes", "disk_bytes"}
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


def test_the_system_tells_how_much_memory_is_at_hand():
    found = memory_at_hand()
    assert found is None or found > 0


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

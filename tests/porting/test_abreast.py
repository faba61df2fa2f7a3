"""Two jobs at a time, each on half of the threads; a port by them is the port without."""

from __future__ import annotations

import threading
from functools import partial

import pytest
import torch

from peftport.porting.abreast import abreast
from peftport.porting.activations import Spaces
from porting.hosts_and_texts import twin
from porting.spaces import geometry, known_maps
from porting.test_layerwise import mapped
from porting.test_procrustes import module_of
from tiny_runs import host_in, task_in

__all__ = ["twin"]


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_each_job_s_gift_stands_at_its_place_and_the_threads_are_as_before(threads):
    assert abreast([partial(int, each) for each in range(7)]) == list(range(7))
    assert torch.get_num_threads() == threads
    assert seen_by_a_new_thread() == threads
    assert abreast([]) == []


@pytest.mark.parametrize("threads", [2, 5], indirect=True)
def test_two_are_at_work_at_a_time_on_half_of_the_threads_each(threads):
    both = threading.Barrier(2, timeout=60)

    def met() -> int:
        both.wait()
        return torch.get_num_threads()

    assert abreast([met, met, met, met]) == [threads // 2] * 4


def test_on_one_thread_a_job_follows_the_other():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert set(abreast([threading.get_ident] * 3)) == {threading.get_ident()}
    finally:
        torch.set_num_threads(before)


def test_what_goes_wrong_in_a_job_is_told_and_the_threads_are_as_before(threads):
    with pytest.raises(ZeroDivisionError):
        abreast([partial(int, 1), lambda: 1 // 0])
    assert torch.get_num_threads() == threads


def test_maps_that_are_fitted_beforehand_are_each_fitted_once(threads):
    host = geometry("llama", 32)
    maps = known_maps(host, host)
    points = tuple(point for point in host.linears if point.startswith("decoder.0."))
    maps.fit_all(Spaces(points, points, points))
    fitted = sorted(maps.fit.asked)
    for point in points:
        maps.inputs(point)
        maps.changes(point)
    assert fitted == sorted(maps.fit.asked) == ["changes"] * 7 + ["inputs"] * 7


@pytest.mark.parametrize("case", ["lora", "houlsby"])
def test_a_port_on_two_threads_is_the_port_on_one(case, twin, tiny_host, tiny_task):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    donor = module_of(case, host, task_in(tiny_task))
    made = []
    before = torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        made.append(mapped(donor, host, wide, prior=True).tensors)
    torch.set_num_threads(before)
    assert list(made[0]) == list(made[1])
    for name, tensor in made[0].items():
        assert torch.allclose(tensor, made[1][name], rtol=1e-3, atol=1e-5), name


def test_large_hosts_are_run_one_after_the_other_and_give_memory_back(
    twin, tiny_host, tiny_task, monkeypatch
):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    donor = module_of("lora", host, task_in(tiny_task))
    made = mapped(donor, host, wide, prior=True).tensors
    given_back: list[str] = []
    monkeypatch.setattr("peftport.porting.estimate._LARGE", 0)
    monkeypatch.setattr("peftport.porting.layerwise.abreast", None)
    for room in ("reading", "walk"):
        give = partial(given_back.append, room)
        monkeypatch.setattr(f"peftport.porting.{room}.give_freed_memory_back", give)
    for name, tensor in mapped(donor, host, wide, prior=True).tensors.items():
        assert torch.equal(tensor, made[name]), name
    assert given_back.count("walk") >= 4, "before each part of both hosts' layers"
    assert given_back.count("reading") >= 4, "before each part, in the module's answers too"


def seen_by_a_new_thread() -> int:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return seen[0]

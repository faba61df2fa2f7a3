"""Layers are as like as what they compute, on hosts of other depths and widths."""

from __future__ import annotations

from dataclasses import replace

import torch

from peftport.porting import similarity
from peftport.porting.activations import observe
from peftport.porting.similarity import layer_pairs, layer_similarity
from porting.hosts_and_texts import means_of, request_of, twin
from porting.test_procrustes import module_of
from tiny_runs import host_in, task_in

__all__ = ["twin"]


def asked(host, other, tiny_task):
    donor = module_of("lora", host, task_in(tiny_task))
    return means_of(host, other), request_of(donor, other)


def test_layers_of_a_wider_twin_are_each_its_own_alike(twin, tiny_host, tiny_task):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    found = layer_similarity(*asked(host, wide, tiny_task))["decoder"]
    assert torch.allclose(found.diagonal(), torch.ones(2), atol=1e-4)
    assert found[0, 1] < 0.99 > found[1, 0]


def test_rows_are_the_receiver_s_layers_and_idle_ones_are_like_those_below(
    twin, tiny_host, tiny_task
):
    host, deep = host_in(tiny_host("llama")), host_in(twin("deeper", "llama"))
    found = layer_similarity(*asked(host, deep, tiny_task))["decoder"]
    assert found.shape == (4, 2)
    for row, column in enumerate((0, 0, 1, 1)):
        assert abs(found[row, column] - 1) < 1e-4
        assert found[row, 1 - column] < 0.99


def test_tokens_of_massive_states_do_not_make_all_layers_alike(tiny_host, tiny_task, monkeypatch):
    host = host_in(tiny_host("llama"))
    usual = layer_similarity(*asked(host, host, tiny_task))["decoder"]

    def resting(*given):
        seen = observe(*given)
        for states in seen.outputs.values():
            states[:3] = 0
            states[:3, 0] = 10_000 * states.norm(dim=1).median()
        return seen

    monkeypatch.setattr(similarity, "observe", resting)
    found = layer_similarity(*asked(host, host, tiny_task))["decoder"]
    assert (found - usual).abs().max() < 0.2
    monkeypatch.setattr(similarity, "tempered", lambda states, most: states)
    assert layer_similarity(*asked(host, host, tiny_task))["decoder"].min() > 0.999


def test_pairs_go_by_likeness_where_depths_differ(twin, tiny_host, tiny_task):
    host, deep = host_in(tiny_host("llama")), host_in(twin("deeper", "llama"))
    pairs = layer_pairs("cka", *asked(host, deep, tiny_task))
    assert [pairs[f"decoder.{n}"] for n in range(4)] == ["decoder.0", None, "decoder.1", None]
    by_place = layer_pairs("proportional", *asked(host, deep, tiny_task))
    assert [by_place[f"decoder.{n}"] for n in range(4)] == [None, "decoder.0", None, "decoder.1"]


def test_hosts_are_not_run_where_depths_are_the_same_or_places_tell(twin, tiny_host, tiny_task):
    host, wide = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    deep = host_in(twin("deeper", "llama"))
    for other, how in ((wide, "cka"), (deep, "proportional"), (deep, "every")):
        means, request = asked(host, other, tiny_task)
        idle = [replace(each, load=None, stream=None) for each in (means.origin, means.receiver)]
        pairs = layer_pairs(how, replace(means, origin=idle[0], receiver=idle[1]), request)
        assert len(pairs) == request.receiver.stacks["decoder"]

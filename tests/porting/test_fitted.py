"""Maps are fitted on the right samples, once, and go by the layers that are paired."""

from __future__ import annotations

import torch

from porting.spaces import drawn, geometry, known_maps

NARROW, WIDE = geometry("llama", 32), geometry("llama", 48)


def through(found, states):
    return (states - found.centre) @ found.matrix.mT + found.mean


def test_inputs_and_outputs_of_a_place_have_maps_of_their_own():
    maps = known_maps(NARROW, WIDE)
    read, made = maps.inputs("decoder.0.ffn.down"), maps.states("decoder.0.ffn.down")
    assert read.matrix.shape == (64, 64)
    assert made.matrix.shape == (32, 48)
    there, here = maps.origin, maps.receiver
    assert torch.equal(read.mean, there.inputs["decoder.0.ffn.down"].mean(0))
    assert torch.equal(read.centre, here.inputs["decoder.0.ffn.down"].mean(0))
    assert torch.equal(made.mean, there.outputs["decoder.0.ffn.down"].mean(0))
    assert torch.equal(made.centre, here.outputs["decoder.0.ffn.down"].mean(0))
    assert maps.changes("decoder.0.ffn.down").shape == (48, 32)


def test_a_map_is_fitted_once_however_often_it_is_asked_for():
    maps = known_maps(NARROW, WIDE)
    for _ in range(3):
        maps.inputs("decoder.0.self.q")
        maps.states("decoder.0.self.q")
        maps.changes("decoder.0.self.q")
    assert maps.fit.asked == ["inputs", "inputs", "changes"]


def test_samples_are_those_of_the_layer_that_a_layer_is_paired_with():
    pairs = {"decoder.0": None, "decoder.1": "decoder.0"}
    maps = known_maps(NARROW, WIDE, pairs)
    assert maps.partner("decoder.1.self.q") == "decoder.0.self.q"
    found = maps.inputs("decoder.1.self.q")
    assert torch.equal(found.mean, maps.origin.inputs["decoder.0.self.q"].mean(0))
    assert torch.equal(found.centre, maps.receiver.inputs["decoder.1.self.q"].mean(0))
    for ask in (maps.inputs, maps.states, maps.changes, maps.partner):
        assert ask("decoder.0.self.q") is None


def test_gradients_go_to_the_map_of_their_place_alone():
    maps = known_maps(NARROW, WIDE)
    slopes = (drawn(0, 1, 2, 32), drawn(1, 1, 2, 48))
    maps.gradients["decoder.0.self.o"] = slopes
    maps.changes("decoder.0.self.o")
    maps.changes("decoder.1.self.o")
    assert maps.fit.gradients[0] is slopes
    assert maps.fit.gradients[1] is None


def test_forward_takes_the_originating_host_s_mean_to_the_receiving_one_s():
    pairs = {"decoder.0": "decoder.1", "decoder.1": None}
    maps = known_maps(geometry("llama", 32), geometry("qwen3", 32), pairs)
    there = maps.origin.outputs["decoder.1.self.keys"]
    here = maps.receiver.outputs["decoder.0.self.keys"]
    assert (there.shape[1], here.shape[1]) == (16, 32)
    found = maps.forward("decoder.0.self.keys", torch.stack([there.mean(0), there[0]]))
    assert found.shape == (2, 32)
    assert torch.allclose(found[0], here.mean(0), atol=1e-5)
    known = maps.fit.prefixes(there, here)
    assert torch.allclose(found[1], through(known, there[0]), atol=1e-5)

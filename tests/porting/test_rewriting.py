"""Each technique's tensors, rewritten by maps that are known, compute what the maps say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import gelu

from peftport.errors import BadInput
from peftport.porting.activations import Spaces
from peftport.porting.rewriting import by_maps
from peftport.techniques import technique
from peftport.techniques.adapter import bottleneck_of, places
from peftport.techniques.adapter.mapping import as_adapter, map_adapter
from peftport.techniques.compacter import weight
from peftport.techniques.compacter.mapping import densified
from peftport.techniques.lora.mapping import map_lora
from porting.spaces import drawn, geometry, known_maps

NARROW, WIDE = geometry("llama", 32), geometry("llama", 48)
HALF = {"decoder.0": "decoder.1", "decoder.1": None}


def module(name: str, origin, **options):
    """A configuration, and drawn tensors for a host of that geometry."""
    config = technique(name).configure(options)
    shapes = technique(name).shapes(config, origin)
    return config, {n: 0.3 * drawn(k, *shape) for k, (n, shape) in enumerate(shapes.items())}


def through(found, states: Tensor) -> Tensor:
    return (states - found.centre) @ found.matrix.mT + found.mean


@pytest.mark.parametrize("pairs", [None, HALF])
@pytest.mark.parametrize(("origin", "receiver"), [(NARROW, WIDE), (WIDE, NARROW)])
def test_a_lora_changes_by_p_b_a_m(origin, receiver, pairs):
    config, donor = module("lora", origin, rank=3, targets=["all"])
    maps = known_maps(origin, receiver, pairs)
    made = map_lora(config, donor, receiver, maps)
    assert {n: tuple(t.shape) for n, t in made.items()} == technique("lora").shapes(
        config, receiver
    )
    for point, linear in receiver.linears.items():
        change = made[f"{point}.lora_B"] @ made[f"{point}.lora_A"]
        partner = maps.partner(point)
        if partner is None:
            assert not change.any()
            continue
        old = donor[f"{partner}.lora_B"] @ donor[f"{partner}.lora_A"]
        wanted = maps.changes(point) @ maps.inputs(point).linear(old)
        assert torch.allclose(change, wanted, atol=1e-3 * float(wanted.norm()))
        centre = maps.inputs(point).centre  # (inputs,)
        at_mean = maps.changes(point) @ old @ maps.inputs(point).mean
        assert torch.allclose(change @ centre, at_mean, atol=1e-3 * float(at_mean.norm() + 1))
        assert linear.inputs == len(centre)


@pytest.mark.parametrize("pairs", [None, HALF])
@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize(("origin", "receiver"), [(NARROW, WIDE), (WIDE, NARROW)])
def test_an_adapter_reads_mapped_states_and_its_change_is_mapped(origin, receiver, variant, pairs):
    config, donor = module("adapter", origin, variant=variant, reduction=4)
    maps = known_maps(origin, receiver, pairs)
    there = as_adapter(config, origin, receiver)
    made = map_adapter(there, donor, receiver, maps, origin)
    shapes = technique("adapter").shapes(there, receiver)
    assert {n: tuple(t.shape) for n, t in made.items()} == shapes
    states = drawn(9, 5, receiver.width)
    back = {p: side for side, p in places(variant, False, origin).items()}
    for side, point in places(variant, False, receiver).items():
        found, partner = bottleneck(made, side, states), maps.partner(point)
        if partner is None:
            assert not found.any()
            continue
        there_states = through(maps.states(point), states)
        wanted = bottleneck(donor, back[partner], there_states) @ maps.changes(point).mT
        assert torch.allclose(found, wanted, atol=1e-3 * float(wanted.norm()))


def bottleneck(tensors, side: str, states: Tensor) -> Tensor:
    low = states @ tensors[f"{side}.down.weight"].mT + tensors[f"{side}.down.bias"]
    return gelu(low) @ tensors[f"{side}.up.weight"].mT + tensors[f"{side}.up.bias"]


@given(st.integers(1, 8), st.integers(1, 64), st.integers(1, 64), st.sampled_from("ac"))
def test_an_adapter_keeps_its_bottleneck_at_any_width(heads, reduction, wide, which):
    origin, receiver = geometry("llama", 8 * heads), geometry("llama", 8 * wide)
    if which == "a":
        config = technique("adapter").configure({"reduction": reduction, "activation": "relu"})
    else:
        config = technique("compacter").configure({"reduction": reduction, "activation": "relu"})
    width = bottleneck_of(reduction, origin)
    if width > receiver.width:
        with pytest.raises(BadInput, match=f"bottleneck of {width} is wider than the receiving"):
            as_adapter(config, origin, receiver)
        return
    found = as_adapter(config, origin, receiver)
    assert bottleneck_of(found.reduction, receiver) == width
    assert found.nonlinearity == "relu"
    assert found.variant == config.variant


def test_an_adapter_s_own_activation_is_written_down():
    for variant, activation in (("houlsby", "swish"), ("pfeiffer", "relu")):
        config = technique("adapter").configure({"variant": variant})
        assert as_adapter(config, NARROW, WIDE).activation == activation


def test_a_compacter_is_the_adapter_that_computes_the_same():
    config, donor = module("compacter", NARROW, reduction=4, n=2)
    dense = densified(config, donor)
    adapter = technique("adapter").configure({"reduction": 4})
    shapes = technique("adapter").shapes(adapter, NARROW)
    assert {n: tuple(t.shape) for n, t in dense.items()} == shapes
    lanes = {name: tensor[None] for name, tensor in donor.items()}
    states = drawn(1, 5, 32)
    for side in places("houlsby", False, NARROW):
        low = states @ weight(lanes, f"{side}.down")[0] + donor[f"{side}.down.bias"]
        wanted = gelu(low) @ weight(lanes, f"{side}.up")[0] + donor[f"{side}.up.bias"]
        assert torch.allclose(bottleneck(dense, side, states), wanted, atol=1e-4)


def test_spaces_are_all_that_a_module_reads_and_changes():
    bert, llama = geometry("bert"), geometry("llama")
    lora = technique("lora").configure({"targets": ["q"]})
    found = by_maps("lora").spaces(lora, bert)
    points = ("encoder.0.self.q", "encoder.1.self.q")
    assert found == Spaces(points, points, points)
    assert found.within({"encoder.1"}) == Spaces(points[1:], points[1:], points[1:])
    prefix = by_maps("prefix").spaces(technique("prefix").configure({}), llama)
    assert prefix.changes == ("decoder.0.self.o", "decoder.1.self.o")
    kept = {f"decoder.{n}.self.{what}" for n in (0, 1) for what in ("keys", "values", "o")}
    assert set(prefix.outputs) == kept
    block = technique("adapter").configure({"variant": "pfeiffer"})
    found = by_maps("adapter").spaces(block, bert)
    assert found.changes == ("encoder.0", "encoder.1")
    assert found.inputs == ()

"""LoRA: no change at its start, alpha over the rank, and targets by name."""

from __future__ import annotations

import math

import pytest
import torch

from families import FAMILIES
from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.techniques import technique
from peftport.techniques.lora import targets
from techniques.references import batch, drawn, our_answer
from tiny_runs import host_in

lora = technique("lora")


def answer_with(host, options, parameters):
    """The host's answer with one module attached."""
    config = lora.configure(options)
    inputs = batch(host.tokenizer)
    with lora.attach(host, config, {name: tensor[None] for name, tensor in parameters.items()}):
        return our_answer(host, inputs)


def geometry(tiny_host, family: str) -> Geometry:
    return host_in(tiny_host(family)).geometry


@pytest.mark.parametrize("options", [{}, {"targets": ("all",), "rslora": True, "rank": 2}])
@pytest.mark.parametrize("family", FAMILIES)
def test_at_its_start_it_leaves_the_host_s_answer_bit_for_bit(family, options, tiny_host):
    host = host_in(tiny_host(family))
    config, generator = lora.configure(options), torch.Generator().manual_seed(0)
    start = lora.initial(config, host.geometry, generator)
    assert torch.equal(answer_with(host, options, start), our_answer(host, batch(host.tokenizer)))


def test_its_start_is_peft_s(tiny_host):
    """A is Kaiming uniform with a = sqrt 5, that is uniform up to 1 / sqrt(inputs); B is zero."""
    start = lora.initial(
        lora.configure({"rank": 64}), geometry(tiny_host, "llama"), torch.Generator().manual_seed(0)
    )
    for name, tensor in start.items():
        if name.endswith("lora_B"):
            assert not tensor.any()
        else:
            bound = 1 / math.sqrt(tensor.shape[1])
            assert 0.99 * bound < tensor.abs().max() <= bound
            assert abs(float(tensor.std()) / bound - 1 / math.sqrt(3)) < 0.02


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({}, 1.0),
        ({"rank": 4, "alpha": 16}, 4.0),
        ({"rank": 16, "alpha": 8}, 0.5),
        ({"rank": 16, "alpha": 8, "rslora": True}, 2.0),
    ],
)
def test_the_scale_is_alpha_over_the_rank_or_its_root(options, scale):
    assert lora.configure(options).scale == scale


@pytest.mark.parametrize("rslora", [False, True])
def test_another_alpha_is_made_up_for_by_smaller_factors(rslora, tiny_host):
    host = host_in(tiny_host("llama"))
    one = {"rank": 4, "alpha": 4.0, "rslora": rslora}
    parameters = drawn(lora.shapes(lora.configure(one), host.geometry))
    four_times = {**one, "alpha": 16.0}
    weaker = {n: t / 4 if n.endswith("lora_B") else t for n, t in parameters.items()}
    same = answer_with(host, one, parameters)
    torch.testing.assert_close(answer_with(host, four_times, weaker), same, atol=1e-5, rtol=0)
    assert (answer_with(host, four_times, parameters) - same).abs().max() > 0.1


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_it_acts_as_the_weight_with_the_product_added(family, tiny_host):
    host = host_in(tiny_host(family))
    options = {"rank": 3, "alpha": 6.0, "targets": ("all",)}
    shapes = lora.shapes(lora.configure(options), host.geometry)
    parameters = {name: 0.25 * tensor for name, tensor in drawn(shapes).items()}
    attached = answer_with(host, options, parameters)
    before = {}
    try:
        for point, linear in host.geometry.linears.items():
            weight = host.model.get_submodule(linear.path).weight
            before[point] = weight.clone()
            change = 2.0 * parameters[f"{point}.lora_B"] @ parameters[f"{point}.lora_A"]
            weight.data += change.T if linear.transposed else change
        merged = our_answer(host, batch(host.tokenizer))
    finally:
        for point, linear in host.geometry.linears.items():
            host.model.get_submodule(linear.path).weight.data.copy_(before[point])
    torch.testing.assert_close(attached, merged, atol=2e-5, rtol=1e-5)


def test_nothing_of_it_stays_on_the_host(tiny_host):
    host = host_in(tiny_host("t5"))
    before = our_answer(host, batch(host.tokenizer))
    parameters = drawn(lora.shapes(lora.configure({}), host.geometry))
    assert not torch.equal(answer_with(host, {}, parameters), before)
    assert torch.equal(our_answer(host, batch(host.tokenizer)), before)
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        lora.attach(host, lora.configure({}), {n: t[None] for n, t in parameters.items()}),
    ):
        raise RuntimeError("in the middle")
    assert torch.equal(our_answer(host, batch(host.tokenizer)), before)


@pytest.mark.parametrize(
    ("family", "wanted", "roles"),
    [
        ("t5", None, {"self.q", "self.v", "cross.q", "cross.v"}),
        ("gpt2", None, {"self.qkv"}),
        ("llama", None, {"self.q", "self.v"}),
        ("t5", ("cross.q",), {"cross.q"}),
        ("t5", ("o",), {"self.o", "cross.o"}),
        ("llama", ("ffn.up", "k"), {"ffn.up", "self.k"}),
        (
            "bert",
            ("all",),
            {"self.q", "self.k", "self.v", "self.o", "ffn.up", "ffn.down"},
        ),
    ],
)
def test_targets_are_found_by_their_last_part_or_by_two(family, wanted, roles, tiny_host):
    found = targets(lora.configure({"targets": wanted}), geometry(tiny_host, family))
    assert {point.split(".", 2)[2] for point in found} == roles
    assert {point.split(".", 2)[1] for point in found} == {"0", "1"}


@pytest.mark.parametrize("wanted", ["layers.1.self_attn.q_proj", "model.layers.0.mlp.up_proj"])
def test_targets_of_single_layers_are_refused_before_a_module_is_made_that_none_can_read(
    wanted, tiny_host
):
    with pytest.raises(BadInput, match=rf"targets 'v_proj', '{wanted}' are of some layers and not"):
        lora.shapes(lora.configure({"targets": ("v_proj", wanted)}), geometry(tiny_host, "llama"))


@pytest.mark.parametrize("wanted", ["qq", "self", "q.self", "encoder.0.self.q", ""])
def test_a_target_that_the_host_lacks_is_told_what_it_has(wanted, tiny_host):
    config = lora.configure({"targets": ("q", wanted)})
    with pytest.raises(BadInput) as error:
        lora.shapes(config, geometry(tiny_host, "llama"))
    message = str(error.value)
    assert message.startswith(f"lora: no linear layer called {wanted!r} on a llama host; it has ")
    assert "ffn.down, ffn.gate, ffn.up, self.k, self.o, self.q, self.v, or all" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rnk": 4}, r"option 'rnk': .* Did you mean 'rank'\? Known: rank, alpha, rslora, targets"),
        ({"rank": 0}, "option 'rank': Input should be greater than or equal to 1"),
        ({"rank": "four"}, "option 'rank': Input should be a valid integer"),
        ({"alpha": 0}, "option 'alpha': Input should be greater than 0"),
        ({"targets": 3}, "option 'targets': Input should be a valid tuple"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(BadInput, match=f"technique lora: {message}"):
        lora.configure(options)


def test_an_unknown_technique_is_told_the_nearest():
    with pytest.raises(BadInput) as error:
        technique("loar")
    expected = "unknown technique 'loar'. Did you mean 'lora'? Known: "
    assert str(error.value) == f"{expected}adapter, compacter, lora, prefix."

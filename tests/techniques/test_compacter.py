"""Compacter: weights are sums of Kronecker products with a shared rule; n must divide."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from families import FAMILIES
from peftport.errors import BadInput
from peftport.techniques import technique
from peftport.techniques.compacter import RULE, weight
from techniques.references import batch, drawn, our_answer
from tiny_runs import host_in

compacter = technique("compacter")
adapter = technique("adapter")


def answer_with(host, made, config, parameters):
    with made.attach(host, config, {name: tensor[None] for name, tensor in parameters.items()}):
        return our_answer(host, batch(host.tokenizer))


@settings(deadline=None, derandomize=True, database=None, max_examples=50)
@given(
    n=st.integers(1, 4),
    rank=st.integers(1, 3),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    lanes=st.integers(1, 3),
)
def test_a_weight_is_the_sum_of_kronecker_products(n, rank, inputs, outputs, lanes):
    shapes = {
        RULE: (lanes, n, n, n),
        "x.down.left": (lanes, n, inputs, rank),
        "x.down.right": (lanes, n, rank, outputs),
    }
    parameters = {name: tensor.double() for name, tensor in drawn(shapes).items()}
    found = weight(parameters, "x.down").numpy()
    rule, left, right = (parameters[name].numpy() for name in shapes)
    expected = [
        sum(np.kron(rule[lane, k], left[lane, k] @ right[lane, k]) for k in range(n))
        for lane in range(lanes)
    ]
    assert found.shape == (lanes, n * inputs, n * outputs)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-12)


@pytest.mark.parametrize("variant", ["houlsby", "pfeiffer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_it_acts_as_the_adapter_of_its_dense_weights(family, variant, tiny_host):
    host = host_in(tiny_host(family))
    config = compacter.configure({"reduction": 4, "rank": 2, "variant": variant})
    parameters = drawn(compacter.shapes(config, host.geometry))
    lanes = {name: tensor[None] for name, tensor in parameters.items()}
    dense = {}
    for name, tensor in parameters.items():
        if name.endswith(".bias"):
            dense[name] = tensor
            side = name.removesuffix(".bias")
            dense[f"{side}.weight"] = weight(lanes, side)[0].T.contiguous()
    like = adapter.configure({"reduction": 4, "variant": variant, "activation": "gelu"})
    assert {n: tuple(t.shape) for n, t in dense.items()} == adapter.shapes(like, host.geometry)
    found = answer_with(host, compacter, config, parameters)
    torch.testing.assert_close(found, answer_with(host, adapter, like, dense), atol=1e-5, rtol=0)
    assert (found - our_answer(host, batch(host.tokenizer))).abs().max() > 0.1


@pytest.mark.parametrize("silence", ["up", RULE])
@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_zero_up_projection_it_leaves_the_host_s_answer(family, silence, tiny_host):
    host = host_in(tiny_host(family))
    config = compacter.configure({"reduction": 4})
    parameters = drawn(compacter.shapes(config, host.geometry))
    silent = {
        name: torch.zeros_like(tensor)
        if ".up." in name or (name == RULE and silence == RULE)
        else tensor
        for name, tensor in parameters.items()
    }
    bare = our_answer(host, batch(host.tokenizer))
    assert torch.equal(answer_with(host, compacter, config, silent), bare)


def test_one_rule_is_shared_by_every_place(tiny_host):
    shapes = compacter.shapes(
        compacter.configure({"reduction": 4, "rank": 3}), host_in(tiny_host("t5")).geometry
    )
    assert [name for name in shapes if "rule" in name] == [RULE]
    assert shapes[RULE] == (4, 4, 4)
    place = "decoder.1.self"
    assert {n: s for n, s in shapes.items() if n.startswith(place)} == {
        f"{place}.down.left": (4, 8, 3),
        f"{place}.down.right": (4, 3, 2),
        f"{place}.down.bias": (8,),
        f"{place}.up.left": (4, 2, 3),
        f"{place}.up.right": (4, 3, 8),
        f"{place}.up.bias": (32,),
    }
    # A parameter of the rule acts on every place, so all of them send it gradients.
    assert len(shapes) == 1 + 6 * 4 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 3, "reduction": 4}, "n = 3 does not divide the host's width of 32"),
        ({"n": 4, "reduction": 16}, r"n = 4 does not divide the bottleneck of 2 \(width 32, red"),
        ({}, "n = 4 does not divide the bottleneck of 1"),
    ],
)
def test_an_n_that_does_not_divide_is_a_clear_error(options, message, tiny_host):
    with pytest.raises(BadInput, match=f"compacter: {message}"):
        compacter.shapes(compacter.configure(options), host_in(tiny_host("bert")).geometry)


def test_defaults_are_those_of_adapterhub():
    config = compacter.configure({})
    assert (config.n, config.rank, config.reduction, config.activation) == (4, 1, 32, "gelu")


def test_its_start_has_glorot_factors_and_a_small_rule(tiny_host):
    start = compacter.initial(
        compacter.configure({"reduction": 2, "rank": 20}),
        host_in(tiny_host("t5")).geometry,
        torch.Generator().manual_seed(0),
    )
    for name, tensor in start.items():
        if name.endswith("bias"):
            assert not tensor.any()
        else:
            deviation = 1e-4 if name == RULE else math.sqrt(2 / (tensor.shape[1] + tensor.shape[2]))
            assert abs(float(tensor.std()) / deviation - 1) < 0.2
            assert abs(float(tensor.mean())) < deviation / 3


def test_a_wrong_option_is_named():
    with pytest.raises(BadInput, match="technique compacter: option 'n': Input should be greater"):
        compacter.configure({"n": 0})
    with pytest.raises(BadInput, match=r"Known: n, rank, reduction, activation, variant, cross"):
        compacter.configure({"phm_dims": 4})

"""Bottleneck adapters: where they act, what they add, and how wide they are."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from families import FAMILIES
from peftport.errors import BadInput
from peftport.techniques import technique
from peftport.techniques.adapter import ACTIVATIONS, bottleneck_of, places
from techniques.references import batch, drawn, our_answer
from tiny_runs import host_in

adapter = technique("adapter")
VARIANTS = ("houlsby", "pfeiffer")


def answer_with(host, options, parameters):
    config = adapter.configure(options)
    lanes = {name: tensor[None] for name, tensor in parameters.items()}
    with adapter.attach(host, config, lanes):
        return our_answer(host, batch(host.tokenizer))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_with_a_zero_up_projection_it_leaves_the_host_s_answer(family, variant, tiny_host):
    host = host_in(tiny_host(family))
    options = {"reduction": 4, "variant": variant}
    parameters = drawn(adapter.shapes(adapter.configure(options), host.geometry))
    bare = our_answer(host, batch(host.tokenizer))
    assert (answer_with(host, options, parameters) - bare).abs().max() > 0.1
    silent = {n: torch.zeros_like(t) if ".up." in n else t for n, t in parameters.items()}
    found = answer_with(host, options, silent)
    if variant == "pfeiffer" and host.geometry.kind == "encoder":
        # There the layer's norm is computed once more, by the same function.
        torch.testing.assert_close(found, bare, atol=1e-6, rtol=0)
    else:
        assert torch.equal(found, bare)


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        (
            "llama",
            {},
            {"decoder.0.self": "decoder.0.self.o", "decoder.0.ffn": "decoder.0.ffn.down"},
        ),
        ("llama", {"variant": "pfeiffer"}, {"decoder.0.block": "decoder.0"}),
        (
            "t5",
            {"cross": True},
            {"decoder.0.cross": "decoder.0.cross.o", "encoder.0.ffn": "encoder.0.ffn.down"},
        ),
    ],
)
def test_it_follows_sublayers_or_layers(family, options, expected, tiny_host):
    config = adapter.configure(options)
    found = places(config.variant, config.cross, host_in(tiny_host(family)).geometry)
    assert found.items() >= expected.items()
    of_the_first = {place for place in found if ".0." in place and place.startswith("decoder")}
    assert len(of_the_first) == {"pfeiffer": 1}.get(config.variant, 2 + config.cross)


def test_cross_attention_has_an_adapter_only_where_asked(tiny_host):
    found = host_in(tiny_host("t5")).geometry
    assert not any(".cross" in place for place in places("houlsby", False, found))


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_a_houlsby_adapter_adds_its_bottleneck_to_the_sublayer_s_output(activation, tiny_host):
    host = host_in(tiny_host("llama"))
    options = {"reduction": 4, "activation": activation}
    config = adapter.configure(options)
    parameters = drawn(adapter.shapes(config, host.geometry))
    point = host.geometry.linears["decoder.1.ffn.down"]
    seen = {}

    def keep(what):
        return lambda _module, _inputs, output: seen.__setitem__(what, output)

    layer = host.model.get_submodule(point.path)
    before = layer.register_forward_hook(keep("before"))
    with adapter.attach(host, config, {n: t[None] for n, t in parameters.items()}):
        after = layer.register_forward_hook(keep("after"))
        our_answer(host, batch(host.tokenizer))
    before.remove()
    after.remove()
    place = "decoder.1.ffn"
    down, up = (
        (parameters[f"{place}.{side}.weight"], parameters[f"{place}.{side}.bias"])
        for side in ("down", "up")
    )
    function = {
        "relu": torch.relu,
        "swish": lambda x: x * torch.sigmoid(x),
        "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / 2**0.5)),
        "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    }[activation]
    states = seen["before"]
    added = function(states @ down[0].T + down[1]) @ up[0].T + up[1]
    torch.testing.assert_close(seen["after"], states + added, atol=1e-5, rtol=1e-5)


def test_the_activation_is_that_of_the_variant_unless_said():
    chosen = {variant: adapter.configure({"variant": variant}).nonlinearity for variant in VARIANTS}
    assert chosen == {"houlsby": "swish", "pfeiffer": "relu"}
    assert adapter.configure({"activation": "gelu"}).nonlinearity == "gelu"


@pytest.mark.parametrize(
    ("reduction", "width"), [(1, 32), (16, 2), (3, 10), (2.5, 12), (32, 1), (1000, 1)]
)
def test_the_bottleneck_is_the_width_divided_and_at_least_one(reduction, width, tiny_host):
    found = host_in(tiny_host("bert")).geometry
    assert bottleneck_of(reduction, found) == width
    shapes = adapter.shapes(adapter.configure({"reduction": reduction}), found)
    assert shapes["encoder.1.ffn.down.weight"] == (width, 32)
    assert shapes["encoder.1.ffn.up.weight"] == (32, width)
    assert shapes["encoder.1.ffn.down.bias"] == (width,)
    assert shapes["encoder.1.ffn.up.bias"] == (32,)


def test_a_bottleneck_wider_than_the_host_is_refused(tiny_host):
    with pytest.raises(
        BadInput, match=r"reduction 0\.5 makes a bottleneck wider than the host's 32"
    ):
        adapter.shapes(adapter.configure({"reduction": 0.5}), host_in(tiny_host("bert")).geometry)


def test_its_start_is_adapterhub_s(tiny_host):
    start = adapter.initial(
        adapter.configure({"reduction": 1}),
        host_in(tiny_host("t5")).geometry,
        torch.Generator().manual_seed(0),
    )
    for name, tensor in start.items():
        if name.endswith("bias"):
            assert not tensor.any()
        else:
            assert abs(float(tensor.std()) - 0.02) < 0.002
            assert abs(float(tensor.mean())) < 0.002


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "pfeifer"}, "option 'variant': Input should be 'houlsby' or 'pfeiffer'"),
        ({"reduction": 0}, "option 'reduction': Input should be greater than 0"),
        ({"reducton": 2}, r"option 'reducton': .* Did you mean 'reduction'\?"),
        ({"activation": "tanh"}, "option 'activation': Input should be 'relu', 'swish', 'gelu'"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(BadInput, match=f"technique adapter: {message}"):
        adapter.configure(options)

"""Prefix tuning: in which attentions, of which size, at which positions, and folded on saving."""

from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from families import FAMILIES
from peftport.errors import BadInput
from peftport.techniques import technique
from techniques.references import batch, drawn, our_answer, reference_model
from tiny_runs import host_in

prefix = technique("prefix")
NETWORK = {"length": 5, "reparametrise": True, "bottleneck": 12}


def answer_with(host, config, parameters):
    lanes = {name: tensor[None] for name, tensor in parameters.items()}
    with prefix.attach(host, config, lanes):
        return our_answer(host, batch(host.tokenizer))


def parameters_of(host, options):
    config = prefix.configure(options)
    return config, drawn(prefix.shapes(config, host.geometry))


# What it does


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3", "gemma3_text"])
def test_it_acts_as_past_keys_of_transformers_own_model(family, tiny_host):
    host = host_in(tiny_host(family))
    config, parameters = parameters_of(host, {"length": 3})
    model, inputs = reference_model(family, tiny_host(family)), batch(host.tokenizer)
    mask, cache = inputs["attention_mask"], DynamicCache(config=model.config)
    rows, found = len(mask), host.geometry
    for layer in range(found.stacks["decoder"]):
        keys, values = (
            parameters[f"decoder.{layer}.self.{what}"]
            .view(3, found.kv_heads, found.head_dim)
            .transpose(0, 1)
            .expand(rows, -1, -1, -1)
            for what in ("keys", "values")
        )
        cache.update(keys, values, layer)
    with torch.no_grad():
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=torch.cat([mask.new_ones(rows, 3), mask], dim=1),
            position_ids=3 + torch.arange(mask.shape[1])[None],
            past_key_values=cache,
        ).logits
    theirs = logits[torch.arange(rows), mask.sum(1) - 1]
    ours = answer_with(host, config, parameters)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert (ours - our_answer(host, inputs)).abs().max() > 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_every_key_and_value_has_an_effect(family, tiny_host):
    host = host_in(tiny_host(family))
    config, parameters = parameters_of(host, {"length": 2})
    before = answer_with(host, config, parameters)
    for name, tensor in parameters.items():
        changed = answer_with(host, config, {**parameters, name: tensor + 1.0})
        assert (changed - before).abs().max() > 1e-4, name


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2"])
def test_the_text_begins_after_the_prefix_unless_told_otherwise(family, tiny_host):
    host = host_in(tiny_host(family))
    config, parameters = parameters_of(host, {"length": 4})
    still = prefix.configure({"length": 4, "shift_positions": False})
    shifted, unshifted = (answer_with(host, c, parameters) for c in (config, still))
    assert (shifted - unshifted).abs().max() > 1e-2


def test_nothing_of_it_stays_on_the_host(tiny_host):
    host = host_in(tiny_host("bert"))
    before = our_answer(host, batch(host.tokenizer))
    config, parameters = parameters_of(host, {"length": 4})
    assert not torch.equal(answer_with(host, config, parameters), before)
    assert torch.equal(our_answer(host, batch(host.tokenizer)), before)
    with (
        pytest.raises(RuntimeError, match="in the middle"),
        prefix.attach(host, config, {n: t[None] for n, t in parameters.items()}),
    ):
        assert host.position_shift == 4
        raise RuntimeError("in the middle")
    assert host.position_shift == 0
    assert torch.equal(our_answer(host, batch(host.tokenizer)), before)


# Where and how large


@pytest.mark.parametrize(
    ("family", "attentions", "size"),
    [
        ("t5", {"encoder.self", "decoder.self", "decoder.cross"}, 24),
        ("bert", {"encoder.self"}, 32),
        ("llama", {"decoder.self"}, 16),
        ("qwen3", {"decoder.self"}, 32),
    ],
)
def test_every_attention_has_keys_and_values_of_its_heads(family, attentions, size, tiny_host):
    shapes = prefix.shapes(prefix.configure({"length": 7}), host_in(tiny_host(family)).geometry)
    assert set(shapes.values()) == {(7, size)}
    found = {tuple(name.split(".")) for name in shapes}
    assert {f"{stack}.{which}" for stack, _, which, _ in found} == attentions
    assert len(shapes) == 2 * 2 * len(attentions)


def test_a_prefix_can_be_in_some_attentions_alone(tiny_host):
    host = host_in(tiny_host("t5"))
    config, parameters = parameters_of(host, {"length": 2, "attentions": ("decoder.cross",)})
    assert {name.split(".", 2)[2] for name in parameters} == {"cross.keys", "cross.values"}
    assert not torch.equal(
        answer_with(host, config, parameters), our_answer(host, batch(host.tokenizer))
    )


def test_an_attention_that_the_host_lacks_is_told_what_it_has(tiny_host):
    found = host_in(tiny_host("t5")).geometry
    with pytest.raises(BadInput) as error:
        prefix.shapes(prefix.configure({"attentions": ("encoder.cross",)}), found)
    assert str(error.value) == (
        "prefix: no attention called 'encoder.cross' on a t5 host; "
        "it has encoder.self, decoder.self, decoder.cross."
    )


def test_its_start_is_normal(tiny_host):
    found = host_in(tiny_host("bert")).geometry
    config = prefix.configure({"length": 99, "initial_std": 0.5})
    start = prefix.initial(config, found, torch.Generator().manual_seed(0))
    for tensor in start.values():
        assert abs(float(tensor.std()) - 0.5) < 0.03
        assert abs(float(tensor.mean())) < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "option 'length': Input should be greater than or equal to 1"),
        ({"lenght": 5}, r"option 'lenght': .* Did you mean 'length'\?"),
        ({"reparametrise": "perhaps"}, "option 'reparametrise': Input should be a valid boolean"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(BadInput, match=f"technique prefix: {message}"):
        prefix.configure(options)


# The network that makes it


@pytest.mark.parametrize("family", FAMILIES)
def test_folding_the_network_away_changes_nothing(family, tiny_host):
    host = host_in(tiny_host(family))
    config, parameters = parameters_of(host, NETWORK)
    folded_config, folded = prefix.fold(config, host.geometry, parameters)
    assert not folded_config.reparametrise
    assert {n: tuple(t.shape) for n, t in folded.items()} == prefix.shapes(
        folded_config, host.geometry
    )
    before = answer_with(host, config, parameters)
    torch.testing.assert_close(
        answer_with(host, folded_config, folded), before, atol=1e-6, rtol=1e-6
    )
    assert (before - our_answer(host, batch(host.tokenizer))).abs().max() > 0.1


def test_folding_is_the_network_written_out(tiny_host):
    host = host_in(tiny_host("llama"))
    config, parameters = parameters_of(host, NETWORK)
    _, folded = prefix.fold(config, host.geometry, parameters)
    part = {name.removeprefix("reparametrisation."): t for name, t in parameters.items()}
    for position in range(5):
        hidden = part["down.weight"] @ part["embedding"][position] + part["down.bias"]
        flat = part["up.weight"] @ hidden.tanh() + part["up.bias"]
        found = torch.cat([tensor[position] for tensor in folded.values()])
        torch.testing.assert_close(found, flat)


def test_lanes_are_folded_each_by_its_own_network(tiny_host):
    found = host_in(tiny_host("t5")).geometry
    config = prefix.configure(NETWORK)
    shapes = prefix.shapes(config, found)
    one, other = drawn(shapes, seed=1), drawn(shapes, seed=2)
    both = {name: torch.stack([one[name], other[name]]) for name in shapes}
    _, folded = prefix.fold(config, found, both)
    for lane, alone in enumerate((one, other)):
        _, expected = prefix.fold(config, found, alone)
        for name, tensor in expected.items():
            torch.testing.assert_close(folded[name][lane], tensor, atol=1e-6, rtol=1e-6)


def test_folding_keeps_the_head_and_may_be_done_twice(tiny_host):
    found = host_in(tiny_host("bert")).geometry
    config = prefix.configure(NETWORK)
    head = {"head.weight": torch.ones(2, 32), "head.bias": torch.ones(2)}
    once = prefix.fold(config, found, drawn(prefix.shapes(config, found)) | head)
    twice = prefix.fold(once[0], found, once[1])
    assert torch.equal(once[1]["head.weight"], head["head.weight"])
    assert twice[0] == once[0]
    assert all(torch.equal(twice[1][name], tensor) for name, tensor in once[1].items())

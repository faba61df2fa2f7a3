"""Prefixes act as keys and values before a text's do, and are fitted to act alike elsewhere."""

from __future__ import annotations

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from peftport.hosts import load_host
from peftport.hosts.geometry import Attention
from peftport.porting.activations import observe, run_rows, stack_of
from peftport.techniques import technique
from peftport.techniques.prefix import prefixed_attentions
from peftport.techniques.prefix.fit import (
    Samples,
    Target,
    attended,
    by_head,
    donor_changes,
    fit_prefixes,
    out_weight,
    silent_prefix,
)
from porting.spaces import drawn
from porting.test_activations import passes_of
from tiny_runs import host_in

FAMILIES = ("t5", "bert", "gpt2", "llama", "gemma2", "gpt_oss")
LENGTH = 3
WHAT = ("keys", "values")


def prefix(host, seed: int = 0, size: float = 1.0):
    """A configuration and drawn keys and values for every attention of a host."""
    config = technique("prefix").configure({"length": LENGTH, "shift_positions": False})
    shapes = technique("prefix").shapes(config, host.geometry)
    return config, {n: size * drawn(seed + k, *s) for k, (n, s) in enumerate(shapes.items())}


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 5), st.booleans(), st.integers(0, 999))
def test_a_change_is_what_softmax_over_prefix_and_text_differs_by(
    heads, length, size, biased, seed
):
    query, key, value = (drawn(seed + n, heads, 7, size) for n in range(3))
    keys, values = drawn(seed + 3, heads, length, size), drawn(seed + 4, heads, length, size)
    bias = drawn(seed + 5, 7, heads, length) if biased else None
    scores = query @ key.mT  # (heads, queries, tokens)
    text = scores.softmax(-1) @ value
    samples = Samples(
        query.transpose(0, 1), text.transpose(0, 1), scores.logsumexp(-1).mT.clone(), bias
    )
    before = query @ keys.mT + (bias.transpose(0, 1) if biased else 0)
    both = torch.cat([before, scores], -1).softmax(-1) @ torch.cat([values, value], 1)
    wanted = (both - text).transpose(0, 1).flatten(1)
    assert torch.allclose(samples.change(keys, values), wanted, atol=1e-4)


def test_groups_of_heads_share_keys():
    flat = torch.arange(12.0).view(2, 6)  # (length, kv_heads * head_dim)
    found = by_head(flat, Attention("a", kv_heads=2, head_dim=3), heads=4)
    assert found.shape == (4, 2, 3)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert found[0].tolist() == [[0, 1, 2], [6, 7, 8]]
    assert found[2].tolist() == [[3, 4, 5], [9, 10, 11]]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_an_attention_does_with_text_is_its_own_output(family, tiny_host):
    host = host_in(tiny_host(family))
    rows, points = passes_of(host)[0], host.geometry.attentions
    found = attended(host, rows, points, LENGTH)
    outputs = observe(host, [rows], (), [f"{name}.o" for name in points]).outputs
    for name in points:
        made = found[name].text.flatten(1) @ out_weight(host, name).mT
        module = host.part(host.geometry.linears[f"{name}.o"].path)
        bias = 0.0 if getattr(module, "bias", None) is None else module.bias
        assert torch.allclose(made + bias, outputs[f"{name}.o"], atol=1e-4)
        assert len(made) == len(rows.places[stack_of(name)])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_donor_s_changes_are_what_its_prefixes_do_to_outputs(family, tiny_host):
    """In the first attention, where what stands before is not changed by any prefix; in the
    others beside what the prefixes before them do."""
    host = host_in(tiny_host(family))
    rows, points = passes_of(host)[0], host.geometry.attentions
    config, donor = prefix(host)
    found = donor_changes(host, rows, config, donor, prefixed_attentions(config, host.geometry))
    outs = [f"{name}.o" for name in points]
    lanes = {name: tensor[None] for name, tensor in donor.items()}
    bare = observe(host, [rows], (), outs).outputs
    with technique("prefix").attach(host, config, lanes):
        whole = observe(host, [rows], (), outs).outputs
        texts = attended(host, rows, points, LENGTH)
    first = next(iter(points))
    assert torch.allclose(found[first], whole[f"{first}.o"] - bare[f"{first}.o"], atol=1e-4)
    for name in points:
        module = host.part(host.geometry.linears[f"{name}.o"].path)
        bias = 0.0 if getattr(module, "bias", None) is None else module.bias
        of_text = texts[name].text.flatten(1) @ out_weight(host, name).mT + bias
        assert torch.allclose(found[name], whole[f"{name}.o"] - of_text, atol=1e-3)


def test_a_donor_s_changes_are_those_with_the_embeddings_that_it_brings(tiny_host, tmp_path):
    """As on a host that has these embeddings by itself."""
    host = host_in(tiny_host("llama"))
    config, donor = prefix(host)
    shape = host.model.get_input_embeddings().weight.shape
    rows, brought = passes_of(host)[0], {"embedding.input.weight": drawn(7, *shape)}
    model = AutoModelForCausalLM.from_pretrained(host.folder)
    model.get_input_embeddings().weight.data = brought["embedding.input.weight"].clone()
    shutil.copytree(host.folder, tmp_path / "other")
    model.save_pretrained(tmp_path / "other")
    points = prefixed_attentions(config, host.geometry)
    found = donor_changes(host, rows, config, donor | brought, points)
    wanted = donor_changes(load_host(str(tmp_path / "other")), rows, config, donor, points)
    without = donor_changes(host, rows, config, donor, points)
    for name in points:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found[name], without[name], atol=0.1)


def targets_of(host, rows, config, donor) -> dict[str, Target]:
    changes = donor_changes(host, rows, config, donor, prefixed_attentions(config, host.geometry))
    return {name: Target(change, None) for name, change in changes.items()}


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_a_prefix_that_does_what_is_wanted_is_kept(family, tiny_host):
    host = host_in(tiny_host(family))
    rows = passes_of(host)[0]
    config, donor = prefix(host)
    points = prefixed_attentions(config, host.geometry)
    wanted = targets_of(host, rows, config, donor)
    made, missed = fit_prefixes(host, rows, config, donor, points, wanted, steps=2, rate=0.03)
    assert max(missed.values()) < 1e-6
    for name, tensor in donor.items():
        assert torch.allclose(made[name], tensor, atol=0.01)


@pytest.mark.parametrize("slopes", [False, True])
def test_a_fit_comes_nearer_and_keeps_the_best_of_its_steps(slopes, tiny_host):
    host = host_in(tiny_host("llama"))
    rows = passes_of(host, most=200)[0]
    config, donor = prefix(host)
    _, start = prefix(host, seed=50)
    points = prefixed_attentions(config, host.geometry)
    wanted = targets_of(host, rows, config, donor)
    if slopes:
        gradients = drawn(7, 1, 200, host.geometry.width)
        wanted = {name: Target(each.change, gradients) for name, each in wanted.items()}

    def missed(steps: int, rate: float = 0.03) -> dict[str, float]:
        return fit_prefixes(host, rows, config, start, points, wanted, steps, rate)[1]

    first = "decoder.0.self"  # what later ones start from hangs on those before
    at_start, fitted, wild = missed(0)[first], missed(60)[first], missed(5, rate=100.0)[first]
    assert fitted < 0.5 * at_start
    assert wild <= at_start


@pytest.mark.parametrize("slopes", [False, True])
def test_what_is_missed_is_a_share_of_the_wanted_change_and_of_its_effect(slopes, tiny_host):
    host = host_in(tiny_host("llama"))
    rows = passes_of(host, most=100)[0]
    config, start = prefix(host, seed=50)
    points = prefixed_attentions(config, host.geometry)
    first = "decoder.0.self"
    change, gradients = drawn(3, 100, 32), drawn(4, 2, 100, 32) if slopes else None
    wanted = dict.fromkeys(points, Target(change, gradients))
    _, missed = fit_prefixes(host, rows, config, start, points, wanted, steps=0, rate=0.03)
    samples = attended(host, rows, {first: points[first]}, LENGTH)[first]
    keys, values = (by_head(start[f"{first}.{what}"], points[first], 4) for what in WHAT)
    found = samples.change(keys, values) @ out_weight(host, first).mT
    shares = [float((found - change).square().sum() / change.square().sum())]
    if gradients is not None:
        effect, aim = ((gradients * each).sum(-1) for each in (found - change, change))
        shares.append(float(effect.square().sum() / aim.square().sum()))
    assert missed[first] == pytest.approx(sum(shares) / len(shares), rel=1e-3)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 6), st.integers(0, 999))
def test_next_to_no_query_looks_at_a_silent_prefix(kv_heads, groups, size, seed):
    """Where the queries of a head have a direction in common, as those of pretrained hosts."""
    heads = kv_heads * groups
    common = drawn(seed, kv_heads, size)
    common = 3 * common / common.norm(dim=1, keepdim=True)
    query = common.repeat_interleave(groups, 0) + 0.3 * drawn(seed + 1, 80, heads, size)
    text, mass = drawn(seed + 2, 80, heads, size), drawn(seed + 3, 80, heads)
    samples = Samples(query, text, mass, None)
    keys, values = silent_prefix(samples, Attention("a", kv_heads, size), LENGTH)
    assert keys.shape == values.shape == (LENGTH, kv_heads * size)
    found = samples.change(
        *(by_head(each, Attention("a", kv_heads, size), heads) for each in (keys, values))
    )
    looked = found.unflatten(1, (heads, size)).norm(dim=2) / text.norm(dim=2)  # (samples, heads)
    assert looked.quantile(0.9) < 1e-3


def test_an_attention_that_nothing_is_wanted_of_gets_a_silent_prefix(tiny_host):
    host = host_in(tiny_host("llama"))
    rows = passes_of(host, most=100)[0]
    config, donor = prefix(host)
    points = prefixed_attentions(config, host.geometry)
    wanted = {"decoder.0.self": Target(None, None)}
    wanted["decoder.1.self"] = targets_of(host, rows, config, donor)["decoder.1.self"]
    made, missed = fit_prefixes(host, rows, config, donor, points, wanted, steps=3, rate=0.03)
    assert missed.keys() == {"decoder.1.self"}
    samples = attended(host, rows, {"decoder.0.self": points["decoder.0.self"]}, LENGTH)
    keys, values = silent_prefix(samples["decoder.0.self"], points["decoder.0.self"], LENGTH)
    assert torch.equal(made["decoder.0.self.keys"], keys)
    assert not values.any() and not made["decoder.0.self.values"].any()
    shapes = technique("prefix").shapes(config, host.geometry)
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == shapes


def test_nothing_stays_attached_after_a_fit(tiny_host):
    host = host_in(tiny_host("llama"))
    rows = passes_of(host, most=50)[0]
    config, donor = prefix(host)
    points = prefixed_attentions(config, host.geometry)
    before = observe(host, [rows], (), ("decoder.1",)).outputs["decoder.1"]
    fit_prefixes(host, rows, config, donor, points, targets_of(host, rows, config, donor), 1, 0.03)
    with torch.no_grad():
        run_rows(host, rows)
    assert torch.equal(observe(host, [rows], (), ("decoder.1",)).outputs["decoder.1"], before)
    assert host.position_shift == 0

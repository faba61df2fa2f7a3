"""What a port looks at on a host, and what that costs."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from families import FAMILIES, KINDS
from peftport.hosts.streaming import layer_paths
from peftport.porting.activations import Spaces, observe
from peftport.porting.grades import ClassGrade
from peftport.porting.reading import TokenRows
from peftport.porting.walk import Walk
from peftport.training.readout import ClassReadout
from techniques.references import batch
from tiny_runs import host_in


def rows_of(host) -> TokenRows:
    """The texts of other tests with every token of theirs as a place, padding left out."""
    inputs = batch(host.tokenizer)
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    places = mask.flatten().nonzero()[:, 0]
    if host.geometry.kind == "encoder-decoder":
        return TokenRows(ids, mask, ids, {"encoder": places, "decoder": places})
    return TokenRows(ids, mask, None, {host.geometry.kind: places})


@pytest.mark.parametrize("most", [1, 2, 64])
def test_the_parts_are_no_wider_than_their_texts_and_keep_their_places(most, tiny_host):
    rows = rows_of(host_in(tiny_host("llama")))
    parts = list(rows.parts(most))
    lengths = rows.attention_mask.sum(1).split(most)
    assert [tuple(p.input_ids.shape) for p in parts] == [(len(n), int(n.max())) for n in lengths]
    found = torch.cat([part.input_ids.flatten()[part.places["decoder"]] for part in parts])
    assert torch.equal(found, rows.input_ids.flatten()[rows.places["decoder"]])


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_what_each_place_reads_and_are_kept_once(family, tiny_host):
    host = host_in(tiny_host(family))
    rows = rows_of(host)
    points = list(host.geometry.linears)
    seen = observe(host, [rows], points, ())
    for point in points:
        alone = observe(host, [rows], [point], ())
        assert torch.equal(seen.inputs[point], alone.inputs[point]), point
    different = {id(tensor) for tensor in seen.inputs.values()}
    stacks = host.geometry.stacks
    cross = 3 if KINDS[family] == "encoder-decoder" else 0  # queries, the encoder's states, output
    assert len(different) == sum(4 * n for n in stacks.values()) + cross * stacks.get("decoder", 0)


@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
def test_of_the_vocabulary_no_more_than_the_label_words_is_multiplied(
    family, tiny_host, monkeypatch
):
    """A quarter of a million tokens would cost more than the rest of a small host."""
    host = host_in(tiny_host(family))
    rows = rows_of(host)
    linear, widths = functional.linear, []

    def noted(states, weight, bias=None):
        widths.append(len(weight))
        return linear(states, weight, bias)

    monkeypatch.setattr(functional, "linear", noted)
    points = ["decoder.0.self.v", "decoder.1.ffn.down"]
    layers = list(
        Walk(host, [rows], ClassGrade(ClassReadout(2, (5, 3)))).layers(
            Spaces((), (), tuple(points))
        )
    )
    seen = observe(host, [rows], points, points)
    assert host.geometry.vocabulary not in widths
    gradients = {point: g for layer in layers for point, g in layer.gradients.items()}
    for point in points:
        assert gradients[point].shape == (1, *seen.outputs[point].shape)
        assert gradients[point].any()


@pytest.mark.parametrize("family", ["llama", "bert", "t5"])
def test_a_walk_sees_what_an_observer_of_the_whole_host_sees(family, tiny_host):
    """Layer by layer, the last one first, each with its own places alone."""
    host = host_in(tiny_host(family))
    rows = rows_of(host)
    points = tuple(host.geometry.linears)
    whole = observe(host, [rows], points, points)
    walked = []
    for layer in Walk(host, [rows]).layers(Spaces(points, points, points)):
        walked.append(layer.name)
        assert not layer.gradients
        for side in ("inputs", "outputs"):
            for point, states in getattr(layer.observed, side).items():
                assert point.startswith(f"{layer.name}.")
                assert torch.allclose(states, getattr(whole, side)[point], atol=1e-5), point
    assert walked == list(reversed(host.geometry.blocks))
    assert not any("forward" in vars(host.part(path)) for path in layer_paths(host).values())


def test_a_layer_is_run_in_parts_of_few_tokens_and_all_rows_are_seen(tiny_host, monkeypatch):
    host = host_in(tiny_host("llama"))
    rows = rows_of(host)
    monkeypatch.setattr("peftport.porting.reading.tokens_at_once", lambda _: 1)
    wanted = Spaces(("decoder.0.self.q",), ("decoder.1.ffn.up",), ("decoder.1.ffn.up",))
    last, first = Walk(host, [rows], ClassGrade(ClassReadout(2, (5, 3)))).layers(wanted)
    whole = observe(host, [rows], wanted.inputs, wanted.outputs)
    assert torch.allclose(
        first.observed.inputs["decoder.0.self.q"], whole.inputs["decoder.0.self.q"], atol=1e-5
    )
    assert torch.allclose(
        last.observed.outputs["decoder.1.ffn.up"], whole.outputs["decoder.1.ffn.up"], atol=1e-5
    )

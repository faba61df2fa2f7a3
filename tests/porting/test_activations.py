"""What is observed is what the host computes: held against its own weights and its own scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from peftport.porting.activations import contrasts_of, observe, path_of, run_rows, stack_of
from peftport.porting.reading import TokenRows, read_pair, task_of
from peftport.porting.walk import label_gradients
from peftport.techniques.head import initial_head
from peftport.training import readout_of
from peftport.training.readout import ClassReadout, class_logits
from tiny_runs import host_in, task_in
from tiny_words import opinions

FAMILIES = ("t5", "bert", "gpt2", "llama")


def passes_of(host, most: int = 10_000) -> list[TokenRows]:
    starts = (0, 0) if host.geometry.kind == "encoder-decoder" else (None, None)
    both, texts = (host.tokenizer, host.tokenizer), opinions(70, 3)[0]
    task, draw = task_of({"labels": [0, 1]}), torch.Generator().manual_seed(0)
    return read_pair(both, starts, task, host.geometry.kind, texts, most, draw)[0]


def weight_and_bias(host, point: str) -> tuple[Tensor, Tensor | float]:
    linear = host.geometry.linears[point]
    module = host.part(linear.path)
    bias = getattr(module, "bias", None)
    return module.weight.mT if linear.transposed else module.weight, 0.0 if bias is None else bias


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_of_linear_layers_are_their_weights_times_their_inputs(family, tiny_host):
    """At all places, of all layers, on the rows of all passes."""
    host = host_in(tiny_host(family))
    passes = passes_of(host)
    points = tuple(host.geometry.linears)
    seen = observe(host, passes, points, points)
    for point, linear in host.geometry.linears.items():
        inputs, outputs = seen.inputs[point], seen.outputs[point]
        places = sum(len(rows.places[stack_of(point)]) for rows in passes)
        assert inputs.shape == (places, linear.inputs)
        assert outputs.shape == (places, linear.outputs)
        weight, bias = weight_and_bias(host, point)
        assert torch.allclose(inputs @ weight.mT + bias, outputs, atol=1e-4)


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_keys_and_values_are_those_of_the_layers_that_make_them(family, tiny_host):
    """These families do not rotate them."""
    host = host_in(tiny_host(family))
    names = [
        (f"{attention}.{what}", f"{attention}.{role}")
        for attention in host.geometry.attentions
        for what, role in (("keys", "k"), ("values", "v"))
    ]
    seen = observe(host, passes_of(host), (), [name for pair in names for name in pair])
    for used, made in names:
        assert torch.allclose(seen.outputs[used], seen.outputs[made], atol=1e-5)


def test_keys_of_a_host_that_rotates_are_as_long_as_before(tiny_host):
    host = host_in(tiny_host("llama"))
    used, made = "decoder.1.self.keys", "decoder.1.self.k"
    seen = observe(host, passes_of(host), (), (used, made)).outputs
    assert not torch.allclose(seen[used], seen[made], atol=1e-2)
    assert torch.allclose(seen[used].norm(dim=1), seen[made].norm(dim=1), atol=1e-4)


def test_only_the_kept_places_are_seen_and_in_their_order(tiny_host):
    host = host_in(tiny_host("llama"))
    whole, some = passes_of(host), passes_of(host, most=11)
    point = "decoder.1"
    every = observe(host, whole, (), (point,)).outputs[point]
    few = observe(host, some, (), (point,)).outputs[point]
    kept = whole[0].places["decoder"].tolist()
    where = [kept.index(place) for place in some[0].places["decoder"].tolist()]
    assert len(few) == 11
    assert torch.equal(few, every[where])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_tell_how_scores_move_with_an_output(family, tiny_host, tiny_task):
    """A small change of all kept places of an output moves the contrast of the scores by the
    gradients times the change."""
    host, task = host_in(tiny_host(family)), task_in(tiny_task)
    rows = passes_of(host)[0]
    alone = initial_head(host.geometry, 2, torch.Generator())
    head = {n: t[None] for n, t in alone.items()}
    readout = readout_of(host, task)
    points = [point for point in host.geometry.linears if point.endswith((".o", ".down"))]
    found = label_gradients(host, rows, points, readout, alone)
    for point in points:
        gradient = found[point]
        assert gradient.shape == (1, len(rows.places[stack_of(point)]), host.geometry.width)
        step = 1e-2 * gradient[0] / (gradient.norm() + 1e-12)
        moved = contrast(host, rows, readout, head, point, step)
        moved -= contrast(host, rows, readout, head, point, -step)
        wanted = 2 * float((gradient[0] * step).sum())
        assert moved == pytest.approx(wanted, rel=0.05, abs=2e-4)


def test_gradients_of_several_contrasts_do_not_add_up(tiny_host):
    """The contrasts of three classes cancel, and so do their gradients; none is nothing."""
    host = host_in(tiny_host("bert"))
    head = initial_head(host.geometry, 3, torch.Generator())
    point = "encoder.0.self.o"
    found = label_gradients(host, passes_of(host)[0], (point,), ClassReadout(3, None), head)[point]
    assert len(found) == 3
    assert (found.flatten(1).norm(dim=1) > 1e-3).all()
    assert torch.allclose(found.sum(0), torch.zeros_like(found[0]), atol=1e-5)


def contrast(
    host, rows: TokenRows, readout: ClassReadout, head, point: str, change: Tensor
) -> float:
    """Sum over the rows of the second score less the first, with a change at kept places."""
    total = 0.0
    begin = 0
    for part in rows.parts():
        places = part.places[stack_of(point)]
        mine = change[begin : begin + len(places)]
        begin += len(places)

        def shift(_module, _given, made, places=places, mine=mine):
            states = made.clone()
            states.flatten(0, 1)[places] += mine
            return states

        handle = host.part(path_of(host.geometry, point)).register_forward_hook(shift)
        with torch.no_grad():
            scores = class_logits(host, part, head, readout, whole=True)
        handle.remove()
        total += float((scores[:, 1] - scores[:, 0]).double().sum())
    return total


def test_nothing_stays_attached(tiny_host, tiny_task):
    host = host_in(tiny_host("llama"))
    rows = passes_of(host)[0]
    observe(host, [rows], ("decoder.0.self.q",), ("decoder.0.self.keys", "decoder.0"))
    readout = readout_of(host, task_in(tiny_task))
    label_gradients(host, rows, ("decoder.0.self.o",), readout, {})
    assert not any(module._forward_hooks for module in host.model.modules())
    assert all(parameter.grad is None for parameter in host.model.parameters())
    with torch.no_grad():
        run_rows(host, rows)


@pytest.mark.parametrize("classes", [2, 3, 8, 9, 40])
def test_contrasts_tell_classes_apart_and_what_all_share_does_not_count(classes):
    found = contrasts_of(classes)
    assert len(found) == (1 if classes == 2 else min(classes, 8))
    assert torch.allclose(found.sum(1), torch.zeros(len(found)), atol=1e-5)
    assert torch.linalg.matrix_rank(found) == min(len(found), classes - 1)


def test_cross_attention_reads_keys_and_values_off_the_encoder():
    of_encoder = ("decoder.0.cross.k", "decoder.0.cross.values", "encoder.1", "encoder.0.self.q")
    assert {stack_of(point) for point in of_encoder} == {"encoder"}
    of_decoder = ("decoder.0.cross.q", "decoder.0.cross.o", "decoder.0.self.k", "decoder.1")
    assert {stack_of(point) for point in of_decoder} == {"decoder"}

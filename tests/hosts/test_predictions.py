"""The head is read a few places at a time: the same numbers and gradients, and never all logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from families import ALL_KINDS
from peftport.hosts import load_host, predictions
from peftport.hosts.host import Host
from peftport.hosts.predictions import Predictions, acting_as
from peftport.tasks.batches import Batch
from peftport.techniques.base import stack_lanes
from peftport.techniques.embeddings import replaced
from peftport.training import readout_of
from techniques.references import batch, drawn, target_logits
from tiny_runs import distance, host_in, start_of
from written_rows import pairs, write_splits

WRITERS = [family for family, kind in ALL_KINDS.items() if kind != "encoder"]
FAR_APART = ["llama", "gemma2", "granite", "t5", "t5-v1.0", "gpt2"]
"""Families that do something else with logits, or tie their heads, or not."""


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "LOGITS", 1)
    monkeypatch.setattr(predictions, "FEWEST", 3)


def rows_for(host: Host) -> Batch:
    """Two lanes of rows, with tokens asked for in each."""
    inputs = batch(host.tokenizer)
    ids, mask = (torch.cat([part, part.flip(0)]) for part in inputs.values())
    place, last = torch.arange(ids.shape[1]), mask.sum(1, keepdim=True) - 1
    labels = ids.roll(-1, 1).where((place < last) & (place >= 1), -100)
    return Batch(ids, mask, labels)


def all_logits(host: Host, rows: Batch) -> Tensor:
    """Logits as the model gives them, with their whole graph: (places, vocabulary)."""
    inputs: dict[str, Any] = {"input_ids": rows.input_ids}
    if host.geometry.kind == "encoder-decoder":
        start = torch.zeros(len(rows.labels), 1, dtype=torch.long)
        before = torch.cat([start, rows.labels[:, :-1].clamp(min=0)], dim=1)
        inputs |= {"attention_mask": rows.attention_mask.bool()[:, None, None]}
        inputs |= {"decoder_input_ids": before}
    return host.model(**inputs, use_cache=False).logits[rows.labels >= 0]


def lane_losses(logits: Tensor, labels: Tensor, lanes: int) -> Tensor:
    """Each lane's mean cross-entropy of a token, the plain way."""
    rows, _ = (labels >= 0).nonzero(as_tuple=True)
    tokens = functional.cross_entropy(logits, labels[labels >= 0], reduction="none")
    lane = rows * lanes // len(labels)
    total = tokens.new_zeros(lanes).index_add(0, lane, tokens)
    return total / tokens.new_zeros(lanes).index_add(0, lane, torch.ones_like(tokens))


def under_lora(host: Host, losses: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of two lanes' modules, and the gradients of all their tensors."""
    made, config, start = start_of("lora", host, [0, 1])
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in start.items()}
    lanes = stack_lanes([drawn(shapes, seed) for seed in (0, 1)])
    lanes = {name: tensor.requires_grad_() for name, tensor in lanes.items()}
    with made.attach(host, config, lanes):
        found = losses(lanes)
        found.sum().backward()
    return found.detach(), {name: tensor.grad for name, tensor in lanes.items()}


def both_ways(host: Host, folder: Any) -> list[tuple[Tensor, dict[str, Tensor]]]:
    rows, task = rows_for(host), task_of(folder)
    readout = readout_of(host, task)
    return [
        under_lora(host, lambda lanes: readout.losses(host, rows, lanes, 2)),
        under_lora(host, lambda _: lane_losses(all_logits(host, rows), rows.labels, 2)),
    ]


def task_of(folder: Any) -> Any:
    from peftport.tasks import load_task

    return load_task(str(write_splits(folder, pairs(), train=4)), kind="completion", max_tokens=64)


@pytest.mark.parametrize("family", FAR_APART)
def test_losses_and_gradients_are_those_of_all_logits_bit_for_bit(family, tiny_host, tmp_path):
    (losses, found), (expected, plain) = both_ways(host_in(tiny_host(family)), tmp_path)
    assert torch.equal(losses, expected)
    for name in plain:
        assert torch.equal(found[name], plain[name]), name


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize("family", FAR_APART)
def test_a_few_places_at_a_time_give_the_same(family, tiny_host, tmp_path):
    (losses, found), (expected, plain) = both_ways(host_in(tiny_host(family)), tmp_path)
    torch.testing.assert_close(losses, expected, atol=1e-6, rtol=0)
    assert distance(found, plain) < 3e-6  # products of three rows are summed in another order


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize("family", WRITERS)
def test_every_family_does_with_its_logits_what_it_does(family, tiny_host):
    host = host_in(tiny_host(family))
    rows = rows_for(host)
    with torch.no_grad():
        expected = all_logits(host, rows)
    found = target_logits(host, rows.input_ids, rows.attention_mask, rows.labels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize("known", [True, False])
def test_gradients_are_derivatives(known):
    """In double precision, by differences; of losses whose weights are known before and not."""
    torch.manual_seed(0)
    head, tokens = torch.randn(11, 4).double(), torch.randint(11, (8,))
    weights = torch.rand(8).double() + 0.5

    def read_out(states: Tensor) -> Tensor:
        return 2 * torch.tanh(states @ head.mT / 2)

    def total(states: Tensor) -> Tensor:
        whole = Predictions(states, 11, read_out)
        return (whole.nats(tokens, weights if known else None) * weights).sum()

    assert torch.autograd.gradcheck(total, torch.randn(8, 4).double().requires_grad_())


def test_a_head_with_a_bias_is_read_with_it(tiny_host, tmp_path):
    host = load_host(str(tiny_host("llama")))
    head = host.model.get_output_embeddings()
    head.bias = nn.Parameter(torch.linspace(-3, 3, len(head.weight)), requires_grad=False)
    (losses, found), (expected, plain) = both_ways(host, tmp_path)
    assert torch.equal(losses, expected)
    assert all(torch.equal(found[name], plain[name]) for name in plain)


class Largest(TorchDispatchMode):
    """Watches how many numbers the largest tensor has that anything gives."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = out if isinstance(out, (tuple, list)) else (out,)
        self.numbers = max([self.numbers, *(t.numel() for t in given if isinstance(t, Tensor))])
        return out


@pytest.mark.usefixtures("few_at_a_time")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["llama", "t5"])
def test_all_logits_are_never_there_at_a_time(family, precision, tiny_host):
    host = load_host(str(tiny_host(family)), precision=precision)
    words, wide = 20_000, host.geometry.width
    grown = {"embedding.output.weight": torch.randn(words, wide)}
    rows = rows_for(host)
    places = int((rows.labels >= 0).sum())
    states = torch.randn(places, wide)
    with replaced(host, None, grown), Largest() as seen:
        whole = host.predictions(rows.input_ids, rows.attention_mask, rows.labels)
        moved = Predictions(states.requires_grad_(), words, whole.read_out)
        moved.nats(rows.labels[rows.labels >= 0]).sum().backward()
        assert all(len(logits) <= 3 for _, logits in whole.parts())
    assert places > 30
    assert states.grad is not None
    assert 3 * words <= seen.numbers <= max(3, wide) * words < places * words


# bfloat16


@pytest.mark.parametrize("family", FAR_APART)
def test_in_bfloat16_losses_and_gradients_are_near(family, tiny_host, tmp_path):
    """Of the head alone: its host multiplies in single precision."""
    full, low = host_in(tiny_host(family)), load_host(str(tiny_host(family)), precision="bf16")
    head = full.model.get_output_embeddings()
    product = low.model.get_output_embeddings().forward
    with acting_as(head, product):
        (losses, found), (_, plain) = both_ways(full, tmp_path)
    (expected, exact), _ = both_ways(full, tmp_path)
    assert 0 < (losses - expected).abs().max() < 0.02
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert 0 < distance(found, exact) < 0.02


def test_in_bfloat16_a_module_has_its_own_head_and_the_host_its_own_again(tiny_host):
    folder = tiny_host("llama")
    full, low = host_in(folder), load_host(str(folder), precision="bf16")
    rows = rows_for(full)
    own = {"embedding.output.weight": torch.randn(50, full.geometry.width)}

    def logits(host: Host, brought: dict[str, Tensor]) -> Tensor:
        with replaced(host, None, brought):
            return target_logits(host, rows.input_ids, rows.attention_mask, rows.labels)

    before = logits(low, {})
    for brought in (own, {}):
        expected, found = logits(full, brought), logits(low, brought)
        assert found.shape == expected.shape
        assert (found - expected).norm() / expected.norm() < 0.02
    assert torch.equal(found, before)
    head = low.model.get_output_embeddings()
    assert head.weight.dtype == torch.float32


def test_a_host_writes_with_the_head_that_it_is_tested_with(tiny_host):
    """What is most probable is found by the same product as losses are."""
    from peftport.kinds.writing import Writing, write

    host = load_host(str(tiny_host("llama")), precision="bf16")
    ids = batch(host.tokenizer)["input_ids"][:1, :4]
    ((first,),) = write(host, ids.tolist(), 1, Writing(1, ()))
    labels = torch.full_like(ids, -100)
    labels[0, -1] = 1
    logits = target_logits(host, ids, torch.ones_like(ids), labels)
    assert first == [int(logits.argmax())]


def test_label_words_are_read_in_single_precision(tiny_host):
    low = load_host(str(tiny_host("t5")), precision="bf16")
    inputs = batch(low.tokenizer)
    found = low.next_token_logits(**inputs)
    head = low.model.get_output_embeddings()
    with acting_as(head, lambda states: functional.linear(states, head.weight)):
        assert torch.equal(low.next_token_logits(**inputs), found)
    assert not torch.equal(found, found.bfloat16().float())

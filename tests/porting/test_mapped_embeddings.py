"""Embeddings that a module brings along, mapped: on twins, whose right answer is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from peftport.hosts.host import Host
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.porting.embeddings import embedding
from peftport.porting.means import Means, side
from peftport.techniques.embeddings import brought
from porting.test_procrustes import answers, calibration, missed, module_of, twin
from tiny_hosts import drawn_like
from tiny_runs import host_in, task_in

__all__ = ["twin"]

INPUT, OUTPUT = "embedding.input", "embedding.output"
KINDS = ("input rows", "output rows", "both", "factors")


def with_embeddings(module: Module, host: Host, kind: str) -> Module:
    """A LoRA with changes of its host's embeddings beside."""
    made = dict(module.tensors)
    here = side(host.name)
    rank = module.config.rank
    for name in (INPUT, OUTPUT):
        own = embedding(here, name).float()
        if kind in (f"{name[10:]} rows", "both"):
            made[f"{name}.weight"] = own + 0.5 * own.std() * drawn_like(own, name)
        if kind == "factors":
            tokens, width = own.shape
            shapes = [(rank, tokens), (width, rank)]
            shapes = shapes if name == INPUT else [(rank, width), (tokens, rank)]
            for factor, shape in zip("AB", shapes, strict=True):
                drawn = drawn_like(torch.zeros(shape), name + factor)
                made[f"{name}.lora_{factor}"] = 0.3 * own.std().sqrt() * drawn
    record = module.record.model_copy(update={"embeddings": brought(made)})
    return Module(record, made)


def carried(
    module: Module,
    origin: Host,
    receiver: Host,
    method: str,
    allow_partial: bool = False,
    **options: Any,
) -> Any:
    name = HostName(name=receiver.name, fingerprint=receiver.fingerprint)
    means = Means(side(origin.name), side(receiver.name), calibration())
    how = {"options": options, "means": means, "allow_partial": allow_partial}
    return port(module, receiver.geometry, name, method, **how)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "how", "family"),
    [
        ("procrustes", "permuted", "llama"),
        ("procrustes", "rotated", "llama"),
        ("procrustes", "wider", "llama"),
        ("procrustes", "permuted", "gpt2"),
        ("procrustes", "permuted", "gemma3_text"),
        ("procrustes", "rotated", "t5"),
        ("correlation", "permuted", "llama"),
    ],
)
def test_on_a_twin_embeddings_do_what_they_did(
    method: str, how: str, family: str, kind: str, tiny_host: Any, twin: Any, tiny_task: Any
) -> None:
    host, other = host_in(tiny_host(family)), host_in(twin(how, family))
    task = task_in(tiny_task)
    module = with_embeddings(module_of("lora", host, task), host, kind)
    wanted, bare = answers(host, module, task), answers(host, None, task)
    alone = answers(host, module_of("lora", host, task), task)
    assert missed(alone, wanted, bare) > 0.1, "the embeddings do something"
    beyond = family == "t5"  # which has rows that are no token's
    made = carried(module, host, other, method, allow_partial=beyond, prior=False)
    assert missed(answers(other, made.module, task), wanted, bare) < 0.02
    brought_along = [e for e in made.account.entries if (e.source or "").startswith("embedding.")]
    assert {e.action for e in brought_along} - {"mapped", "copied"} == (
        {"dropped"} if beyond else set()
    )
    assert any(e.action == "mapped" for e in brought_along)
    if kind != "factors":
        whole = [e for e in brought_along if e.target]
        assert all("added to the host's own" in e.why for e in whole)


@pytest.mark.parametrize("method", ["subspace", "prolora"])
def test_a_subspace_that_is_the_whole_space_adds_each_change_to_the_host_s_own_row(
    method: str, tiny_host: Any, tiny_continuation: Any, tiny_task: Any
) -> None:
    host, other = host_in(tiny_host("llama")), host_in(tiny_continuation("llama"))
    module = with_embeddings(module_of("lora", host, task_in(tiny_task)), host, "both")
    made = carried(module, host, other, method, rank=host.geometry.width).module
    for name in (INPUT, OUTPUT):
        before, own = (embedding(side(each.name), name) for each in (host, other))
        change = module.tensors[f"{name}.weight"] - before
        torch.testing.assert_close(made.tensors[f"{name}.weight"], own + change)
        assert not torch.equal(own, before)


@pytest.mark.parametrize("method", ["subspace", "procrustes", "correlation"])
def test_rows_that_are_not_changed_stay_the_receiving_host_s(
    method: str, tiny_host: Any, twin: Any, tiny_task: Any
) -> None:
    """Also of a module that is stored less exactly than its host."""
    host, other = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    module = module_of("lora", host, task_in(tiny_task))
    rows = embedding(side(host.name), INPUT).bfloat16().float()
    rows[7] += 1.0
    tensors = module.tensors | {f"{INPUT}.weight": rows}
    update = {"embeddings": brought(tensors), "dtype": "bfloat16"}
    module = Module(module.record.model_copy(update=update), tensors)
    made = carried(module, host, other, method)
    found: Tensor = made.module.tensors[f"{INPUT}.weight"]
    own = embedding(side(other.name), INPUT).bfloat16().float()
    assert torch.nonzero((found != own).any(1)).flatten().tolist() == [7]
    (entry,) = (e for e in made.account.entries if e.source == f"{INPUT}.weight")
    assert "1 of 1 tokens" in entry.why


def test_rows_of_tokens_that_the_originating_host_has_not_have_no_change(
    tiny_host: Any, twin: Any, tiny_task: Any
) -> None:
    host, other = host_in(tiny_host("llama")), host_in(twin("permuted", "llama"))
    module = module_of("lora", host, task_in(tiny_task))
    rows = embedding(side(host.name), INPUT)
    rows = torch.cat([rows, torch.ones(3, rows.shape[1])])
    rows[7] += 1.0
    tensors = module.tensors | {f"{INPUT}.weight": rows}
    record = module.record.model_copy(update={"embeddings": brought(tensors)})
    made = carried(Module(record, tensors), host, other, "procrustes", allow_partial=True)
    told = [e.why for e in made.account.entries if e.source == f"{INPUT}.weight"]
    assert told[0].startswith("changes of rows of 1 of 4 tokens")
    assert told[1].startswith("3 of 4 tokens are not in the receiving host's vocabulary")

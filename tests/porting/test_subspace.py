"""Subspace and ProLoRA, held against plain decompositions and hosts that are the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.host import Host
from peftport.modules import HostName, Module
from peftport.porting import port
from peftport.porting.means import Means, side
from peftport.porting.subspace import singular_vectors
from peftport.techniques import technique
from peftport.training.module import as_module, initial_module
from tiny_hosts import drawn_like
from tiny_runs import CASES, host_in, task_in


def module_of(case: str, host: Host, task: Any) -> Module:
    name, options = CASES[case]
    made = technique(name)
    config = made.configure(options)
    start = initial_module(made, config, host, 2, 0)
    tensors = {n: t + drawn_like(t, n) for n, t in start.items()}
    return as_module(made, config, host, tensors, task.record(), 0, {})


def ported(module: Module, origin: Host, receiver: Host, method: str, **options: Any) -> Module:
    name = HostName(name=receiver.name, fingerprint=receiver.fingerprint)
    means = Means(side(origin.name), side(receiver.name))
    return port(
        module, receiver.geometry, name, method, options=options, means=means, seed=3
    ).module


def change(module: Module, point: str) -> Tensor:
    return module.tensors[f"{point}.lora_B"] @ module.tensors[f"{point}.lora_A"]


@pytest.mark.parametrize("method", ["subspace", "prolora"])
@pytest.mark.parametrize("family", ["t5", "bert", "llama", "gpt2", "gemma3_text"])
def test_the_whole_space_of_the_same_host_changes_nothing(
    method: str, family: str, tiny_host: Any, tiny_task: Path
) -> None:
    host = host_in(tiny_host(family))
    module = module_of("lora", host, task_in(tiny_task))
    found = ported(module, host, host, method, rank=512)
    for point in {name.rpartition(".")[0] for name in module.tensors if "lora" in name}:
        # A weight that is not square spans its smaller side alone; prolora carries the rest.
        linear = host.geometry.linears[point]
        if method == "prolora" or linear.inputs == linear.outputs:
            assert torch.allclose(change(found, point), change(module, point), atol=1e-4)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_subspace_is_a_plain_projection_on_the_receiving_weights(
    family: str, tiny_host: Any, tiny_continuation: Any, tiny_task: Path
) -> None:
    host, other = host_in(tiny_host(family)), host_in(tiny_continuation(family))
    module = module_of("lora", host, task_in(tiny_task))
    found = ported(module, host, other, "subspace", rank=5)
    point = next(n for n in module.tensors if n.endswith("lora_A")).removesuffix(".lora_A")
    weight = other.model.get_submodule(other.geometry.linears[point].path).weight
    left, _, right = torch.linalg.svd(weight)
    left, right = left[:, :5], right[:5].mT
    plain = left @ left.mT @ change(module, point) @ right @ right.mT
    assert torch.allclose(change(found, point), plain, atol=1e-4)


def test_between_hosts_of_one_width_the_originating_weights_are_not_read(
    tiny_host: Any, tiny_task: Path, tmp_path: Path
) -> None:
    host = host_in(tiny_host("llama"))
    module = module_of("lora", host, task_in(tiny_task))
    absent = replace(side(host.name), folder=tmp_path)  # a folder without weights
    name = HostName(name=host.name, fingerprint=host.fingerprint)
    means = Means(absent, side(host.name))
    made = port(module, host.geometry, name, "subspace", means=means)
    assert made.account.problem is None
    with pytest.raises(BadInput):
        port(module, host.geometry, name, "prolora", means=means)


def test_a_large_weight_is_decomposed_as_a_plain_one_is() -> None:
    draw = torch.Generator().manual_seed(0)
    left, _ = torch.linalg.qr(torch.randn(600, 600, generator=draw))
    right, _ = torch.linalg.qr(torch.randn(700, 600, generator=draw))
    values = 0.9 ** torch.arange(600)
    found = singular_vectors((left * values) @ right.mT, 8, draw)
    for basis, plain in zip(found, (left[:, :8], right[:, :8]), strict=True):
        assert torch.linalg.svdvals(basis.mT @ plain).min() > 0.999


@pytest.mark.parametrize("rank", [0, 1, 100])
def test_vectors_of_a_weight_of_low_rank_are_orthonormal(rank: int) -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(600, rank, generator=draw) @ torch.randn(rank, 700, generator=draw)
    for basis in singular_vectors(weight, 64, draw):
        assert torch.allclose(basis.mT @ basis, torch.eye(64), atol=1e-5)
        assert basis.isfinite().all()


def test_a_weight_in_bfloat16_has_the_singular_vectors_of_its_values() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.arange(1, 601) ** -0.5  # they fall as slowly as those of pretrained weights
    left, _ = torch.linalg.qr(torch.randn(700, 600, generator=draw))
    right, _ = torch.linalg.qr(torch.randn(600, 600, generator=draw))
    weight = ((left * values) @ right.mT).to(torch.bfloat16)
    found = singular_vectors(weight, 8, draw)
    plain = singular_vectors(weight.float(), 8, draw)
    for basis, wanted in zip(found, plain, strict=True):
        assert basis.dtype == torch.float32
        assert torch.linalg.svdvals(basis.mT @ wanted).min() > 0.99


def test_other_techniques_are_refused_with_the_methods_that_apply(
    tiny_host: Any, tiny_task: Path
) -> None:
    host = host_in(tiny_host("llama"))
    module = module_of("houlsby", host, task_in(tiny_task))
    with pytest.raises(BadInput, match=r"it ports lora, not adapter.*procrustes"):
        ported(module, host, host, "subspace")

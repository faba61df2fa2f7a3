"""What a worker surely holds is never more than what it does hold: weights, autograd's, words."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from families import ALL_KINDS, FAMILIES
from peftport.hosts.host import load_host
from peftport.hosts.source import geometry_by_name
from peftport.studies.held import Holding, as_drawn, at_most, host_bytes, kept_of_a_token
from peftport.studies.plan import Plan
from peftport.studies.resolve import resolve
from peftport.training import class_logits, readout_of
from study_specs import tiny_spec
from tiny_runs import encoded, host_in, start_of, task_in


def saved_of_a_token(host, task, case: str) -> tuple[float, float]:
    """Numbers that autograd saves for each token of a batch, and those that are counted."""
    made, config, start = start_of(case, host, [0])
    frozen = {tensor.untyped_storage().data_ptr() for tensor in host.model.parameters()}
    saved: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in frozen:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    own = {name: tensor.requires_grad_() for name, tensor in start.items()}
    (batch,) = encoded(host, task, "train").training_batches(64, 1, [0])
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept),
        made.attach(host, config, own),
    ):
        class_logits(host, batch, own, readout_of(host, task), whole=True).sum().backward()
    return sum(saved.values()) / 4 / batch.input_ids.numel(), _counted(host, made, config)


def _counted(host, made, config) -> int:
    """With a decoder's last layer, which counts here because it is run whole: it may have no other
    behind its first one."""
    if "decoder" not in host.geometry.stacks or "encoder" in host.geometry.stacks:
        return kept_of_a_token(host.geometry, made, config)
    deeper = replace(host.geometry, stacks={"decoder": host.geometry.stacks["decoder"] + 1})
    return kept_of_a_token(deeper, made, config)


@pytest.mark.parametrize("case", ["houlsby", "pfeiffer", "rslora", "prefix"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_more_is_counted_of_a_token_than_autograd_keeps(family, case, tiny_host, tiny_task):
    saved, counted = saved_of_a_token(host_in(tiny_host(family)), task_in(tiny_task), case)
    assert 0 < counted <= saved


@pytest.mark.parametrize("family", ALL_KINDS)
def test_nor_on_a_host_of_any_other_family(family, tiny_host, tiny_task):
    saved, counted = saved_of_a_token(host_in(tiny_host(family)), task_in(tiny_task), "rslora")
    assert 0 <= counted <= saved


def in_bfloat16(host, folder):
    """A copy of a host that is stored in bfloat16."""
    shutil.copytree(host, folder)
    for file in folder.glob("*.safetensors"):
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_host_takes_at_least_what_is_counted(family, precision, tiny_host, tmp_path):
    name = in_bfloat16(tiny_host(family), tmp_path / "host")
    weights = load_host(name, precision=precision).model.parameters()
    taken = sum(weight.numel() * weight.element_size() for weight in weights)
    counted = host_bytes(name, geometry_by_name(name), precision)
    assert 0.7 * taken < counted <= taken


def test_weights_that_stay_in_their_files_are_not_counted(tiny_host):
    name = str(tiny_host("llama"))
    geometry = geometry_by_name(name)
    linears = sum(linear.inputs * linear.outputs for linear in geometry.linears.values())
    assert host_bytes(name, geometry, "fp32") == 0
    assert host_bytes(name, geometry, "bf16") == 2 * linears


def test_batches_are_as_long_as_they_are_drawn(tiny_host, tiny_task):
    name, host = str(tiny_host("llama")), host_in(tiny_host("llama"))
    pair = {"origin": "a", "receiver": "a", "relation": "same"}
    spec = tiny_spec({"a": name}, tiny_task, pairs=[pair])
    facts = resolve(spec, fetch=False)
    drawn, most = as_drawn(spec, facts), at_most(facts)
    rows = encoded(host, task_in(tiny_task), "train")
    for steps in (1, 2, 20):
        batches = [batch.input_ids.shape[1] for batch in rows.training_batches(4, steps, [7])]
        assert drawn("a", "films", 4, steps) == max(batches) <= most("a", "films", 4, steps)


@pytest.fixture
def holding(tiny_host, tiny_continuation, tiny_task):
    def make(**changes):
        hosts = {"a": tiny_host("t5"), "b": tiny_continuation("t5")}
        pairs = [{"origin": "a", "receiver": "b", "relation": "independent"}]
        spec = tiny_spec(hosts, tiny_task, pairs=pairs, techniques={"lora": {}}, **changes)
        plan, facts = Plan(spec), resolve(spec, fetch=False)
        held = Holding(plan, facts, at_most(facts))
        return {pack.arm.kind: held.of_pack(pack, pack.arm.steps) for pack in plan.packs()}

    return make


def test_lanes_that_are_alike_are_trained_side_by_side(holding):
    """Copies and what starts from scratch are alike: three arms of two seeds each."""
    held = holding(conditions=["ported", "sampled", "scratch"])["scratch"]
    assert held.lanes == 6
    fewer = holding(conditions=["ported", "sampled", "scratch"], seeds=1)["scratch"]
    assert held.beside == 2 * fewer.beside > 0


def test_a_test_of_the_bare_host_takes_the_host_alone(holding):
    held = holding()["host"]
    assert (held.beside, held.lanes) == (0, 0)


def test_hosts_that_a_port_loads_are_counted_in_single_precision(
    tiny_host, tiny_task, tmp_path, holding
):
    texts = {"texts": str(tiny_task), "texts_count": 20}
    loads = holding(conditions=["ported"], methods=["distill:steps=2"], **texts)["ported"].loads
    assert loads == {("a", "fp32"), ("b", "fp32")}
    assert holding(conditions=["ported"])["ported"].loads == {("b", "fp32")}


def test_texts_that_a_port_keeps_are_counted(holding, tiny_task):
    few, many = (
        holding(
            conditions=["ported"],
            methods=["procrustes"],
            budgets=[0],
            texts=str(tiny_task),
            texts_count=count,
        )["ported"].beside
        for count in (16, 64)
    )
    assert 0 < few < many

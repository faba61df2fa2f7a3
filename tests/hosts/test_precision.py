"""Products in bfloat16: near to full precision, cast once, and nothing else is touched; chosen
where they are faster."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch

from families import FAMILIES, ONE_OF_EACH_KIND
from peftport.hosts import attention, load_host, precision
from peftport.hosts.host import Host
from peftport.hosts.precision import WIDE, bf16_is_fast, chosen_precision
from peftport.training import TrainingSettings
from techniques.references import batch, our_answer
from tiny_runs import ONE_OF_EACH_TECHNIQUE, host_in, run, task_in


@cache
def lowered(folder: Path) -> Host:
    return load_host(str(folder), precision="bf16")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_that_are_multiplied_are_cast_and_no_others(family, tiny_host):
    host = lowered(tiny_host(family))
    linears = {f"{linear.path}." for linear in host.geometry.linears.values()}
    for name, parameter in host.model.named_parameters():
        cast = name.rpartition(".")[0] + "." in linears
        assert parameter.dtype == (torch.bfloat16 if cast else torch.float32), name
        assert not parameter.requires_grad
    assert host.fingerprint == host_in(tiny_host(family)).fingerprint


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_near_to_those_of_full_precision(family, tiny_host):
    full, low = host_in(tiny_host(family)), lowered(tiny_host(family))
    inputs = batch(full.tokenizer)
    expected, found = our_answer(full, inputs), our_answer(low, inputs)
    assert found.dtype == torch.float32
    apart = (found - expected).norm() / expected.norm()
    assert 0 < apart < 0.02


@pytest.mark.parametrize("case", ONE_OF_EACH_TECHNIQUE)
@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_modules_train_in_full_precision_and_go_the_same_way(family, case, tiny_host, tiny_task):
    task = task_in(tiny_task)
    full, low = (
        run(
            *(case, host, task, [5], [1e-3, 3e-3], [1, 2]),
            TrainingSettings(batch_size=8, precision=host.precision),
        )[0]
        for host in (host_in(tiny_host(family)), lowered(tiny_host(family)))
    )
    assert {tensor.dtype for tensor in low.parameters.values()} == {torch.float32}
    assert low.failures == (None, None)
    assert low.losses == pytest.approx(full.losses, rel=0.05)
    assert low.losses != full.losses


def test_an_attention_can_compute_in_another_type_than_it_takes_and_gives(tiny_host):
    """As those of a host on a GPU do."""
    folder = tiny_host("t5")
    expected = our_answer(host_in(folder), batch(host_in(folder).tokenizer))
    host = load_host(str(folder))
    for each in host.geometry.attentions.values():
        module = host.model.get_submodule(each.path)
        attention.set_attention_dtype(module, torch.bfloat16)
    found = our_answer(host, batch(host.tokenizer))
    assert found.dtype == torch.float32
    assert 0 < (found - expected).norm() / expected.norm() < 0.02


@pytest.mark.parametrize(
    ("told", "fast"),
    [({}, False), ({"avx512_bf16": False, "avx512_f": True}, False), ({"amx_bf16": True}, True)],
)
def test_a_processor_is_asked_whether_it_multiplies_bfloat16(told, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    assert bf16_is_fast() == fast


@pytest.mark.parametrize("fast", [True, False])
def test_only_what_is_left_to_the_machine_depends_on_it(fast, monkeypatch):
    measured = []
    monkeypatch.setattr(precision, "bf16_is_fast", lambda device: measured.append(device) or fast)
    assert chosen_precision("auto", WIDE, "cpu") == ("bf16" if fast else "fp32")
    assert measured == ["cpu"]
    assert chosen_precision("fp32", WIDE) == chosen_precision("auto", WIDE - 1) == "fp32"
    assert chosen_precision("bf16", 8) == "bf16"
    assert measured == ["cpu"]

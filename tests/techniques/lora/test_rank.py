"""A LoRA cut to a rank loses what its account says, and no more."""

from __future__ import annotations

import json

import pytest
import torch

from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.modules import HostName, formats, load_module
from peftport.porting import port
from tiny_runs import host_in


def cut(family, tiny_host, case="lora", **options):
    host = host_in(tiny_host(family))
    module = made(host, case, classes=0)
    name = HostName(name=str(host.folder), fingerprint=host.fingerprint)
    return module, port(module, host.geometry, name, "copy", **options)


def change(module, point):
    tensors = module.tensors
    return module.config.scale * tensors[f"{point}.lora_B"] @ tensors[f"{point}.lora_A"]


@pytest.mark.parametrize("case", ["lora", "rslora"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_lower_rank_is_the_nearest_and_its_loss_is_told(rank, case, tiny_host):
    module, ported = cut("llama", tiny_host, case, rank=rank)
    assert ported.module.config.rank == rank
    for point, lost in ported.module.record.port["rank_loses"].items():
        before, after = change(module, point), change(ported.module, point)
        left, values, right = torch.linalg.svd(before)
        nearest = (left[:, :rank] * values[:rank]) @ right[:rank]
        torch.testing.assert_close(after, nearest, atol=1e-5, rtol=1e-4)
        share = (before - after).square().sum() / before.square().sum()
        assert lost == pytest.approx(float(share), abs=1e-5)
    entry = ported.account.entries[0]
    assert (entry.action, f"cut to rank {rank}, which loses" in entry.why) == ("mapped", True)


@pytest.mark.parametrize("energy", [0.5, 0.9, 1.0])
def test_an_energy_is_kept_at_every_place_by_the_smallest_rank(energy, tiny_host):
    _, ported = cut("gpt2", tiny_host, energy=energy)
    lost = ported.module.record.port["rank_loses"]
    assert all(share <= 1 - energy + 1e-6 for share in lost.values())
    rank = ported.module.config.rank
    if rank > 1:
        _, smaller = cut("gpt2", tiny_host, rank=rank - 1)
        assert max(smaller.module.record.port["rank_loses"].values()) > 1 - energy


def test_a_rank_that_is_no_smaller_leaves_the_module_as_it_is(tiny_host):
    module, ported = cut("llama", tiny_host, rank=64)
    assert ported.module.config.rank == module.config.rank
    assert all(torch.equal(t, ported.module.tensors[n]) for n, t in module.tensors.items())
    assert ported.module.record.port["rank_loses"] == {}
    assert {(each.action, "cut" in each.why) for each in ported.account.entries} == {
        ("copied", False)
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank 0: expected 1 or more"),
        ({"energy": 0.0}, r"energy 0\.0: expected a share"),
        ({"energy": float("nan")}, "expected a share"),
        ({"energy": 1.5}, "expected a share"),
        ({"rank": 2, "energy": 0.9}, "either a rank or an energy"),
        ({"rank": 2, "case": "prefix"}, "of LoRA, and the module is of prefix"),
    ],
)
def test_what_cannot_be_cut_is_told(options, message, tiny_host):
    with pytest.raises(BadInput, match=message):
        cut("llama", tiny_host, **options)


def test_the_command_cuts_whatever_the_method(call, tiny_host, tiny_continuation, tmp_path):
    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "module", "peft")
    receiver = tiny_continuation("llama")
    asked = ("port", tmp_path / "module", "--to", receiver, "--method", "subspace", "--rank", 2)
    code, text, error = call(*asked, "--out", tmp_path / "out", "--json")
    assert code == 0, error
    found = json.loads(text)
    assert (found["rank"], load_module(tmp_path / "out").config.rank) == (2, 2)
    assert "loses" in json.loads((tmp_path / "out/account.json").read_text())["tensors"][0]["why"]


def test_the_command_says_that_nothing_was_cut(call, tiny_host, tiny_continuation, tmp_path):
    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "module", "peft")
    receiver = tiny_continuation("llama")
    asked = ("port", tmp_path / "module", "--to", receiver, "--method", "copy", "--rank", 64)
    code, text, error = call(*asked, "--out", tmp_path / "out")
    rank = load_module(tmp_path / "module").config.rank
    assert (code, f"not cut: its rank is {rank}\n" in text) == (0, True), text + error

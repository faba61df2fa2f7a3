"""What methods that map share: what they refuse, tell of every tensor, and factor again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from modules.formats.modules import made as drawn_module
from peftport.modules import HostName, Module, Record, formats, load_module
from peftport.modules.record import expected_shapes
from peftport.porting import port, port_method
from peftport.porting.base import Request
from peftport.porting.map_based import mapped_account
from peftport.porting.methods import judge
from peftport.techniques import technique
from peftport.techniques.adapter.mapping import as_adapter
from peftport.techniques.compacter import RULE
from peftport.techniques.head import BIAS, head_shapes
from porting.hosts_and_texts import means_of, request_of, twin
from porting.spaces import geometry
from porting.test_procrustes import module_of
from tiny_hosts import build_model
from tiny_runs import host_in, task_in
from tiny_tokenizers import build_tokenizer

__all__ = ["twin"]


def asked(origin, receiver, name="lora", head="mean", classes=2, **options) -> Request:
    """A port between two geometries, without any host."""
    chosen = technique(name)
    config = chosen.configure(options)
    mark = HostName(name="a", fingerprint="")
    record = Record(
        technique=name,
        config=config.model_dump(mode="json"),
        geometry=origin.record(),
        host=mark,
        origin=mark,
        task={"name": "t", "labels": list(range(classes))},
        seed=0,
        head=head,
    )
    shapes = chosen.shapes(config, origin) | head_shapes(origin, classes, head)
    return port_method("procrustes").request(record, shapes, receiver)


def problem(request: Request) -> str | None:
    return judge(port_method("procrustes"), request).problem


def test_maps_go_between_hosts_of_one_kind_of_any_width():
    llama, gpt2, bert = geometry("llama"), geometry("gpt2"), geometry("bert")
    assert problem(asked(llama, geometry("llama", 48))) is None
    assert problem(asked(llama, geometry("qwen3"))) is None
    assert "not from decoder to encoder" in problem(asked(llama, bert))
    assert "not from encoder to decoder" in problem(asked(bert, gpt2))


def test_a_dense_head_has_no_room_on_a_narrower_host():
    narrow, wide = geometry("bert", 32), geometry("bert", 48)
    assert problem(asked(narrow, wide, head="first")) is None
    assert problem(asked(wide, narrow, head="mean")) is None
    assert "has no room for" in problem(asked(wide, narrow, head="first"))


@pytest.mark.parametrize("name", ["lora", "adapter", "compacter", "prefix"])
@pytest.mark.parametrize(("here", "there"), [(2, 2), (2, 4), (4, 2)])
def test_an_account_tells_every_tensor_once_on_both_sides(name, here, there):
    """Layers without a partner are begun anew or left over, and that is meant so."""
    origin, receiver = geometry("llama", 32, here), geometry("llama", 48, there)
    request = asked(origin, receiver, name, **({"reduction": 4} if name == "compacter" else {}))
    made, config = technique(name), request.config
    if name in ("adapter", "compacter"):
        made, config = technique("adapter"), as_adapter(config, origin, receiver)
    entries = port_method("procrustes").account(request).entries
    kept = [(entry.target, entry.shape) for entry in entries if entry.target]
    assert dict(kept) == made.shapes(config, receiver)
    assert len(kept) == len(dict(kept))
    if name != "compacter":
        assert {entry.source for entry in entries if entry.source} == set(request.shapes)
    actions = {entry.action for entry in entries}
    assert actions == {
        "mapped",
        *(["initialised"] if there > here else []),
        *(["dropped"] if here > there else []),
    }
    assert all(entry.intended for entry in entries if entry.action != "mapped")
    assert problem(request) is None


def test_an_account_of_a_compacter_names_the_factors_a_weight_is_made_of():
    origin, receiver = geometry("llama", 32), geometry("llama", 48)
    request = asked(origin, receiver, "compacter", reduction=4)
    adapter = technique("adapter").configure({"reduction": 6})
    pairs = {layer: layer for layer in receiver.blocks}
    account = mapped_account(
        "procrustes", request, pairs, technique("adapter").shapes(adapter, receiver)
    )
    by_target = {entry.target: entry for entry in account.entries}
    found = by_target["decoder.0.self.down.weight"]
    assert found.action == "mapped"
    assert found.why == "of decoder.0.self.down.left, decoder.0.self.down.right"
    assert by_target["decoder.0.self.down.bias"].source == "decoder.0.self.down.bias"
    assert not [e for e in account.entries if e.action == "dropped"]
    assert RULE not in {entry.source for entry in account.entries}


def test_a_bias_that_only_the_prior_asked_for_is_no_lack():
    origin, receiver = geometry("llama", 32), geometry("llama", 48)
    request = asked(origin, receiver)
    pairs = {layer: layer for layer in receiver.blocks}
    shapes = {**technique("lora").shapes(request.config, receiver), BIAS: (2,)}
    account = mapped_account("procrustes", request, pairs, shapes)
    (bias,) = [entry for entry in account.entries if entry.target == BIAS]
    assert (bias.action, bias.intended) == ("initialised", True)
    assert "as frequent as the donor's" in bias.why
    assert account.problem is None


def ported(module: Module, host, other, **options):
    name = HostName(name=other.name, fingerprint=other.fingerprint)
    options = {"prefix_steps": 2, "places": 512, **options}
    means = means_of(host, other)
    return port(module, other.geometry, name, "procrustes", options=options, means=means)


@pytest.mark.parametrize(
    ("tolerance", "rank", "made"), [(0.0, 1, "adapter"), (1.0, 1, "compacter")]
)
def test_a_compacter_is_factored_again_as_far_as_it_may_lose(
    tolerance, rank, made, twin, tiny_host, tiny_task
):
    """Of a turned space no compacter computes the same: how much is lost is told."""
    host, other = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    donor = module_of("compacter", host, task_in(tiny_task))
    found = ported(donor, host, other, tolerance=tolerance)
    record = found.module.record
    assert record.technique == made
    assert 0 < record.port["factoring_loses"] <= 1
    shapes = {name: tuple(tensor.shape) for name, tensor in found.module.tensors.items()}
    assert shapes == expected_shapes(record)
    told = {entry.target: entry.shape for entry in found.account.entries if entry.target}
    assert told == shapes
    assert found.account.problem is None
    if made == "compacter":
        assert found.module.config.rank == rank


@pytest.mark.parametrize("prior", [True, False])
def test_only_a_prior_gives_a_decoder_s_module_a_bias_of_label_words(
    prior, twin, tiny_host, tiny_task
):
    host, other = host_in(tiny_host("llama")), host_in(twin("wider", "llama"))
    found = ported(module_of("lora", host, task_in(tiny_task)), host, other, prior=prior)
    assert (BIAS in found.module.tensors) == prior
    assert found.module.record.head == ("words" if prior else "mean")
    assert expected_shapes(found.module.record).keys() == found.module.tensors.keys()


def test_a_dense_head_comes_to_a_wider_host_whole(tiny_host, tmp_path):
    """It is filled up with units that give nothing."""
    host = host_in(tiny_host("bert"))
    model = build_model("bert")
    config = type(model.config)(**{**model.config.to_dict(), "hidden_size": 48})
    torch.manual_seed(0)
    type(model)(config).save_pretrained(tmp_path / "wide")
    build_tokenizer("bert").save_pretrained(tmp_path / "wide")
    wide = host_in(tmp_path / "wide")
    donor = drawn_module(host, "lora", head="first")
    found = ported(donor, host, wide, prior=False)
    formats.save(found.module, tmp_path / "m")
    again = load_module(tmp_path / "m")
    assert again.tensors["head.dense.weight"].shape == (48, 48)
    assert not again.tensors["head.weight"][:, 32:].any()
    assert torch.equal(again.tensors["head.weight"][:, :32], donor.tensors["head.weight"])


def test_to_its_own_weights_a_module_goes_as_it_is(tiny_host, tiny_task, tmp_path):
    """Whatever the folder is called."""
    host = host_in(tiny_host("llama"))
    other = host_in(Path(shutil.copytree(tiny_host("llama"), tmp_path / "again")))
    donor = module_of("lora", host, task_in(tiny_task))
    found = ported(donor, host, other)
    assert all(torch.equal(found.module.tensors[n], t) for n, t in donor.tensors.items())
    assert {entry.action for entry in found.account.entries} == {"copied"}
    assert found.module.record.host.name == other.name
    assert request_of(donor, other).origin == host.geometry

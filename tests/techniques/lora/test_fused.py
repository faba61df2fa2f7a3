"""LoRA between hosts that fuse their layers and hosts that do not."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from modules.formats.modules import made
from modules.formats.test_saved_by_others import from_stock
from peftport.errors import BadInput
from peftport.hosts.geometry import split_at
from peftport.modules import HostName, Module, formats, load_module
from peftport.porting import port
from peftport.porting.estimate import Load
from peftport.porting.means import Means, side
from peftport.porting.methods import METHODS, port_method
from peftport.porting.prior import prior_offsets
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.techniques.embeddings import attached
from peftport.techniques.head import BIAS
from peftport.techniques.lora.fused import join_parts, parted
from porting.embedded import scores_of
from techniques.references import batch, our_answer
from tiny_runs import few_rows_of, host_in

TEXTS = tuple(f"text number {i} of some" for i in range(40))


def moved(host, module, receiver, method="copy", **options):
    """A module ported to another host."""
    name = HostName(name=str(receiver.folder), fingerprint=receiver.fingerprint)
    means = Means(side(str(host.folder)), side(str(receiver.folder)), TEXTS)
    return port(module, receiver.geometry, name, method, means=means, **options)


def changes(module) -> dict[str, torch.Tensor]:
    """The change of every weight."""
    scale, tensors = module.config.scale, module.tensors
    points = {name.rpartition(".")[0] for name in tensors if name.endswith(".lora_A")}
    return {p: scale * tensors[f"{p}.lora_B"] @ tensors[f"{p}.lora_A"] for p in points}


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_parts_are_the_rows_of_the_fused_layer_and_come_together_again(family, tiny_host):
    host = host_in(tiny_host(family))
    whole = made(host, "lora", targets=("all",), classes=0)
    fused = [p.split(".", 2)[2] for p, linear in host.geometry.linears.items() if linear.fused]
    split = split_at(host.geometry, set(fused))
    parts = parted(whole.tensors, split)
    config, again = join_parts(whole.config, parts, split, host.geometry)
    assert config == whole.config
    assert {n: t.tolist() for n, t in again.items()} == {
        n: t.tolist() for n, t in whole.tensors.items()
    }


@pytest.mark.parametrize("family", ["gpt2", "phi3"])
def test_a_host_with_split_layers_acts_as_the_whole_one(family, tiny_host):
    host = host_in(tiny_host(family))
    whole = made(host, "lora", targets=("all",), classes=0)
    split = split_at(host.geometry, ("self.qkv", "ffn.gate_up"))
    inputs, lora = batch(host.tokenizer), technique("lora")
    with torch.no_grad(), lora.attach(host, whole.config, stack_lanes([whole.tensors])):
        before = our_answer(host, inputs)
    lane = stack_lanes([parted(whole.tensors, split)])
    with torch.no_grad(), lora.attach(replace(host, geometry=split), whole.config, lane):
        torch.testing.assert_close(our_answer(host, inputs), before, atol=1e-5, rtol=0)


def test_q_k_and_v_of_their_own_go_into_one_layer(tiny_host):
    """Llama's q, k and v, of ranks of their own, into Phi-3's qkv: the same change of each."""
    llama, phi = host_in(tiny_host("llama")), host_in(tiny_host("phi3"))
    module = made(llama, "lora", targets=("self.q", "self.v"), classes=0)
    ported = moved(llama, module, phi)
    before, after = changes(module), changes(ported.module)
    split = split_at(phi.geometry, ("self.qkv", "ffn.gate_up"))
    for layer in ("decoder.0", "decoder.1"):
        for part in ("self.q", "self.k", "self.v"):
            found = split.linears[f"{layer}.{part}"].part(after[f"{layer}.self.qkv"])
            wanted = before.get(f"{layer}.{part}", torch.zeros_like(found))
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_one_layer_goes_into_q_k_and_v_of_their_own_and_back(tiny_host):
    llama, phi = host_in(tiny_host("llama")), host_in(tiny_host("phi3"))
    module = made(phi, "lora", targets=("self.qkv", "self.o"), classes=0)
    there = moved(phi, module, llama)
    assert there.account.problem is None
    back = moved(llama, there.module, phi)
    assert changes(back.module).keys() == changes(module).keys()
    for place, change in changes(module).items():
        torch.testing.assert_close(changes(back.module)[place], change, atol=1e-5, rtol=0)


def test_what_was_joined_is_loaded_by_stock_peft(tiny_host, tmp_path):
    llama, gpt2 = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    module = made(llama, "lora", targets=("self.q", "self.v"), classes=0)
    ported = moved(llama, module, gpt2, "subspace").module
    assert_stock_peft_answers_alike(ported, gpt2, tmp_path / "out")


def assert_stock_peft_answers_alike(module, host, folder):
    formats.save(module, folder, "peft")
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(host.folder), str(folder)
    ).eval()
    inputs, lane = batch(host.tokenizer), stack_lanes([module.tensors])
    with torch.no_grad(), attached(host, technique("lora"), module.config, lane):
        ours = our_answer(host, inputs)
    last = inputs["attention_mask"].sum(1) - 1
    with torch.no_grad():
        theirs = model(**inputs).logits[torch.arange(len(last)), last]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_a_donor_is_asked_with_the_places_that_do_not_go_over(tiny_host, tiny_task):
    """GPT-2 has no gate; classes are to be as frequent as the whole module has them."""
    llama, gpt2 = host_in(tiny_host("llama")), host_in(tiny_host("gpt2"))
    task = few_rows_of(tiny_task)
    module = made(llama, "lora", targets=("ffn.gate", "ffn.down"), classes=0)
    module = Module(module.record.model_copy(update={"task": task.record()}), module.tensors)
    name = HostName(name=gpt2.name, fingerprint=gpt2.fingerprint)
    means = Means(side(llama.name), side(gpt2.name), tuple(task.split("train").texts))
    ported = port(module, gpt2.geometry, name, "procrustes", means=means, allow_partial=True).module
    bias = ported.tensors.pop(BIAS)
    theirs, ours = (scores_of(*each, task) for each in ((llama, module), (gpt2, ported)))
    torch.testing.assert_close(bias, prior_offsets(theirs, ours), atol=1e-3, rtol=0)


def test_factors_of_embeddings_have_the_rank_that_joining_takes(tiny_host, tmp_path):
    llama, phi = host_in(tiny_host("llama")), host_in(tiny_host("phi3"))
    places = ["q_proj", "v_proj", "embed_tokens", "lm_head"]
    from_stock(tiny_host("llama"), tmp_path / "theirs", target_modules=places)
    module = load_module(tmp_path / "theirs")
    ported = moved(llama, module, phi).module
    assert ported.config.rank == 2 * module.config.rank
    before, after = changes(module), changes(ported)
    for place in ("embedding.input", "embedding.output"):
        torch.testing.assert_close(after[place], before[place], atol=1e-5, rtol=0)
    assert_stock_peft_answers_alike(ported, phi, tmp_path / "out")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "distill"])
@pytest.mark.parametrize(
    ("origin", "receiver", "targets"),
    [
        ("gpt2", "llama", ("all",)),
        ("llama", "gpt2", ("all",)),
        ("gpt2", "phi3", ("all",)),
        ("phi3", "qwen2", ("ffn.gate_up", "self.o")),
        ("llama", "gpt2", ("ffn.gate",)),
        ("bert", "gpt2", ("all",)),
        ("t5", "llama", ("all",)),
    ],
)
def test_a_partial_port_ends_well_or_in_a_message(origin, receiver, targets, method, tiny_host):
    hosts = [host_in(tiny_host(family)) for family in (origin, receiver)]
    module = made(hosts[0], "lora", targets=targets, classes=0)
    options = {"layers": "proportional"} if method in ("subspace", "prolora") else {}
    try:
        ported = moved(hosts[0], module, hosts[1], method, options=options, allow_partial=True)
    except BadInput as error:
        assert "port by" in str(error)
        return
    lora = technique("lora")
    shapes = lora.shapes(ported.module.config, hosts[1].geometry)
    body = {n: tuple(t.shape) for n, t in ported.module.tensors.items() if "head." not in n}
    assert body == shapes


def test_distill_takes_the_receiving_family_s_usual_places(tiny_host):
    gpt2, llama = host_in(tiny_host("gpt2")), host_in(tiny_host("llama"))
    module = made(gpt2, "lora", targets=("self.qkv", "self.o"))
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    distill = port_method("distill")
    request = distill.request(module.record, shapes, llama.geometry)
    targets = {e.target.split(".", 2)[2] for e in distill.account(request).entries if e.target}
    assert targets == {f"self.{role}.lora_{factor}" for role in "qv" for factor in "AB"}
    assert distill.estimate(request, Load(100)).disk == 4 * sum(
        prod(entry.shape) for entry in distill.account(request).entries
    )

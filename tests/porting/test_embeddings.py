"""Embeddings that a module brings along: carried token by token, and acting as stock peft's do."""

from __future__ import annotations

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from modules.formats.test_saved_by_others import PEFT, from_stock
from peftport.errors import BadInput
from peftport.modules import HostName, formats, load_module
from peftport.porting import port
from peftport.porting.embeddings import embedding
from peftport.porting.means import Means, side
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.techniques.embeddings import replaced, without_embeddings
from techniques.references import batch, our_answer
from tiny_runs import host_in

BOTH = {"modules_to_save": ["embed_tokens", "lm_head"]}
FACTORS = {"target_modules": ["q_proj", "embed_tokens", "lm_head"]}


def moved(module, receiver, **options):
    """A module ported to another host by copy."""
    host = host_in(receiver)
    means = Means(side(module.record.host.name), side(str(receiver)))
    name = HostName(name=str(receiver), fingerprint=host.fingerprint)
    return port(module, host.geometry, name, means=means, **options)


def answer(module, host, inputs):
    lane = stack_lanes([without_embeddings(module.tensors)])
    attached = technique("lora").attach(host, module.config, lane)
    with torch.no_grad(), replaced(host, module.config, module.tensors), attached:
        return our_answer(host, inputs)


@pytest.mark.parametrize("options", [BOTH, FACTORS], ids=["rows", "factors"])
def test_embeddings_of_peft_act_here_as_there_and_when_written_again(
    options, tiny_host, tiny_continuation, tmp_path
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **options)
    ported = moved(load_module(tmp_path / "theirs"), tiny_continuation("llama")).module
    formats.save(ported, tmp_path / "out", "peft")
    host = host_in(tiny_continuation("llama"))
    model = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_continuation("llama")), str(tmp_path / "out")
    ).eval()
    inputs = batch(host.tokenizer)
    before = our_answer(host, inputs)
    ours, last = answer(ported, host, inputs), inputs["attention_mask"].sum(1) - 1
    with torch.no_grad():
        theirs = model(**inputs).logits[torch.arange(len(last)), last]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert (theirs - before).abs().max() > 0.03
    assert torch.equal(our_answer(host, inputs), before)  # and the host is as it was


def test_rows_go_to_the_tokens_of_the_same_text(tiny_host, tmp_path):
    """From GPT-2's byte-level vocabulary to Llama's pieces, both of width 32."""
    options = {"target_modules": ["attn.c_attn"], "modules_to_save": ["wte"]}
    from_stock(tiny_host("gpt2"), tmp_path / "theirs", fan_in_fan_out=True, **options)
    module, llama = load_module(tmp_path / "theirs"), tiny_host("llama")
    with pytest.raises(BadInput, match="--allow-partial"):
        moved(module, llama)
    ported = moved(module, llama, allow_partial=True)
    (entry,) = (e for e in ported.account.entries if e.target == "embedding.input.weight")
    kept = int(entry.why.split()[2])
    own = embedding(side(str(llama)), "embedding.input")
    changed = (ported.module.tensors["embedding.input.weight"] != own).any(1)
    assert 0 < kept == int(changed.sum()) < len(own)
    origin, receiver = (host_in(tiny_host(name)).tokenizer for name in ("gpt2", "llama"))
    here = receiver.get_vocab()
    place = next(n for piece, n in here.items() if piece == "\u2581good" or piece == "good")
    text = receiver.convert_ids_to_tokens(place).replace("\u2581", "\u0120")
    row = origin.get_vocab()[text]
    trained = module.tensors["embedding.input.weight"][row]
    assert torch.equal(ported.module.tensors["embedding.input.weight"][place], trained)


def test_embeddings_of_another_width_are_dropped_where_that_is_allowed(tiny_host, tmp_path):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    module = load_module(tmp_path / "theirs")
    method = {"method": "subspace"}
    wider = host_in(tiny_host("llama")).geometry
    from dataclasses import replace as changed

    receiver = changed(wider, width=48)
    from peftport.porting import port_method

    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    request = port_method(method["method"]).request(module.record, shapes, receiver)
    assert {entry.action for entry in request.besides} == {"dropped"}


def test_what_cannot_be_carried_is_counted(tiny_host, tiny_continuation, tmp_path):
    from_stock(tiny_host("llama"), tmp_path / "theirs", modules_to_save=["norm"])
    module = load_module(tmp_path / "theirs", partial=True)
    with pytest.raises(
        BadInput, match=r"only 8 of the module.s 13 tensors .*norm.weight: peftport cannot"
    ):
        moved(module, tiny_continuation("llama"))
    ported = moved(module, tiny_continuation("llama"), allow_partial=True)
    assert ported.account.counts()["dropped"] == 5
    assert not ported.module.record.left_out


def test_a_module_with_embeddings_is_ported_tested_and_trained_on(
    tiny_host, tiny_continuation, tiny_task, tmp_path, call
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    receiver, words = tiny_continuation("llama"), ("--label-words", "bad,good")
    asked = ("port", tmp_path / "theirs", "--to", receiver, "--out", tmp_path / "out", *words)
    code, _, error = call(*asked, "--task", tiny_task, "--steps", 2)
    assert code == 0, error
    written = load_module(tmp_path / "out")
    assert set(written.record.embeddings) == {"embedding.input.weight", "embedding.output.weight"}
    code, text, error = call(
        "test", tmp_path / "out", "--host", receiver, "--task", tiny_task, *words
    )
    assert (code, "accuracy" in text) == (0, True), error


@pytest.mark.parametrize(
    ("shape", "why"),
    [((224, 64), "embeddings are 32 wide"), ((7,), "expected tokens, widths")],
)
def test_embeddings_that_no_host_of_the_module_has_are_refused_by_name(
    shape, why, tiny_host, tiny_continuation, tmp_path
):
    theirs = tmp_path / "theirs"
    from_stock(tiny_host("llama"), theirs, modules_to_save=["embed_tokens"])
    tensors = load_file(theirs / PEFT)
    (name,) = (name for name in tensors if "embed_tokens" in name)
    save_file(tensors | {name: torch.ones(shape)}, theirs / PEFT)
    with pytest.raises(BadInput, match=f"'embedding.input.weight' has shape .*{why}"):
        moved(load_module(theirs), tiny_continuation("llama"))


def test_a_method_that_asks_the_donor_says_that_it_does_so_without_its_embeddings(
    tiny_host, tiny_task, tmp_path, call
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    asked = ("--host", tiny_host("gpt2"), "--task", tiny_task, "--label-words", "terrible,great")
    more = ("--method", "ridge", "--text-count", 20, "--no-verify", "--out", tmp_path / "out")
    code, _, error = call("port", tmp_path / "theirs", *asked, *more)
    assert code == 0, error
    assert "the donor is asked without its trained embeddings" in error


def test_modules_with_embeddings_are_not_assessed_as_if_they_had_none(
    tiny_host, tiny_continuation, tiny_task, tmp_path, call
):
    from_stock(tiny_host("llama"), tmp_path / "theirs", **BOTH)
    asked = ("--host", tiny_continuation("llama"), "--task", tiny_task, "--methods", "copy")
    more = ("--label-words", "terrible,great", "--native-steps", 1, "--budgets", "0")
    code, _, error = call("assess", tmp_path / "theirs", *asked, *more)
    assert code == 2
    assert "the module brings trained embeddings" in error

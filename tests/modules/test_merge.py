"""A merged host answers as the host with its module does, and as peft's own merge."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

import peftport as pp
from families import FAMILIES
from modules.formats.modules import answer_of, made
from peftport.errors import BadInput
from peftport.hosts import load_host
from peftport.modules import formats
from techniques.references import batch, our_answer, reference_answer, reference_model
from tiny_runs import host_in


@pytest.mark.parametrize("case", ["lora", "rslora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_merged_host_answers_as_the_host_with_the_module(family, case, tiny_host, tmp_path):
    host = host_in(tiny_host(family))
    module = made(host, case, classes=0)
    found = pp.merge(module, tiny_host(family), tmp_path / "merged")
    assert found.changed > 0
    inputs = batch(host.tokenizer)
    merged = our_answer(load_host(str(tmp_path / "merged")), inputs)
    with_module = answer_of(module, host, inputs)
    assert (our_answer(host, inputs) - with_module).abs().max() > 0.03
    # Products differ by processor: without AVX-512 by 2.2e-5 on T5.
    torch.testing.assert_close(merged, with_module, atol=4e-5, rtol=0)


def test_it_is_what_peft_merges(tiny_host, tmp_path):
    host = host_in(tiny_host("llama"))
    module = made(host, "lora", classes=0)
    formats.save(module, tmp_path / "module", "peft")
    pp.merge(tmp_path / "module", tiny_host("llama"), tmp_path / "merged")
    model = reference_model("llama", tiny_host("llama"))
    theirs = peft.PeftModel.from_pretrained(model, str(tmp_path / "module")).merge_and_unload()
    ours = reference_model("llama", tmp_path / "merged")
    state = theirs.state_dict()
    assert ours.state_dict().keys() == state.keys()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, state[name], atol=1e-6, rtol=0)
    inputs = batch(host.tokenizer)
    one, other = (reference_answer(each.eval(), "llama", inputs) for each in (ours, theirs))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.fixture
def half(tiny_host, tmp_path) -> Path:
    """The tiny Llama with its weights in bfloat16."""
    folder = tmp_path / "half"
    folder.mkdir()
    for file in tiny_host("llama").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = {n: t.bfloat16() for n, t in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_weights_keep_their_type_and_come_in_shards(half, tmp_path):
    module = made(host_in(half), "lora", classes=0)
    found = pp.merge(module, half, tmp_path / "merged", shard=20_000)
    assert found.types == ("BF16",)
    assert found.shards > 2
    index = json.loads((tmp_path / "merged" / "model.safetensors.index.json").read_text())
    files = {name: load_file(tmp_path / "merged" / name) for name in index["weight_map"].values()}
    before = load_file(half / "model.safetensors")
    assert index["weight_map"].keys() == before.keys()
    changed = 0
    for name, file in index["weight_map"].items():
        assert files[file][name].dtype == torch.bfloat16
        changed += not torch.equal(files[file][name], before[name])
    assert changed == found.changed
    sizes = [sum(t.nbytes for t in tensors.values()) for tensors in files.values()]
    assert index["metadata"]["total_size"] == sum(sizes) == found.bytes
    whole = our_answer(load_host(str(tmp_path / "merged")), batch(host_in(half).tokenizer))
    assert torch.isfinite(whole).all()


def test_what_cannot_be_merged_is_refused_and_nothing_written(tiny_host, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(BadInput, match="adapter cannot be merged"):
        pp.merge(made(host_in(tiny_host("llama")), "houlsby"), tiny_host("llama"), out)
    with pytest.raises(BadInput, match="has a head"):
        pp.merge(made(host_in(tiny_host("bert")), "lora"), tiny_host("bert"), out)
    with pytest.raises(BadInput, match="port it first"):
        pp.merge(made(host_in(tiny_host("llama")), "lora"), tiny_host("t5"), out)
    assert not out.exists()
    out.mkdir()
    (out / "mine").write_text("")
    with pytest.raises(BadInput, match="exists already"):
        pp.merge(made(host_in(tiny_host("llama")), "lora"), tiny_host("llama"), out)
    assert [file.name for file in out.iterdir()] == ["mine"]


def test_what_a_merge_would_lose_is_refused(tiny_host, tmp_path):
    module = made(host_in(tiny_host("llama")), "lora", classes=0)
    more = {**module.tensors, "embeddings.input": torch.zeros(2, 2)}
    with pytest.raises(BadInput, match=r"'embeddings\.input' beside its factors"):
        pp.merge(type(module)(module.record, more), tiny_host("llama"), tmp_path / "out")


def test_another_host_s_weights_are_told(tiny_host, tiny_continuation, tmp_path, caplog):
    module = made(host_in(tiny_host("llama")), "lora")
    pp.merge(module, tiny_continuation("llama"), tmp_path / "out")
    assert "this merges a plain copy" in caplog.text


def test_the_folder_has_a_card_and_the_tokenizer_and_no_record_of_the_host(tiny_host, tmp_path):
    module = made(host_in(tiny_host("llama")), "lora")
    pp.merge(module, tiny_host("llama"), tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert "merged into it" in card
    assert f'base_model: "{tiny_host("llama")}"' in card
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= names
    assert "peftport_host.json" not in names


def test_a_sum_that_the_type_of_the_weights_does_not_hold_is_refused(tiny_host, tmp_path):
    """In half precision 70,000 is infinite."""
    module = made(host_in(tiny_host("llama")), "lora", classes=0)
    host = load_host(str(tiny_host("llama"))).model.half()
    host.save_pretrained(tmp_path / "half")
    load_host(str(tiny_host("llama"))).tokenizer.save_pretrained(tmp_path / "half")
    large = {name: 1e4 * tensor for name, tensor in module.tensors.items()}
    with pytest.raises(BadInput, match=r"[qv]_proj.* values that torch.float16, the type"):
        pp.merge(replace(module, tensors=large), tmp_path / "half", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()

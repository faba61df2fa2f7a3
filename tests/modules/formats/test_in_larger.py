"""Hosts that are the language model of a larger one: what peft makes on these is read, carried to a
host of text alone and back, and written so that stock peft finds its places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

import peftport as pp
from hosts.test_discovery import answer
from modules.formats.modules import PEFT, answer_of
from modules.formats.test_saved_by_others import from_stock
from peftport.modules import load_module
from peftport.modules.merge import merge
from peftport.techniques import technique
from techniques.references import batch, our_answer
from tiny_hosts import build_model, drawn_like
from tiny_runs import host_in
from tiny_tokenizers import build_tokenizer

LANGUAGE = r".*language_model.*\.(q_proj|v_proj)"
SEEING = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def with_images(tmp_path_factory) -> Path:
    """A tiny LLaVA, whose language model has the sizes of the tiny Llama."""
    text = build_model("llama")
    config = transformers.LlavaConfig(
        text_config=text.config.to_dict(),
        vision_config={
            **SEEING,
            "model_type": "clip_vision_model",
            "num_attention_heads": 2,
            "image_size": 8,
            "patch_size": 4,
        },
        image_token_index=5,
        tie_word_embeddings=text.config.tie_word_embeddings,
    )
    model = transformers.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                tensor.copy_(drawn_like(tensor, name))
    folder = tmp_path_factory.mktemp("seeing") / "host"
    model.save_pretrained(folder)
    build_tokenizer("llama").save_pretrained(folder)
    return folder


def of_peft(host: Path, into: Path, **options: Any) -> Any:
    options = {"target_modules": LANGUAGE, **options}
    return from_stock(host, into, transformers.AutoModelForImageTextToText, **options)


def loaded(host: Path, folder: Path) -> Any:
    model = transformers.AutoModelForImageTextToText.from_pretrained(host).eval()
    return peft.PeftModel.from_pretrained(model, str(folder)).eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rank_pattern": {"model.language_model.layers.0.self_attn.q_proj": 2}},
        {"alpha_pattern": {r".*language_model.*v_proj": 3}, "use_rslora": True},
        {"target_modules": r".*language_model.*\.(q_proj|embed_tokens)"},
        {"modules_to_save": ["embed_tokens"]},
    ],
)
def test_what_peft_makes_on_it_is_read_and_written_again(options, with_images, tmp_path):
    host = host_in(with_images)
    theirs = of_peft(with_images, tmp_path / "theirs", **options)
    expected = answer(theirs, "decoder", batch(host.tokenizer))
    ported = pp.port(tmp_path / "theirs", with_images, out=tmp_path / "ours")
    assert not ported.verified.problems
    found = answer(loaded(with_images, tmp_path / "ours"), "decoder", batch(host.tokenizer))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    module = load_module(tmp_path / "ours")
    if not module.record.embeddings:
        ours = answer_of(module, host, batch(host.tokenizer))
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "AutoModelForImageTextToText.from_pretrained" in card


@pytest.mark.parametrize("method", ["copy", "subspace"])
def test_it_goes_to_a_host_of_text_alone_and_back(method, with_images, tiny_host, tmp_path):
    text = tiny_host("llama")
    of_peft(with_images, tmp_path / "theirs")
    assert pp.check(tmp_path / "theirs", text).can_port
    there = pp.port(tmp_path / "theirs", text, method=method, out=tmp_path / "there")
    assert not there.verified.problems
    back = pp.port(tmp_path / "there", with_images, method=method, out=tmp_path / "back")
    assert not back.verified.problems
    assert pp.check(tmp_path / "there", with_images).can_port


def test_a_pattern_that_names_the_tower_holds_on_a_host_of_text_alone(
    with_images, tiny_host, tmp_path
):
    """There the names are read without the tower's, and were matched without it."""
    patterns = {
        "alpha_pattern": {"model.language_model.layers.0.self_attn.q_proj": 64},
        "rank_pattern": {r".*language_model.*v_proj": 2},
    }
    of_peft(with_images, tmp_path / "theirs", **patterns)
    changes = []
    for host in (str(with_images), str(tiny_host("llama"))):
        module = load_module(tmp_path / "theirs", from_host=host)
        found = technique("lora").changes(module.config, module.geometry)
        changes.append({point: each.of(module.tensors) for point, each in found.items()})
    assert changes[0].keys() == changes[1].keys()
    for point, change in changes[0].items():
        torch.testing.assert_close(changes[1][point], change)


def test_it_is_merged(with_images, tmp_path):
    of_peft(with_images, tmp_path / "theirs")
    module, host = load_module(tmp_path / "theirs"), host_in(with_images)
    merge(module, with_images, host.geometry, tmp_path / "merged", name="host")
    found = answer_of_bare(host_in(tmp_path / "merged"))
    ours = answer_of(module, host, batch(host.tokenizer))
    torch.testing.assert_close(found, ours, atol=1e-4, rtol=0)


def answer_of_bare(host: Any) -> torch.Tensor:
    with torch.no_grad():
        return our_answer(host, batch(host.tokenizer))


def test_what_is_of_the_part_that_sees_is_left_out_when_asked(with_images, tmp_path):
    of_peft(with_images, tmp_path / "theirs", target_modules=["q_proj", "v_proj"])
    with pytest.raises(pp.BadInput, match=r"tensor 'model\.vision_tower.*--allow-partial"):
        pp.port(tmp_path / "theirs", with_images, out=tmp_path / "ours")
    found = pp.port(tmp_path / "theirs", with_images, out=tmp_path / "ours", allow_partial=True)
    assert found.account.counts()["dropped"] == 4
    assert not any("vision_tower" in name for name in load_file(tmp_path / "ours" / PEFT))

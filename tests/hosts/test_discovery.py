"""Hosts of unknown families are hosts for LoRA; language models within others are found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from modules.formats.modules import answer_of, made, silenced
from peftport.errors import BadInput
from peftport.hosts import geometry_from_record
from peftport.hosts.host import load_host
from peftport.hosts.source import geometry_by_name
from peftport.modules import HostName, formats, load_module
from peftport.porting import port
from peftport.techniques import technique
from techniques.references import batch
from tiny_hosts import build_model, drawn_like
from tiny_tokenizers import build_tokenizer

PLAIN: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
UNSEEN: dict[str, tuple[str, dict[str, Any]]] = {
    "phi": ("decoder", PLAIN),
    "cohere": ("decoder", PLAIN),
    "gptj": ("decoder", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4}),
    "mpt": ("decoder", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128}),
    "ernie": ("encoder", PLAIN),
    "pegasus": (
        "encoder-decoder",
        {
            **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2},
            **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
            **{"encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "decoder_start_token_id": 0},
        },
    ),
}
TOKENIZERS = {"decoder": "qwen2", "encoder": "bert", "encoder-decoder": "t5"}
CLASSES = {
    "decoder": ("AutoModelForCausalLM", "CAUSAL_LM"),
    "encoder": ("AutoModelForMaskedLM", "FEATURE_EXTRACTION"),
    "encoder-decoder": ("AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM"),
}


def write(model: Any, tokenizer: Any, folder: Path) -> Path:
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.ndim > 1:
                tensor.copy_(0.4 * drawn_like(tensor, name))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=UNSEEN)
def unseen(request, tmp_path) -> tuple[str, Path]:
    """A kind and the folder of a tiny host of a family without a data file."""
    kind, options = UNSEEN[request.param]
    tokenizer = build_tokenizer(TOKENIZERS[kind])
    special = {f"{n}_token_id": getattr(tokenizer, f"{n}_token_id") for n in ("pad", "bos", "eos")}
    config = transformers.CONFIG_MAPPING[request.param](
        vocab_size=len(tokenizer), **special, **options
    )
    model = getattr(transformers, CLASSES[kind][0]).from_config(config)
    return kind, write(model, tokenizer, tmp_path / "host")


def test_an_unseen_family_is_a_host_for_lora_as_stock_peft_has_it(unseen, tmp_path, caplog):
    kind, folder = unseen
    host = load_host(str(folder))
    assert "is not known here: LoRA goes by the names of its own layers" in caplog.text
    assert host.geometry.kind == kind
    assert not host.geometry.known
    record = json.loads(json.dumps(host.geometry.record()))
    assert geometry_from_record(record) == host.geometry

    module = made(host, "lora", classes=0, alpha=2)
    formats.save(module, tmp_path / "module", "peft")
    auto = "AutoModel" if kind == "encoder" else CLASSES[kind][0]
    stock = getattr(transformers, auto).from_pretrained(folder).eval()
    model = peft.PeftModel.from_pretrained(stock, str(tmp_path / "module")).eval()
    inputs = batch(host.tokenizer)
    theirs = answer(model, kind, inputs)
    assert (answer_of(silenced(module), host, inputs) - theirs).abs().max() > 1e-3
    torch.testing.assert_close(answer_of(module, host, inputs), theirs, atol=1e-5, rtol=1e-5)

    loaded = load_module(tmp_path / "module")
    name = HostName(name=host.name, fingerprint=host.fingerprint)
    copied = port(loaded, host.geometry, name)
    assert all(torch.equal(copied.module.tensors[n], t) for n, t in module.tensors.items())


def answer(model: Any, kind: str, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    mask = inputs["attention_mask"]
    with torch.no_grad():
        if kind == "encoder":
            return model(**inputs).last_hidden_state[mask.bool()]
        if kind == "decoder":
            return model(**inputs).logits[torch.arange(len(mask)), mask.sum(1) - 1]
        start = torch.zeros(len(mask), 1, dtype=torch.long)
        return model(**inputs, decoder_input_ids=start).logits[:, -1]


@pytest.mark.parametrize("name", ["adapter", "compacter", "prefix"])
def test_other_techniques_are_refused_with_the_reason(name, unseen):
    geometry = geometry_by_name(str(unseen[1]))
    found = technique(name)
    with pytest.raises(BadInput, match=f"{name} cannot be made for a .* its family is not known"):
        found.shapes(found.configure({}), geometry)


# Models of images and text


@pytest.fixture(scope="module")
def with_images(tmp_path_factory) -> Path:
    """A tiny Gemma 3 that sees, whose language model is the tiny host's."""
    text = build_model("gemma3_text")
    config = transformers.Gemma3Config(
        text_config=text.config.to_dict(),
        vision_config={
            **PLAIN,
            "image_size": 16,
            "patch_size": 8,
            "model_type": "siglip_vision_model",
        },
        mm_tokens_per_image=4,
        image_token_index=5,
    )
    model = transformers.AutoModelForImageTextToText.from_config(config)
    folder = tmp_path_factory.mktemp("seeing") / "host"
    write(model, build_tokenizer("gemma3_text"), folder)
    own = dict(text.named_parameters())
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            plain = name.replace("model.language_model.", "model.")
            if plain in own:
                tensor.copy_(own[plain])
    model.save_pretrained(folder)
    return folder


def test_the_host_is_the_language_model_of_one_that_sees(with_images, tiny_host, tmp_path):
    host, plain = load_host(str(with_images)), load_host(str(tiny_host("gemma3_text")))
    assert host.geometry.family == plain.geometry.family == "gemma"
    assert host.geometry.stacks == plain.geometry.stacks
    assert all("language_model" in linear.path for linear in host.geometry.linears.values())
    record = json.loads(json.dumps(host.geometry.record()))
    assert geometry_from_record(record) == host.geometry

    inputs = batch(host.tokenizer)
    module = made(host, "rslora", classes=0, alpha=1)
    bare = made(plain, "rslora", classes=0, alpha=1)
    torch.testing.assert_close(
        answer_of(module, host, inputs), answer_of(bare, plain, inputs), atol=1e-5, rtol=0
    )
    name = HostName(name=host.name, fingerprint=host.fingerprint)
    assert port(bare, host.geometry, name).account.counts()["copied"] == len(module.tensors)

    formats.save(module, tmp_path / "module", "peft")
    stock = transformers.AutoModelForImageTextToText.from_pretrained(with_images).eval()
    model = peft.PeftModel.from_pretrained(stock, str(tmp_path / "module")).eval()
    theirs = answer(model, "decoder", inputs)
    torch.testing.assert_close(answer_of(module, host, inputs), theirs, atol=1e-5, rtol=0)

"""A loaded model is what its fingerprint names, whatever else lies in its folder."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from families import ONE_OF_EACH_KIND
from peftport.errors import BadInput
from peftport.hosts import attention, load_host
from peftport.hosts.loading import load_model
from peftport.hosts.quiet import quiet_transformers
from techniques.references import batch, our_answer


@pytest.fixture
def folder(tiny_host, tmp_path):
    """Copies of tiny hosts that a test may change."""
    return lambda family: Path(shutil.copytree(tiny_host(family), tmp_path / family))


def configure(folder: Path, **keys) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
@pytest.mark.parametrize("value", ["eager", "sdpa", "flash_attention_2", None])
@pytest.mark.parametrize("key", ["_attn_implementation", "attn_implementation"])
def test_a_configuration_chooses_no_attention(family, key, value, folder):
    changed = folder(family)
    configure(changed, **{key: value})
    assert load_host(str(changed)).model.config._attn_implementation == attention.NAME


RUNTIME = {
    "return_dict": False,
    "output_attentions": True,
    "output_hidden_states": True,
    "torchscript": True,
    "use_cache": True,
    "transformers_weights": "other.safetensors",
    "chunk_size_feed_forward": 3,
    "fusion_config": {"x": 1},
    "dtype": "bfloat16",
}


@pytest.mark.parametrize("family", ONE_OF_EACH_KIND)
def test_how_a_host_was_run_changes_nothing(family, tiny_host, folder):
    changed = folder(family)
    configure(changed, **RUNTIME)
    before, after = load_host(str(tiny_host(family))), load_host(str(changed))
    assert after.fingerprint == before.fingerprint
    texts = batch(before.tokenizer)
    assert torch.equal(our_answer(after, texts), our_answer(before, texts))


def test_a_module_beside_the_weights_is_not_attached(folder, tiny_host, caplog):
    changed = folder("llama")
    with quiet_transformers():
        made = get_peft_model(
            AutoModelForCausalLM.from_pretrained(changed),
            LoraConfig(target_modules=["q_proj"], init_lora_weights=False),
        )
    made.save_pretrained(changed)
    with caplog.at_level(logging.WARNING):
        host, bare = load_host(str(changed)), load_host(str(tiny_host("llama")))
    assert host.fingerprint == bare.fingerprint
    texts = batch(bare.tokenizer)
    assert torch.equal(our_answer(host, texts), our_answer(bare, texts))
    assert f"{changed / 'adapter_config.json'} is a module beside" in caplog.text


def test_another_attention_than_ours_is_refused(tiny_host, monkeypatch):
    def other(*args, **options):
        return load_model(*args, **options | {"attn_implementation": "eager"})

    monkeypatch.setattr("peftport.hosts.host.load_model", other)
    with pytest.raises(BadInput, match="gave it attention 'eager' in place of peftport's"):
        load_host(str(tiny_host("llama")))

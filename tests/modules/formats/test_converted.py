"""Modules of other kinds are read as LoRA by peft's own conversion, with what it lost."""

from __future__ import annotations

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from modules.formats.modules import refused
from peftport.modules import load_module
from tiny_hosts import drawn_like

TARGETS = {"target_modules": ["q_proj", "v_proj"]}
KINDS = {
    "loha": lambda: peft.LoHaConfig(r=2, **TARGETS),
    "lokr": lambda: peft.LoKrConfig(r=2, **TARGETS),
}


def saved(config, host, folder):
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(host), config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(drawn_like(value, name))
    model.save_pretrained(str(folder))
    return model


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_kind_that_peft_converts_is_read_with_its_loss(kind, tiny_host, tmp_path, caplog):
    made = saved(KINDS[kind](), tiny_host("llama"), tmp_path / "theirs")
    module = load_module(tmp_path / "theirs")
    assert module.technique == "lora"
    attention = made.base_model.model.model.layers[1].self_attn
    for name, role in {"q_proj": "self.q", "v_proj": "self.v"}.items():
        wanted = getattr(attention, name).get_delta_weight("default").detach()
        up, down = (module.tensors[f"decoder.1.{role}.lora_{factor}"] for factor in "BA")
        lost = (module.config.scale * up @ down - wanted).square().sum() / wanted.square().sum()
        assert float(lost) <= 1e-4
        assert module.record.converted[f"decoder.1.{role}"] == pytest.approx(float(lost), abs=2e-6)
    assert "peft made a LoRA of it that loses at most" in caplog.text


def test_a_kind_that_peft_cannot_convert_is_refused_by_its_name(tiny_host, tmp_path):
    config = peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[])
    saved(config, tiny_host("llama"), tmp_path / "theirs")
    refused(tmp_path / "theirs", "peft_type: 'IA3' is none that peftport reads, and peft cannot")


def test_a_kind_of_prompts_is_refused_by_its_name(tiny_host, tmp_path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    saved(config, tiny_host("llama"), tmp_path / "theirs")
    refused(tmp_path / "theirs", "peft_type: 'PROMPT_TUNING' is none that peftport reads")

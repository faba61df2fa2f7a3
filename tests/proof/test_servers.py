"""What vLLM and SGLang would say of a folder, all of it at once."""

from __future__ import annotations

from typing import Any

import pytest

from peftport.proof.servers import Served, served
from tiny_runs import host_in

FACTORS = [
    f"base_model.model.model.layers.0.self_attn.q_proj.lora_{factor}.weight" for factor in "AB"
]
PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 8, "lora_alpha": 8, "bias": "none"}


def said(tiny_host, config: dict[str, Any], *more: str, family: str = "llama") -> list[Served]:
    geometry = host_in(tiny_host(family)).geometry
    return served(PLAIN | config, [*FACTORS, *more], geometry)


def test_plain_lora_on_a_decoder_is_taken(tiny_host):
    vllm, sglang = said(tiny_host, {})
    assert (vllm.server, vllm.taken, vllm.options) == ("vLLM", True, ())
    assert (sglang.server, sglang.taken) == ("SGLang", True)


@pytest.mark.parametrize(
    ("rank", "options"), [(16, ()), (17, ("--max-lora-rank 32",)), (300, ("--max-lora-rank 320",))]
)
def test_a_higher_rank_wants_an_option(rank, options, tiny_host):
    vllm, sglang = said(tiny_host, {"r": rank})
    assert vllm.taken
    assert vllm.options == options
    assert sglang.options == (f"--max-lora-rank {rank}",)


@pytest.mark.parametrize(
    ("config", "tensor", "message"),
    [
        ({"peft_type": "PREFIX_TUNING"}, None, "only LORA is served"),
        ({"modules_to_save": ["embed_tokens"]}, None, "whole modules are not taken"),
        ({"bias": "all"}, None, "trained biases"),
        ({"use_dora": True}, None, "not decomposed"),
        ({}, "base_model.model.model.embed_tokens.weight", "only factors, lora_A and lora_B"),
    ],
)
def test_what_neither_takes_is_said_of_both(config, tensor, message, tiny_host):
    for each in said(tiny_host, config, *([tensor] if tensor else [])):
        assert not each.taken
        assert message in "; ".join(each.problems)


def test_what_vllm_alone_does_not_take(tiny_host):
    vllm, sglang = said(tiny_host, {"rank_pattern": {"q_proj": 600}, "alpha_pattern": {"q": 3}})
    assert "rank 600: the most is 512" in vllm.problems
    assert [p.split(":")[0] for p in vllm.problems] == [
        "rank 600",
        "rank_pattern",
        "alpha_pattern",
    ]
    assert sglang.taken


def test_hosts_that_are_no_decoders_and_families_without_lora(tiny_host):
    vllm, sglang = said(tiny_host, {}, family="bert")
    assert "the host is an encoder: LoRA is served on decoders" in vllm.problems
    assert not sglang.taken
    vllm, _ = said(tiny_host, {}, family="gpt2")
    assert "vLLM has no LoRA for the family gpt2" in vllm.problems


def test_all_problems_are_told_at_once(tiny_host):
    config = {"r": 1024, "modules_to_save": ["lm_head"], "bias": "lora_only", "use_dora": True}
    vllm, _ = said(tiny_host, config, "base_model.model.lm_head.weight")
    assert len(vllm.problems) == 5

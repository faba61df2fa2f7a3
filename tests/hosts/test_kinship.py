"""Hosts that share weights are told from hosts that were made apart, by a few rows of each."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from peftport.hosts.kinship import NEAR, distance, near
from tiny_hosts import write_host

FAMILIES = ("llama", "gpt2", "t5", "bert", "phi3")


@pytest.mark.parametrize("family", FAMILIES)
def test_noise_is_measured_as_a_share_of_the_weights(family, tiny_host, tmp_path):
    plain = tiny_host(family)
    for noise in (0.05, 0.3):
        moved = write_host(family, tmp_path / str(noise), noise=noise)
        assert distance(plain, moved) == pytest.approx(noise, rel=0.4)
        assert near(plain, moved) and near(moved, plain)
    assert distance(plain, plain) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_hosts_made_apart_are_far_from_each_other(family, tiny_host, tmp_path):
    other = write_host(family, tmp_path / "other", seed=1)
    assert distance(tiny_host(family), other) > 2 * NEAR
    assert not near(tiny_host(family), other)


def test_one_matrix_that_is_another_is_enough(tiny_host, tmp_path):
    plain, moved = tiny_host("llama"), write_host("llama", tmp_path / "moved")
    tensors = load_file(moved / "model.safetensors")
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = torch.randn(tensors[name].shape, generator=torch.Generator().manual_seed(0))
    save_file(tensors, moved / "model.safetensors", {"format": "pt"})
    assert not near(plain, moved)


def test_other_tokens_are_another_genealogy(tiny_host, tmp_path):
    plain, moved = tiny_host("llama"), write_host("llama", tmp_path / "moved")
    tensors = load_file(moved / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    save_file(tensors, moved / "model.safetensors", {"format": "pt"})
    assert not near(plain, moved)


def test_nothing_is_said_of_other_shapes_and_of_weights_that_cannot_be_read(tiny_host, tmp_path):
    plain = tiny_host("llama")
    assert distance(plain, tiny_host("qwen2")) is None
    packed = write_host("llama", tmp_path / "packed")
    config = json.loads((packed / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (packed / "config.json").write_text(json.dumps(config))
    assert distance(plain, packed) is None
    assert not near(plain, packed)

"""Variants of other libraries' methods that peftport does not follow are refused by their key."""

from __future__ import annotations

import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file

from modules.formats.modules import CONFIG, GOLDEN, PEFT, change, made, refused, respell
from peftport.errors import BadInput
from peftport.modules import formats, load_module
from tiny_runs import host_in

# Variants of PEFT


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "LOAR"}, r"peft_type: 'LOAR' is none.* Did you mean 'LORA'\?"),
        ({"peft_type": "IA3"}, "peft_type: 'IA3' is none that peftport reads"),
        ({"peft_type": 3}, "peft_type: 3 is none that peftport reads"),
        ({"peft_type": None}, "peft_type: None is none"),
        ({"use_dora": True}, "use_dora: True is none that peftport reads, and peft cannot"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights: 'pissa' changes the host's own"),
        ({"use_tomorrow": 1}, "use_tomorrow: 1: a variant that peftport does not read"),
        ({"use_rslora": "yes"}, "use_rslora: 'yes', expected true or false"),
        *(({"r": value}, "r: .*, expected a positive number") for value in (0, -1, "8", True, 8.5)),
        *(
            ({"lora_alpha": value}, "lora_alpha: .*, expected a positive number")
            for value in (None, "x", -2.0, float("nan"), float("inf"), [])
        ),
        ({"alpha_pattern": {"(a": 4}}, r"alpha_pattern: the pattern '\(a' cannot be matched"),
        ({"alpha_pattern": {"x" * 3000: 4}}, "alpha_pattern: the pattern 'x+' cannot be matched"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern.q_proj: 'x', expected"),
        ({"alpha_pattern": [1]}, r"alpha_pattern: \[1\], expected an object"),
        ({"rank_pattern": {"q_proj": 2}}, r"shape \(4, 32\), expected \(2, 32\)"),
        ({"target_modules": ["q_proj"]}, "too much .* `target_modules` does not name it"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "lacks the tensors of .*k_proj"),
    ],
)
def test_what_peftport_does_not_know_of_peft_is_refused_by_its_key(changes, message, written):
    folder = written("peft", "llama", "lora")
    change(folder, **changes)
    refused(folder, message)


@pytest.mark.parametrize(
    ("key", "value", "advice"),
    [
        ("lora_bias", True, "where the host's layers have biases, .*lora_bias=False"),
        ("alora_invocation_tokens", [3, 5], "cannot be merged: train a plain LoRA"),
        ("target_parameters", ["mlp.experts.down_proj"], "or train a LoRA of `target_modules`"),
        ("layer_replication", [[0, 2], [1, 2]], "take the merged model as a host"),
        ("use_tomorrow", 1, "take the key out of the file; otherwise merge"),
    ],
)
def test_a_variant_is_refused_with_who_wrote_it_and_what_to_do_with_it(key, value, advice, written):
    folder = written("peft", "llama", "lora")
    change(folder, **{key: value}, peft_version="9.0")
    shown = re.escape(repr(value))
    refused(folder, f"{key}: {shown}: a variant .* written by peft 9.0.*{advice}")


@pytest.mark.parametrize(
    "content", ["[]", "3", "null", "{", "", "{}", '{"config": 3}', "[" * 100_000]
)
def test_a_configuration_of_neither_library_is_refused(content, tmp_path):
    (tmp_path / CONFIG).write_text(content)
    refused(tmp_path, CONFIG)
    with pytest.raises(BadInput, match=CONFIG):
        formats.format_of(tmp_path)


def test_a_head_on_a_pooler_that_the_host_lacks_is_refused(written, tiny_host):
    folder = written("peft", "bert", "lora", head="first")
    pooler = [name for name in load_file(folder / PEFT) if "pooler" in name]
    assert len(pooler) == 2
    respell(folder / PEFT, dict.fromkeys(pooler))
    refused(folder, "stands on the pooler of .*, which has none")


@pytest.mark.parametrize(
    ("change_of", "message"),
    [
        ({"base_model.model.classifier.bias": None}, "lacks tensor 'classifier.bias'"),
        (
            {"base_model.model.classifier.more": torch.ones(2)},
            "'classifier.more' belongs to no place",
        ),
        ({"base_model.model.classifier.weight": torch.ones(2, 31)}, r"shape \(2, 31\)"),
    ],
)
def test_a_head_that_is_not_whole_is_refused(change_of, message, written):
    folder = written("peft", "bert", "lora")
    respell(folder / PEFT, change_of)
    refused(folder, message)


def test_a_head_of_a_model_that_is_not_known_is_refused(written):
    folder = written("peft", "bert", "lora")
    change(folder, task_type=None)
    refused(folder, "'classifier.*' belongs to no place .* or a head of another kind")


def test_a_prefix_for_fewer_layers_than_the_host_has_is_refused(written):
    folder = written("peft", "t5", "prefix", attentions=("decoder.self",))
    change(folder, num_layers=1)
    refused(folder, "num_layers: 1, and the decoder has 2 layers")


# Variants of AdapterHub


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "a.b"}, "name: 'a.b' is no name of an adapter"),
        ({"name": "../x"}, "name: '../x' is no name of an adapter"),
        ({"name": None}, "name: None is no name"),
        ({"model_type": "gpt2"}, "model_type: 'gpt2', and its host"),
        ({"config__architecture": "reft"}, "config.architecture: 'reft' is none"),
        ({"config__architecture": ["lora"]}, "config.architecture: .* is none"),
        ({"config__is_parallel": True}, "config.is_parallel: True: a variant"),
        ({"config__scaling": 4.0}, "config.scaling: 4.0: a variant"),
        ({"config__scaling": "learned"}, "config.scaling: 'learned': a variant"),
        ({"config__ln_before": True}, "config.ln_before: True"),
        ({"config__leave_out": [0]}, r"config.leave_out: \[0\]"),
        ({"config__inv_adapter": "nice"}, "config.inv_adapter: 'nice'"),
        ({"config__use_tomorrow": True}, "config.use_tomorrow: True: a variant"),
        ({"config__output_adapter": False}, "is neither `double_seq_bn` nor `seq_bn`"),
        ({"config__reduction_factor": {"default": 16}}, "config.reduction_factor: .* positive"),
        ({"config__reduction_factor": 0.5}, "bottleneck wider than the host"),
        ({"config__non_linearity": "leakyrelu"}, "config.non_linearity: 'leakyrelu'; peftport"),
        ({"config__phm_layer": True}, r"tensor .* belongs to no place|does not divide"),
    ],
)
def test_what_peftport_does_not_know_of_adapters_is_refused_by_its_key(changes, message, written):
    folder = written("adapterhub", "llama", "houlsby")
    change(folder, **changes)
    refused(folder, message)


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("compacter", {"config__shared_phm_rule": False}, "config.shared_phm_rule: False"),
        ("compacter", {"config__factorized_phm_rule": True}, "config.factorized_phm_rule: True"),
        ("compacter", {"config__phm_dim": 0}, "config.phm_dim: 0, expected a positive number"),
        ("lora", {"config__use_dora": True}, "config.use_dora: True"),
        ("lora", {"config__composition_mode": "scale"}, "config.composition_mode: 'scale'"),
        ("lora", {"config__attn_matrices": ["o"]}, "config.attn_matrices: .* some of q, k and v"),
        ("lora", {"config__attn_matrices": ["q"]}, "v_proj.*belongs to no place"),
        ("lora", {"config__output_lora": True}, "lacks tensor 'model.layers.0.mlp.up_proj"),
        ("lora", {"config__r": -4}, "config.r: -4, expected a positive number"),
    ],
)
def test_variants_of_other_methods_are_refused_by_their_key(case, changes, message, written):
    folder = written("adapterhub", "llama", case)
    change(folder, **changes)
    refused(folder, message)


@pytest.mark.parametrize(
    ("version", "scale"),
    [("adapters.0.2.1", 1), ("adapters.1.0.1", 1), ("adapters.1.1.0", 3), ("3.2.1", 3)],
)
def test_lora_of_early_adapters_has_the_scale_it_was_trained_with(version, scale, written):
    """Before 1.1 the library multiplied with 1 whatever alpha said."""
    folder = written("adapterhub", "llama", "lora", alpha=12)
    change(folder, version=version)
    assert load_module(folder).config.scale == scale


def test_prefixes_on_t5_are_refused_in_adapterhub(tiny_host, with_pickle):
    change(with_pickle, model_type="t5")
    refused(
        with_pickle,
        "on t5 hosts adapters counts the positions of a prefix",
        from_host=str(tiny_host("t5")),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config__head_type": "question_answering"}, "a head of type 'question_answering'"),
        ({"config__layers": 3}, "a head of type 'classification' with 3 layers"),
        ({"config__use_pooler": True}, "2 layers on the pooler"),
        ({"config__activation_function": "swish"}, "config.activation_function: 'swish'"),
        ({"config__activation_function": ["gelu"]}, r"config.activation_function: \['gelu'\]"),
        ({"name": "other"}, "tensor 'heads.peftport.* is none of a head's"),
    ],
)
def test_heads_of_other_kinds_are_refused(changes, message, written):
    folder = written("adapterhub", "bert", "houlsby", head="first")
    change(folder, "head_config.json", **changes)
    refused(folder, message)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_language_model_s_head_that_was_trained_is_refused(family, tiny_host, tmp_path):
    name = {"llama": "lora", "t5": "double_seq_bn"}[family]
    shutil.copytree(GOLDEN / f"{family}-{name}", tmp_path / "theirs")
    host = str(tiny_host(family))
    assert load_module(tmp_path / "theirs", from_host=host)
    head = tmp_path / "theirs" / "pytorch_model_head.bin"
    trained = {
        n: t + (n == "lm_head.weight") for n, t in torch.load(head, weights_only=True).items()
    }
    torch.save(trained, head)
    refused(tmp_path / "theirs", "'lm_head.weight' is not that of .* Remove", from_host=host)
    head.unlink()
    (tmp_path / "theirs" / "head_config.json").unlink()
    assert load_module(tmp_path / "theirs", from_host=host)


# What cannot be written


@pytest.mark.parametrize(
    ("format", "family", "case", "options", "message"),
    [
        ("peft", "bert", "houlsby", {}, "peft has no adapter; .* --format adapterhub or peftport"),
        ("peft", "bert", "compacter", {}, "peft has no compacter"),
        ("peft", "t5", "prefix", {}, "before the decoder's self-attention alone"),
        ("peft", "gpt2", "prefix", {"shift_positions": False}, "shift_positions is false"),
        ("adapterhub", "gpt2", "prefix", {}, "shift_positions is true"),
        ("adapterhub", "t5", "prefix", {}, "on t5 hosts adapters counts the positions"),
        ("adapterhub", "qwen2", "houlsby", {}, "no layout .* is known for qwen hosts"),
        ("adapterhub", "gemma3_text", "houlsby", {}, "no layout .* is known for gemma hosts"),
        ("adapterhub", "bert", "lora", {"targets": ("self.o",)}, "adapters has no LoRA at self.o"),
        ("adapterhub", "t5", "lora", {"targets": ("self.q",)}, "has LoRA at cross.q wherever"),
    ],
)
def test_what_a_format_cannot_say_is_not_written(
    format, family, case, options, message, tiny_host, tmp_path
):
    module = made(host_in(tiny_host(family)), case, **options)
    with pytest.raises(BadInput, match=message):
        formats.save(module, tmp_path / "out", format)
    assert os.listdir(tmp_path) == []


def test_an_unknown_format_is_refused_with_what_is_known(tiny_host, tmp_path):
    module = made(host_in(tiny_host("bert")), "lora")
    with pytest.raises(BadInput, match=r"unknown format 'pfet'\. Did you mean 'peft'"):
        formats.save(module, tmp_path / "out", "pfet")

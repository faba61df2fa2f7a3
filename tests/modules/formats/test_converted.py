"""Every kind of module that peft has is read, or made a LoRA by peft with what that loses, or
refused by its name with what to do."""

from __future__ import annotations

import warnings
from typing import Any

import peft
import pytest
import torch
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForTokenClassification

from modules.formats.modules import change, refused, same
from peftport.modules import HostName, load_module
from peftport.modules.formats.peft import CONVERTED, REFUSED, by_type
from peftport.porting import port
from techniques.references import reference_model
from tiny_hosts import drawn_like

KINDS = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
MODEL = "base_model.model."
TARGETS: dict[str, list[str]] = {
    "llama": ["q_proj", "v_proj", "down_proj"],
    "gpt2": ["c_attn", "attn.c_proj", "c_fc"],
    "bert": ["query", "output.dense"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "DORA": {"use_dora": True},
    "ADALORA": {"init_r": 4, "total_step": 10},
    "BOFT": {"boft_block_size": 4},
    "C3A": {"block_size": 8},
    "FOURIERFT": {"n_frequency": 20},
    "GRALORA": {"r": 4},
    "IA3": {"feedforward_modules": []},
    "MISS": {"r": 4},
    "OFT": {"r": 0, "oft_block_size": 8},
    "PSOFT": {"r": 4},
    "RANDLORA": {"r": 4},
    "ROAD": {"group_size": 8},
    "SHIRA": {"r": 2},
    "VBLORA": {"r": 4, "num_vectors": 20, "vector_length": 8},
    "VERA": {"r": 4, "target_modules": ["q_proj", "o_proj"]},
    "WAVEFT": {"n_frequency": 20},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "ADAPTION_PROMPT": {"target_modules": None, "adapter_len": 4, "adapter_layers": 2},
    "MULTITASK_PROMPT_TUNING": {"target_modules": None, "num_virtual_tokens": 3, "num_tasks": 2},
    "TRAINABLE_TOKENS": {"target_modules": None, "token_indices": [3, 4]},
    "CPT": {
        "target_modules": None,
        **{"cpt_token_ids": [1, 2], "cpt_mask": [1, 1], "cpt_tokens_type_mask": [1, 1]},
    },
    **{
        kind: {"target_modules": None, "num_virtual_tokens": 3}
        for kind in ("CARTRIDGE", "PROMPT_TUNING", "P_TUNING")
    },
}
OF_MODULES = "XLORA"
"""It mixes modules that are there already."""


def made(kind: str, host, family="llama", auto=None, **options):
    """A model with a module of a kind, drawn and away from where it starts."""
    given = {"target_modules": TARGETS[family]} | OPTIONS.get(kind, {}) | options
    given = {key: value for key, value in given.items() if value is not None}
    base = auto.from_pretrained(host) if auto else reference_model(family, host)
    config = KINDS["LORA" if kind == "DORA" else kind](**given)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a kind cannot do on such a host
        model = peft.get_peft_model(base, config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.add_(drawn_like(value, name) * 0.3)
    return model


def saved(model, folder):
    model.save_pretrained(str(folder))
    return folder


def weights(model) -> dict[str, torch.Tensor]:
    """Weights by name, (outputs, inputs), of a model of transformers."""
    turned = {
        f"{name}.weight" for name, each in model.named_modules() if type(each).__name__ == "Conv1D"
    }
    return {
        name: (value.T if name in turned else value).detach().clone()
        for name, value in model.named_parameters()
    }


def require_same_change(module, model, host, family="llama", before="", auto=None):
    """A module's factors are the change of weights that peft merges, less what the record says."""
    bare = auto.from_pretrained(host) if auto else reference_model(family, host)
    own, merged = weights(bare), weights(model.merge_and_unload())
    assert module.record.converted
    assert module.record.converted.keys() == {n.rpartition(".")[0] for n in module.tensors}
    for point, told in module.record.converted.items():
        name = f"{before}{module.geometry.linears[point].path}.weight"
        change = merged[name] - own[name]
        up, down = (module.tensors[f"{point}.lora_{factor}"] for factor in "BA")
        product = module.config.scale * up @ down
        lost = float((product - change).square().sum() / change.square().sum())
        assert lost <= 2e-4
        assert told == pytest.approx(lost, abs=2e-6)


def test_the_kinds_that_are_known_are_those_that_peft_has():
    """A kind that a newer peft brings is to be tried, and listed with what becomes of it."""
    assert {*by_type(), *CONVERTED, *REFUSED} - {"DORA"} == KINDS.keys()
    assert not CONVERTED & REFUSED


@pytest.mark.parametrize("kind", sorted(CONVERTED))
def test_a_kind_that_peft_converts_is_read_with_its_loss(kind, tiny_host, tmp_path, caplog):
    model = made(kind, tiny_host("llama"))
    module = load_module(saved(model, tmp_path / "theirs"))
    assert module.technique == "lora"
    require_same_change(module, model, tiny_host("llama"))
    assert f"is a module of {kind}; a LoRA is made of it that loses at most" in caplog.text


@pytest.mark.parametrize("kind", sorted(REFUSED - {OF_MODULES}))
def test_a_kind_that_peft_cannot_convert_is_refused_by_its_name(kind, tiny_host, tmp_path):
    model = made(kind, tiny_host("llama"), task_type="CAUSAL_LM")
    with pytest.raises((TypeError, AttributeError)):
        peft.convert_to_lora(model, rank=0.99)
    told = f"peft_type: '{kind}' is none that peftport reads. Where peft can merge it"
    refused(saved(model, tmp_path / "theirs"), told)


@pytest.mark.parametrize("kind", ["ADALORA", "DORA", "GRALORA", "VBLORA"])
def test_layers_that_are_stored_transposed_are_converted(kind, tiny_host, tmp_path):
    model = made(kind, tiny_host("gpt2"), "gpt2", fan_in_fan_out=True if kind == "DORA" else None)
    module = load_module(saved(model, tmp_path / "theirs"))
    require_same_change(module, model, tiny_host("gpt2"), "gpt2")


@pytest.mark.parametrize(
    ("family", "auto", "before"),
    [
        ("bert", AutoModel, ""),
        ("bert", AutoModelForMaskedLM, "bert."),
        ("llama", AutoModel, None),
    ],
)
@pytest.mark.parametrize("kind", ["LOHA", "DORA"])
def test_a_module_is_converted_on_the_class_it_was_made_on(
    kind, family, auto, before, tiny_host, tmp_path
):
    model = made(kind, tiny_host(family), family, auto)
    module = load_module(saved(model, tmp_path / "theirs"))
    assert module.record.model.inside == (before == "bert.")
    if before is None:
        own = weights(auto.from_pretrained(tiny_host(family)))
        merged = weights(model.merge_and_unload())
        for point, told in module.record.converted.items():
            name = f"{module.geometry.linears[point].path.removeprefix('model.')}.weight"
            assert float((merged[name] - own[name]).norm()) > 0.1
            assert told < 2e-4
        return
    require_same_change(module, model, tiny_host(family), family, before, auto)


def test_the_head_beside_a_converted_module_is_read(tiny_host, tmp_path):
    auto = AutoModelForTokenClassification
    model = made("LOKR", tiny_host("bert"), "bert", auto, task_type="TOKEN_CLS")
    head = model.base_model.model.classifier.modules_to_save["default"].weight.detach().clone()
    module = load_module(saved(model, tmp_path / "theirs"))
    assert torch.equal(module.tensors["head.weight"], head)
    assert len(module.record.converted) == 6


@pytest.mark.parametrize("kind", ["DORA", "LOKR"])
def test_trained_parts_of_the_host_beside_a_converted_module_are_carried(kind, tiny_host, tmp_path):
    """They bear names that the host has too, and are none of its weights."""
    parts = ["embed_tokens", "lm_head"]
    model = made(kind, tiny_host("llama"), modules_to_save=parts, task_type="CAUSAL_LM")
    head = model.base_model.model.lm_head.modules_to_save["default"].weight.detach().clone()
    module = load_module(saved(model, tmp_path / "theirs"))
    assert torch.equal(module.tensors["embedding.output.weight"], head)
    assert module.record.embeddings.keys() == {
        "embedding.input.weight",
        "embedding.output.weight",
    }


@pytest.mark.parametrize(
    ("options", "left_out"),
    [({"modules_to_save": ["norm"]}, "norm.weight"), ({"bias": "all"}, "attn.c_proj.bias")],
)
def test_what_cannot_be_carried_beside_a_converted_module_is_told(
    options, left_out, tiny_host, tmp_path
):
    family = "gpt2" if "bias" in options else "llama"
    options = {"task_type": "CAUSAL_LM", **options}
    folder = saved(made("DORA", tiny_host(family), family, **options), tmp_path / "theirs")
    refused(folder, f"{left_out}'.*--allow-partial")
    found = load_module(folder, partial=True).record
    assert any(name.endswith(left_out) for name in found.left_out)
    assert found.converted


@pytest.mark.parametrize(
    ("kind", "rename"),
    [
        ("DORA", lambda n: f"_orig_mod.{n}"),
        ("DORA", lambda n: n.removeprefix(MODEL)),
        ("DORA", lambda n: n.removesuffix(".weight") + ".default.weight"),
        ("DORA", lambda n: f"{MODEL}{n}"),
        ("LOHA", lambda n: f"module.{n}.default"),
        ("ADALORA", lambda n: f"{n}.default"),
        ("VERA", lambda n: f"module.{n}"),
    ],
)
def test_names_as_other_savers_write_them_are_converted(kind, rename, tiny_host, tmp_path):
    folder = saved(made(kind, tiny_host("llama")), tmp_path / "theirs")
    before = load_module(folder)
    file = folder / "adapter_model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file({rename(name): tensor for name, tensor in tensors.items()}, file)
    assert same(load_module(folder), before)


def test_what_a_conversion_lost_is_in_the_account_of_a_port(tiny_host, tmp_path):
    model = made("FOURIERFT", tiny_host("llama"))
    module = load_module(saved(model, tmp_path / "theirs"))
    host = HostName(name=str(tiny_host("llama")), fingerprint="")
    account = port(module, module.geometry, host, "copy").account
    for entry in account.entries:
        lost = module.record.converted[entry.source.rpartition(".")[0]]
        assert f"made a LoRA, which lost {lost:.3%} of the change" in entry.why


def test_rows_of_tokens_beside_a_converted_module_are_read(tiny_host, tmp_path):
    model = made("DORA", tiny_host("llama"), trainable_token_indices=[3, 5])
    module = load_module(saved(model, tmp_path / "theirs"))
    rows = model.get_input_embeddings().token_adapter.trainable_tokens_delta["default"]
    assert torch.equal(module.tensors["embedding.input.rows"], rows)
    assert module.tensors["embedding.input.tokens"].tolist() == [3, 5]


def test_a_dora_of_embeddings_is_refused_by_the_key_that_says_so(tiny_host, tmp_path):
    places = {"target_modules": ["q_proj", "embed_tokens"]}
    model = made("DORA", tiny_host("llama"), **places)
    why = "use_dora: True is none that peftport reads, written by peft .*embed_tokens is none that"
    model.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    refused(tmp_path / "theirs", f"{why} a LoRA can do. Where peft can merge it")


def test_a_module_whose_host_was_changed_for_it_is_refused(tiny_host, tmp_path):
    """The change would be taken from another host than the module's."""
    model = made("DORA", tiny_host("llama"), init_lora_weights="pissa")
    refused(saved(model, tmp_path / "theirs"), "init_lora_weights: 'pissa' changes the host's own")


def test_a_key_that_the_installed_peft_does_not_know_is_refused(tiny_host, tmp_path):
    folder = saved(made("LOHA", tiny_host("llama")), tmp_path / "theirs")
    change(folder, use_twist=0.5, peft_version="9.0")
    refused(folder, "use_twist: 0.5: a variant that peftport does not read, written by peft 9.0")


def test_tensors_that_the_host_has_no_place_for_are_refused(tiny_host, tmp_path):
    folder = saved(made("LOHA", tiny_host("llama")), tmp_path / "theirs")
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n.replace("layers.1", "layers.9"): t for n, t in tensors.items()}, file)
    refused(folder, "its file lacks '.*layers.1.*', which the host has a place for. Where peft can")


def test_a_kind_of_a_newer_peft_is_tried(tiny_host, tmp_path, monkeypatch):
    monkeypatch.setattr("peftport.modules.formats.peft.CONVERTED", frozenset())
    model = made("LOHA", tiny_host("llama"))
    module = load_module(saved(model, tmp_path / "theirs"))
    require_same_change(module, model, tiny_host("llama"))


def test_a_kind_that_no_peft_knows_is_refused(tiny_host, tmp_path):
    folder = saved(made("LOHA", tiny_host("llama")), tmp_path / "theirs")
    change(folder, peft_type="LORAX")
    refused(folder, "'LORAX' is none that peftport or the peft that is installed knows. Did you")

"""What peftport writes, stock peft loads; what peft writes, peftport loads: logits within 1e-5."""

from __future__ import annotations

import json
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from families import FAMILIES, KINDS
from modules.formats.modules import answer_of, made, same, silenced
from peftport.errors import BadInput
from peftport.modules import formats, load_module
from techniques.references import batch, reference_answer
from tiny_hosts import drawn_like
from tiny_runs import host_in

ENCODERS = tuple(family for family in FAMILIES if KINDS[family] == "encoder")
AUTO = {
    "SEQ_2_SEQ_LM": AutoModelForSeq2SeqLM,
    "CAUSAL_LM": AutoModelForCausalLM,
    "FEATURE_EXTRACTION": AutoModel,
    "SEQ_CLS": AutoModelForSequenceClassification,
    "TOKEN_CLS": AutoModelForTokenClassification,
}
TASK_TYPES = {
    "encoder-decoder": "SEQ_2_SEQ_LM",
    "encoder": "FEATURE_EXTRACTION",
    "decoder": "CAUSAL_LM",
}
WRITTEN: dict[str, dict[str, Any]] = {"lora": {}, "rslora": {"alpha": 3}, "prefix": {}}


def stock(folder, task_type: str) -> Any:
    """The host as stock peft wants it for a type of task."""
    more: dict[str, Any] = {"num_labels": 2} if task_type.endswith("CLS") else {}
    if task_type == "FEATURE_EXTRACTION":
        more = {"add_pooling_layer": False}
    return AUTO[task_type].from_pretrained(folder, **more).eval()


def stock_answer(model: Any, family: str, task_type: str, inputs: dict[str, Any]) -> torch.Tensor:
    """Class logits of models with a head, otherwise the answer as of any reference."""
    if not task_type.endswith("CLS"):
        return reference_answer(model, family, inputs)
    with torch.no_grad():
        logits = model(**inputs).logits
    if task_type == "SEQ_CLS":
        return logits
    mask = inputs["attention_mask"][..., None]
    return (logits * mask).sum(1) / mask.sum(1)


def options_of(family: str, case: str) -> dict[str, Any]:
    """Of a module that peft can have: it puts prefixes into T5's decoder alone."""
    here = KINDS[family] == "encoder-decoder" and case == "prefix"
    return WRITTEN[case] | ({"attentions": ("decoder.self",)} if here else {})


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, bare: torch.Tensor) -> None:
    """Both agree within 1e-5, and the module changes the answer by far more than that."""
    assert (bare - theirs).abs().max() > 0.03
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)  # products differ by processor


WRITTEN_CASES = [
    (family, case, head)
    for family in FAMILIES
    for case in WRITTEN
    for head in (("mean", "first", None) if KINDS[family] == "encoder" else (None,))
]


@pytest.mark.parametrize(("family", "case", "head"), WRITTEN_CASES)
def test_stock_peft_loads_what_is_written(family, case, head, tiny_host, tmp_path):
    host = host_in(tiny_host(family))
    module = made(host, case, head or "mean", 2 if head else 0, **options_of(family, case))
    formats.save(module, tmp_path / "module", "peft")

    task_type = peft.PeftConfig.from_pretrained(str(tmp_path / "module")).task_type
    model = peft.PeftModel.from_pretrained(
        stock(tiny_host(family), task_type), str(tmp_path / "module")
    ).eval()
    inputs = batch(host.tokenizer)
    theirs = stock_answer(model, family, task_type, inputs)
    assert_same(answer_of(module, host, inputs), theirs, answer_of(silenced(module), host, inputs))


# What peft writes

TARGETS = {
    "t5": ["q", "wo"],
    "bert": ["query", "attention.output.dense"],
    "gpt2": ["c_attn", "c_proj"],
    "llama": ["q_proj", "up_proj"],
}
LORA: dict[str, dict[str, Any]] = {
    "defaults": {},
    "rank-stabilised, of other alpha": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "everything by an expression": {"r": 2, "target_modules": "all-linear"},
}


def from_peft(family, folder, config, into, seed: str = "", dtype=torch.float32) -> Any:
    """Save a module of peft's with drawn tensors; the model with it is returned."""
    model = peft.get_peft_model(stock(folder, config.task_type), config).eval()
    state = peft.get_peft_model_state_dict(model)
    drawn = {name: drawn_like(t, seed + name).to(dtype).float() for name, t in state.items()}
    peft.set_peft_model_state_dict(model, drawn)
    model.save_pretrained(str(into))
    return model


def assert_read_as_it_is(family, config, tiny_host, tmp_path) -> Any:
    """What peft saved answers here as it does there; the module is returned."""
    host = host_in(tiny_host(family))
    inputs = batch(host.tokenizer)
    model = from_peft(family, tiny_host(family), config, tmp_path / "theirs")
    theirs = stock_answer(model, family, config.task_type, inputs)
    module = load_module(tmp_path / "theirs")
    assert module.record.host.name == str(tiny_host(family))
    assert module.record.host.fingerprint == ""
    assert_same(answer_of(module, host, inputs), theirs, answer_of(silenced(module), host, inputs))
    return module


@pytest.mark.parametrize("options", LORA.values(), ids=LORA.keys())
@pytest.mark.parametrize("family", FAMILIES)
def test_lora_of_peft_s_is_read(family, options, tiny_host, tmp_path):
    config = peft.LoraConfig(
        task_type=TASK_TYPES[KINDS[family]], fan_in_fan_out=family == "gpt2", **options
    )
    module = assert_read_as_it_is(family, config, tiny_host, tmp_path)
    assert module.technique == "lora"
    assert module.config.rank == config.r
    assert module.config.rslora == config.use_rslora


@pytest.mark.parametrize("family", FAMILIES)
def test_prefixes_of_peft_s_are_read(family, tiny_host, tmp_path):
    different = {"token_dim": 24} if family == "t5" else {}
    config = peft.PrefixTuningConfig(
        task_type=TASK_TYPES[KINDS[family]], num_virtual_tokens=3, **different
    )
    module = assert_read_as_it_is(family, config, tiny_host, tmp_path)
    assert module.config.length == 3
    if KINDS[family] == "encoder-decoder":
        keys = [module.tensors[f"decoder.{layer}.self.keys"] for layer in range(2)]
        assert torch.equal(*keys)  # of two stored layers peft uses the first, twice


@pytest.mark.parametrize("family", list(TARGETS))
def test_ranks_and_scales_of_their_own_are_evened_out(family, tiny_host, tmp_path):
    one, other = TARGETS[family]
    paths = [linear.path for linear in host_in(tiny_host(family)).geometry.linears.values()]
    (*_, deep) = (path for path in paths if path.endswith(one))
    config = peft.LoraConfig(
        task_type=TASK_TYPES[KINDS[family]],
        r=4,
        lora_alpha=8,
        target_modules=[one, other],
        rank_pattern={one: 2},
        alpha_pattern={other: 6, deep: 5},
        fan_in_fan_out=family == "gpt2",
    )
    module = assert_read_as_it_is(family, config, tiny_host, tmp_path)
    assert module.config.rank == 4


def test_places_in_some_layers_get_zeros_in_the_others(tiny_host, tmp_path, caplog):
    caplog.set_level("INFO", "peftport")
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], layers_to_transform=[1]
    )
    module = assert_read_as_it_is("llama", config, tiny_host, tmp_path)
    assert not module.tensors["decoder.0.self.q.lora_A"].any()
    assert module.tensors["decoder.1.self.q.lora_A"].any()
    assert module.config.targets == ("self.q",)
    assert "1 of 2 places are not in the file" in caplog.text


@pytest.mark.parametrize(
    ("made", "told", "why"),
    [
        ([0, 1], 1, r"too much \(1 places\): `target_modules` with `layers_to_transform` does not"),
        ([1], [0, 1], r"lacks the tensors of 'model.layers.0.self_attn.q_proj' \(1 places missing"),
        ([1], [1, "0"], r"layers_to_transform: \[1, '0'\] is no number of a layer and no list"),
    ],
)
def test_layers_that_the_tensors_gainsay_are_refused(made, told, why, tiny_host, tmp_path):
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", target_modules=["q_proj"], layers_to_transform=made
    )
    from_peft("llama", tiny_host("llama"), config, tmp_path / "theirs")
    written = tmp_path / "theirs" / "adapter_config.json"
    written.write_text(json.dumps(json.loads(written.read_text()) | {"layers_to_transform": told}))
    with pytest.raises(BadInput, match=why):
        load_module(tmp_path / "theirs")


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "TOKEN_CLS"])
@pytest.mark.parametrize("technique", ["lora", "prefix"])
@pytest.mark.parametrize("family", ENCODERS)
def test_heads_of_peft_s_are_read(family, technique, task_type, host_with_pooler, tmp_path):
    config = (
        peft.LoraConfig(task_type=task_type, r=4, lora_alpha=12)
        if technique == "lora"
        else peft.PrefixTuningConfig(task_type=task_type, num_virtual_tokens=3)
    )
    module = assert_read_as_it_is(family, config, host_with_pooler, tmp_path)
    assert module.record.head == ("first" if task_type == "SEQ_CLS" else "mean")
    assert module.record.task == {"name": "unknown", "labels": [0, 1], "label_words": None}
    formats.save(module, tmp_path / "again", "peft")
    assert same(load_module(tmp_path / "again"), module)


def test_a_module_in_half_precision_is_read(tiny_host, tmp_path):
    config = peft.LoraConfig(task_type="CAUSAL_LM")
    from_peft("llama", tiny_host("llama"), config, tmp_path / "theirs", dtype=torch.bfloat16)
    before = load_module(tmp_path / "theirs")
    path = tmp_path / "theirs" / "adapter_model.safetensors"
    half = {name: tensor.bfloat16() for name, tensor in load_file(path).items()}
    save_file(half, path)
    assert same(load_module(tmp_path / "theirs"), before)

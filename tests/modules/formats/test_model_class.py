"""A module of PEFT keeps the class of model that it was made on, its type, and what loads it."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

import peftport as pp
from modules.formats.modules import made
from peftport.hosts import load_host
from peftport.hosts.quiet import quiet_transformers
from peftport.hosts.source import geometry_by_name
from peftport.lab import folder as lab_folder
from peftport.modules import HostName, formats, load_module
from peftport.porting import port
from peftport.techniques import technique
from tiny_runs import host_in

FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"
CLASSES = {
    "bare decoder": ("llama", "AutoModel", "FEATURE_EXTRACTION", ["q_proj", "v_proj"]),
    "bare GPT-2": ("gpt2", "AutoModel", "FEATURE_EXTRACTION", ["c_attn"]),
    "causal": ("llama", "AutoModelForCausalLM", "CAUSAL_LM", ["q_proj", "v_proj"]),
    "masked": ("bert", "AutoModelForMaskedLM", None, ["query", "value"]),
    "masked RoBERTa": ("roberta", "AutoModelForMaskedLM", None, ["query", "value"]),
    "bare encoder": ("bert", "AutoModel", "FEATURE_EXTRACTION", ["query", "value"]),
    "answers": ("bert", "AutoModelForQuestionAnswering", None, ["query"]),
    "T5": ("t5", "AutoModelForSeq2SeqLM", "SEQ_2_SEQ_LM", ["q", "v"]),
}


def bare(auto: str, folder: Path) -> Any:
    torch.manual_seed(0)
    with quiet_transformers():
        return getattr(transformers, auto).from_pretrained(folder).eval()


def saved(auto: str, folder: Path, to: Path, dtype: torch.dtype, **config: Any) -> Path:
    """A LoRA with drawn factors, saved by stock peft."""
    model = get_peft_model(bare(auto, folder), LoraConfig(init_lora_weights=False, r=2, **config))
    model.save_pretrained(to)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(to / FILE).items()}
    save_file(tensors, to / FILE, metadata={"format": "pt"})
    return to


def ported(donor: Path, receiver: Path, out: Path, method: str = "copy") -> Path:
    name = HostName(name=str(receiver), fingerprint="")
    found = port(load_module(donor), geometry_by_name(str(receiver)), name, method)
    formats.save(found.module, out, "peft", found.account.record())
    return out


def effect(auto: str, folder: Path, module: Path, family: str) -> float:
    """By how much stock peft changes the first output of the class with a module."""
    more = {"decoder_input_ids": torch.ones(1, 1, dtype=torch.long)} if family == "t5" else {}
    ids = torch.arange(7, 14)[None]
    with torch.no_grad():
        before = bare(auto, folder)(ids, **more)[0]
        after = PeftModel.from_pretrained(bare(auto, folder), module).eval()(ids, **more)[0]
    return float((after - before).abs().max())


@pytest.mark.parametrize("case", CLASSES)
def test_a_module_is_written_for_the_class_that_it_was_made_on(
    case, tiny_host, tiny_continuation, tmp_path
):
    family, auto, kind, targets = CLASSES[case]
    config = {"task_type": kind, "target_modules": targets, "fan_in_fan_out": family == "gpt2"}
    donor = saved(auto, tiny_host(family), tmp_path / "donor", torch.float32, **config)
    out = ported(donor, tiny_continuation(family), tmp_path / "out")
    before, after = load_file(donor / FILE), load_file(out / FILE)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    old, new = (json.loads((folder / CONFIG).read_text()) for folder in (donor, out))
    assert (new["task_type"], new["auto_mapping"]) == (old["task_type"], old["auto_mapping"])
    assert effect(auto, tiny_continuation(family), out, family) > 1e-3
    assert f"host = {auto}.from_pretrained(" in (out / "README.md").read_text()
    again = ported(out, tiny_host(family), tmp_path / "again")  # now from peftport's own record
    assert load_file(again / FILE).keys() == before.keys()


def test_without_what_peftport_kept_it_is_read_the_same(tiny_host, tmp_path):
    config = {"task_type": "FEATURE_EXTRACTION", "target_modules": ["q_proj"]}
    donor = saved("AutoModel", tiny_host("llama"), tmp_path / "donor", torch.float32, **config)
    out = ported(donor, tiny_host("llama"), tmp_path / "out")
    kept = load_module(out).record.model
    (out / "peftport.json").unlink()
    assert load_module(out).record.model == kept


def test_layers_that_are_named_by_their_whole_paths_are_so_in_that_class(tiny_host, tmp_path):
    layers = [f"layers.{layer}.self_attn.q_proj" for layer in (0,)]
    config = {"task_type": "FEATURE_EXTRACTION", "target_modules": layers}
    donor = saved("AutoModel", tiny_host("llama"), tmp_path / "donor", torch.float32, **config)
    out = ported(donor, tiny_host("llama"), tmp_path / "out")
    assert effect("AutoModel", tiny_host("llama"), out, "llama") > 1e-3


def test_a_module_of_another_kind_of_host_is_for_the_usual_class_and_says_so(
    tiny_host, tmp_path, caplog
):
    config = {"task_type": "FEATURE_EXTRACTION", "target_modules": ["q_proj"]}
    donor = saved("AutoModel", tiny_host("llama"), tmp_path / "donor", torch.float32, **config)
    module, host = load_module(donor), host_in(tiny_host("bert"))
    record = module.record.model_copy(update={"geometry": host.geometry.record()})
    lora = technique("lora")
    shapes = lora.shapes(lora.configure(record.config | {"targets": None}), host.geometry)
    record = record.model_copy(update={"config": record.config | {"targets": None}})
    tensors = {name: torch.ones(shape) for name, shape in shapes.items()}
    with caplog.at_level(logging.WARNING):
        formats.save(type(module)(record, tensors), tmp_path / "out", "peft")
    assert "made on a model of another kind (FEATURE_EXTRACTION); it is now for AutoModel" in (
        caplog.text
    )


# The type


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("format", ["peft", "peftport", "adapterhub"])
def test_a_copy_keeps_the_type_bit_for_bit(dtype, format, tiny_host, tmp_path):
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
    folder = tiny_host("llama")
    donor = saved("AutoModelForCausalLM", folder, tmp_path / "donor", dtype, **config)
    name = HostName(name=str(folder), fingerprint="")
    module = load_module(donor)
    copied = port(module, module.geometry, name, "copy").module
    formats.save(copied, tmp_path / "out", format)
    files = sorted((tmp_path / "out").glob("*.safetensors"))
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    found = load_module(tmp_path / "out")
    assert all(torch.equal(found.tensors[n], t) for n, t in module.tensors.items())
    if format == "peft":
        before = load_file(donor / FILE)
        assert all(torch.equal(before[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["gaussian", "spectrum", "scratch"])
def test_other_methods_write_the_donor_s_type_and_test_what_they_write(
    dtype, method, tiny_host, tmp_path
):
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
    folder = tiny_host("llama")
    donor = saved("AutoModelForCausalLM", folder, tmp_path / "donor", dtype, **config)
    out = ported(donor, folder, tmp_path / "out", method)
    assert {tensor.dtype for tensor in load_file(out / FILE).values()} == {dtype}
    module = load_module(donor)
    name = HostName(name=str(folder), fingerprint="")
    again = port(module, module.geometry, name, method).module
    assert all(torch.equal(t, load_module(out).tensors[n]) for n, t in again.tensors.items())


def test_files_of_several_types_are_written_in_single_precision(tiny_host, tmp_path):
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
    folder = tiny_host("llama")
    donor = saved("AutoModelForCausalLM", folder, tmp_path / "donor", torch.bfloat16, **config)
    tensors = load_file(donor / FILE)
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first].float()}, donor / FILE, metadata={"format": "pt"})
    assert load_module(donor).record.dtype == "float32"


def test_scales_that_are_folded_in_are_not_rounded_off(tiny_host, tmp_path):
    config = {
        "task_type": "CAUSAL_LM",
        "target_modules": ["q_proj", "v_proj"],
        "alpha_pattern": {"v_proj": 7},
    }
    folder = tiny_host("llama")
    donor = saved("AutoModelForCausalLM", folder, tmp_path / "donor", torch.bfloat16, **config)
    assert load_module(donor).record.dtype == "float32"


def test_a_pickle_s_type_is_kept_as_well(tiny_host, tmp_path):
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
    folder = tiny_host("llama")
    donor = saved("AutoModelForCausalLM", folder, tmp_path / "donor", torch.bfloat16, **config)
    torch.save(load_file(donor / FILE), donor / "adapter_model.bin")
    (donor / FILE).unlink()
    assert load_module(donor).record.dtype == "bfloat16"


def test_what_the_donor_s_type_cannot_hold_is_written_in_single_precision(
    tiny_host, tmp_path, caplog
):
    config = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]}
    folder = tiny_host("llama")
    donor = saved("AutoModelForCausalLM", folder, tmp_path / "donor", torch.float16, **config)
    module = load_module(donor)
    large = {name: tensor.sign() * 1e6 for name, tensor in module.tensors.items()}
    name = HostName(name=str(folder), fingerprint="")
    copied = port(type(module)(module.record, large), module.geometry, name, "copy").module
    assert copied.record.dtype == "float32"
    assert "beyond those of float16" in caplog.text


# Names


@pytest.mark.parametrize("format", ["peft", "adapterhub"])
def test_a_revision_is_written_as_one(format, tiny_host, tmp_path):
    module = made(host_in(tiny_host("bert")), "lora")
    host = HostName(name="some/base@refs/pr/3", fingerprint="")
    module = type(module)(module.record.model_copy(update={"host": host}), module.tensors)
    formats.save(module, tmp_path / "out", format)
    config = json.loads((tmp_path / "out" / CONFIG).read_text())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "from_pretrained('some/base', revision='refs/pr/3'" in card
    assert 'base_model: "some/base"' in card
    if format == "peft":
        assert (config["base_model_name_or_path"], config["revision"]) == ("some/base", "refs/pr/3")
    else:
        assert config["model_name"] == "some/base"
    assert load_module(tmp_path / "out").record.host.name == "some/base@refs/pr/3"
    if format == "peft":
        (tmp_path / "out" / "peftport.json").unlink()
        loaded = load_module(tmp_path / "out", from_host=str(tiny_host("bert")))
        assert loaded.record.host.name == str(tiny_host("bert"))


@pytest.mark.parametrize("format", ["peft", "adapterhub", "peftport"])
@pytest.mark.parametrize("given", ["{name}", "./{name}", "../{up}/{name}"])
def test_folders_are_written_by_their_whole_paths(format, given, tiny_host, tmp_path, monkeypatch):
    folder = tiny_host("bert")
    monkeypatch.chdir(folder.parent)
    name = HostName(name=given.format(name=folder.name, up=folder.parent.name), fingerprint="")
    module = made(host_in(folder), "lora")
    record = module.record.model_copy(update={"host": name, "origin": name})
    formats.save(type(module)(record, module.tensors), tmp_path / "out", format)
    monkeypatch.chdir(tmp_path)
    found = load_module(tmp_path / "out").record
    assert found.host.name == found.origin.name == str(folder)
    assert f"from_pretrained('{folder}'" in (tmp_path / "out" / "README.md").read_text() or (
        format == "peftport"
    )


def test_a_host_of_the_lab_is_written_by_its_folder(tmp_path):
    module = made(load_host("lab:small"), "lora")
    name = HostName(name="lab:small", fingerprint="")
    record = module.record.model_copy(update={"host": name})
    formats.save(type(module)(record, module.tensors), tmp_path / "out", "peft")
    config = json.loads((tmp_path / "out" / CONFIG).read_text())
    assert config["base_model_name_or_path"] == str(lab_folder("small"))
    assert load_module(tmp_path / "out").record.host.name == "lab:small"


@pytest.mark.parametrize("case", CLASSES)
def test_verify_loads_the_class_that_a_folder_is_for(case, tiny_host, tmp_path):
    family, auto, kind, targets = CLASSES[case]
    asked = {"task_type": kind, "target_modules": targets, "fan_in_fan_out": family == "gpt2"}
    folder = saved(auto, tiny_host(family), tmp_path / "m", torch.float32, **asked)
    found = pp.verify(folder, tiny_host(family))
    assert found.problems == ()
    assert found.acts
    usual = case in ("causal", "bare encoder", "T5")
    assert found.equal is (True if usual else None)
    assert any("runs such hosts as another class" in note for note in found.notes) is not usual


def test_a_task_type_that_peft_does_not_have_is_left_out(tiny_host, tmp_path, caplog):
    host = tiny_host("llama")
    theirs = tmp_path / "theirs"
    saved("AutoModelForCausalLM", host, theirs, torch.float32, target_modules=["q_proj"])
    config = json.loads((theirs / CONFIG).read_text())
    (theirs / CONFIG).write_text(json.dumps(config | {"task_type": "EMBEDDING"}))
    with caplog.at_level(logging.WARNING):
        out = ported(theirs, host, tmp_path / "out")
    assert "task_type 'EMBEDDING' is none that peft has" in caplog.text
    assert json.loads((out / CONFIG).read_text())["task_type"] is None
    assert effect("AutoModelForCausalLM", host, out, "llama") > 0.01


@pytest.mark.parametrize(
    ("auto", "task_type"),
    [
        ("AutoModelForSequenceClassification", "SEQ_CLS"),
        ("AutoModelForTokenClassification", "TOKEN_CLS"),
        ("AutoModelForQuestionAnswering", "QUESTION_ANS"),
    ],
)
def test_without_its_head_a_module_is_for_the_usual_class(
    auto, task_type, tiny_host, tmp_path, caplog
):
    """peft loads nothing of a folder that says it has a head and has none."""
    host = tiny_host("llama")
    targets = ["q_proj", "v_proj"]
    saved(auto, host, tmp_path / "d", torch.float32, task_type=task_type, target_modules=targets)
    donor = load_module(tmp_path / "d", partial=True)
    tensors = {name: t for name, t in donor.tensors.items() if not name.startswith("head.")}
    record = donor.record.model_copy(update={"head": "mean"})
    without = replace(donor, record=record, tensors=tensors)
    formats.save(without, tmp_path / "ported", "peft")
    assert caplog.text.count("it is now for AutoModelForCausalLM") == 1
    assert f"with a head that it does not bring along ({task_type})" in caplog.text
    found = pp.verify(tmp_path / "ported", host)
    assert found.passed
    assert "AutoModelForCausalLM" in (tmp_path / "ported" / "README.md").read_text()

"""A folder that is no module's says what it is, and which folder to name."""

from __future__ import annotations

import shutil

import pytest

from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.modules import formats, load_module, read_outline
from peftport.modules.found import find_module
from tiny_runs import host_in


@pytest.fixture
def module(tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "module", "peft")
    return tmp_path / "module"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("checkpoint-9", "checkpoint-100"), "run's folder: .*: checkpoint-9, checkpoint-100"),
        (("english", "german"), "holds 2 modules: name one of its sub-folders: english, german"),
        (("adapters/default",), "holds 1 modules: .* adapters/default"),
    ],
)
@pytest.mark.parametrize("read", [load_module, read_outline, formats.format_of])
def test_a_folder_that_holds_modules_names_them(names, message, read, module, tmp_path):
    for name in names:
        shutil.copytree(module, tmp_path / "run" / name)
    with pytest.raises(BadInput, match=message):
        read(tmp_path / "run")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "It is a whole model: a module that was merged"),
        ("adapter_fusion_config.json", "fusion of adapters"),
        ("adapter_model.safetensors", "no adapter_config.json: copy that beside"),
        ("pytorch_lora_weights.safetensors", "a LoRA of diffusers"),
        ("lora.gguf", "a module in one is not read"),
        ("global_step20", r"DeepSpeed: .* with its zero_to_fp32\.py"),
        ("study.sqlite", "It is a study's folder"),
        ("notes.txt", "has a module.json or an adapter_config.json"),
    ],
)
def test_a_folder_that_is_something_else_says_so(file, message, tmp_path):
    (tmp_path / file).write_text("{}")
    with pytest.raises(BadInput, match=message):
        load_module(tmp_path)


def test_a_file_of_a_module_is_told_to_be_one(module):
    with pytest.raises(BadInput, match="is a file: name the folder that it lies in"):
        load_module(module / "adapter_model.safetensors")


def test_an_adapter_of_mlx_is_told_to_be_one(module):
    (module / "adapter_config.json").write_text('{"fine_tune_type": "lora"}')
    with pytest.raises(BadInput, match="is of MLX"):
        load_module(module)


def test_a_hub_name_is_fetched(module, monkeypatch):
    asked = []

    def download(name, revision, allow_patterns):
        asked.append((name, revision))
        return str(module)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_module("some/lora@v2") == module
    assert load_module("some/lora").technique == "lora"
    assert asked == [("some/lora", "v2"), ("some/lora", None)]


def test_a_hub_name_that_is_not_there_is_told():
    with pytest.raises(
        BadInput,
        match=r"module 'some/nothing' was not found: .*some/nothing does not exist; the hub",
    ):
        load_module("some/nothing")

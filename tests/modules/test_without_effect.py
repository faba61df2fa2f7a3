"""Saves that went wrong are told: a module that changes nothing, and files without numbers."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.formats.modules import PEFT, made
from modules.formats.test_saved_by_others import from_stock
from peftport.errors import BadInput
from peftport.hosts import load_host
from peftport.modules import formats, load_module
from peftport.modules.module import TENSORS
from tiny_runs import host_in

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n"
GATES = {
    "lora": ("lora_B", "lora_A"),
    "houlsby": ("up.",),
    "compacter": ("up.", "phm_rule"),
}
EACH = [(name, gate) for name, gates in GATES.items() for gate in gates]


@pytest.fixture
def folder(tiny_host, tmp_path):
    """Folders of modules with drawn tensors, in a format."""

    def make(technique: str, format: str) -> Path:
        formats.save(made(host_in(tiny_host("bert")), technique), tmp_path / "module", format)
        (tmp_path / "module" / "peftport.json").unlink(missing_ok=True)
        return tmp_path / "module"

    return make


def change(file: Path, to) -> None:
    tensors = {name: to(name, tensor) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(("technique", "gate"), EACH)
def test_a_module_that_changes_nothing_is_told(technique, gate, folder, caplog):
    place = folder(technique, "peftport")
    load_module(place)
    assert "changes nothing" not in caplog.text
    change(place / TENSORS, lambda name, t: t * 0 if gate in name or "up.bias" in name else t)
    with caplog.at_level(logging.WARNING):
        load_module(place)
    assert f"notice: {place}: every " in caplog.text
    assert "is zero: the module changes nothing" in caplog.text


def test_trained_embeddings_are_an_effect(tiny_host, tmp_path, caplog):
    from_stock(tiny_host("llama"), tmp_path / "theirs", modules_to_save=["embed_tokens"])
    change(tmp_path / "theirs" / PEFT, lambda n, t: t * 0 if "lora_B" in n else t)
    with caplog.at_level(logging.WARNING):
        load_module(tmp_path / "theirs")
    assert "changes nothing but for its embeddings" in caplog.text


def test_so_is_one_of_another_library(folder, caplog):
    place = folder("lora", "peft")
    change(place / "adapter_model.safetensors", lambda n, t: t * 0 if "lora_B" in n else t)
    with caplog.at_level(logging.WARNING):
        load_module(place)
    assert "every lora_B is zero: the module changes nothing" in caplog.text


def test_zeros_in_one_layer_are_no_news(folder, caplog):
    place = folder("lora", "peftport")
    change(place / TENSORS, lambda name, t: t * 0 if ".0." in name and "lora_B" in name else t)
    with caplog.at_level(logging.WARNING):
        load_module(place)
    assert "changes nothing" not in caplog.text


def test_one_factor_here_and_the_other_there_are_told(folder, caplog):
    place = folder("lora", "peftport")
    change(place / TENSORS, lambda name, t: t * 0 if (".0." in name) == ("lora_B" in name) else t)
    with caplog.at_level(logging.WARNING):
        load_module(place)
    assert "at each place lora_B or lora_A is zero: the module changes nothing" in caplog.text


FILES = [
    ("peftport", TENSORS),
    ("peft", "adapter_model.safetensors"),
    ("adapterhub", "adapter.safetensors"),
]


@pytest.mark.parametrize(("format", "file"), FILES)
def test_a_file_without_tensors_is_named_as_what_it_is(format, file, folder):
    place = folder("lora", format)
    whole = load_file(place / file)
    save_file({}, place / file)
    with pytest.raises(BadInput, match=f"{file}: it holds no tensor at all. So DeepSpeed ZeRO 3"):
        load_module(place)
    save_file({name: torch.empty(0) for name in whole}, place / file)
    message = f"{file}: {len(whole)} of its {len(whole)} tensors hold no number"
    with pytest.raises(BadInput, match=message):
        load_module(place)


def test_a_pickle_without_tensors_is_named_as_what_it_is(folder):
    place = folder("lora", "peft")
    (place / "adapter_model.safetensors").unlink()
    torch.save({}, place / "adapter_model.bin")
    with pytest.raises(BadInput, match="bin: it holds no tensor at all"):
        load_module(place)


@pytest.mark.parametrize(
    ("format", "file"), [*FILES, ("peftport", "module.json"), ("peft", "adapter_config.json")]
)
def test_a_pointer_of_git_lfs_is_named_as_what_it_is(format, file, folder):
    place = folder("lora", format)
    (place / file).write_text(POINTER)
    with pytest.raises(BadInput, match=f"{file} is a git-lfs pointer .* `git lfs pull`"):
        load_module(place)


def test_so_is_one_in_place_of_a_pickle_or_of_a_host_s_weights(folder, tiny_host, tmp_path):
    place = folder("lora", "peft")
    (place / "adapter_model.safetensors").rename(place / "adapter_model.bin")
    (place / "adapter_model.bin").write_text(POINTER)
    with pytest.raises(BadInput, match=r"adapter_model\.bin is a git-lfs pointer"):
        load_module(place)
    host = Path(shutil.copytree(tiny_host("bert"), tmp_path / "host"))
    (host / "model.safetensors").write_text(POINTER)
    with pytest.raises(BadInput, match=r"model\.safetensors is a git-lfs pointer"):
        load_host(str(host))

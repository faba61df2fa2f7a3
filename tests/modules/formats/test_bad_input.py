"""Folders of other libraries that cannot be read are refused by file and key or tensor."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modules.formats.modules import CONFIG, HUB, PEFT, change, read_apart, refused, respell
from peftport.errors import BadInput
from peftport.modules import load_module, read_outline

# The host


@pytest.mark.parametrize("name", [None, "", "  ", 3, ["bert"]])
def test_a_module_without_a_host_s_name_asks_for_one(name, written, tiny_host):
    folder = written("peft", "llama", "lora")
    change(folder, base_model_name_or_path=name)
    refused(folder, f"{CONFIG}: base_model_name_or_path: it does not say which host.*--from-host")
    assert load_module(folder, from_host=str(tiny_host("llama"))).technique == "lora"


def test_a_module_of_adapterhub_without_a_host_s_name_asks_for_one(written):
    folder = written("adapterhub", "llama", "houlsby")
    change(folder, model_name="")
    refused(folder, f"{CONFIG}: model_name: it does not say which host")


@pytest.mark.parametrize(
    "name",
    [
        *("../llama", "a/../../etc", "./llama", "..", "~/llama", "~root/llama"),
        *("file:///etc", "https://example.org/x", "a\\..\\b", "llama\n", "llama\0"),
    ],
)
@pytest.mark.parametrize("format", ["peft", "adapterhub"])
def test_a_host_s_name_that_leads_elsewhere_is_not_followed(
    name, format, written, tiny_host, monkeypatch
):
    folder = written(format, "llama", "lora")
    key = "base_model_name_or_path" if format == "peft" else "model_name"
    change(folder, **{key: name})
    # Where the trick would lead to a host, it is refused all the same.
    monkeypatch.chdir(tiny_host("llama"))
    refused(folder, rf"{key}: .*(not followed|neither a hub name).*--from-host")


def test_a_revision_that_leads_elsewhere_is_not_followed(written):
    folder = written("peft", "llama", "lora")
    change(folder, base_model_name_or_path="some/llama", revision="../../x")
    refused(folder, "revision: '../../x' is no revision")


def test_a_host_that_is_gone_is_asked_for(written, tmp_path):
    folder = written("peft", "llama", "lora")
    change(folder, base_model_name_or_path=str(tmp_path / "gone"))
    refused(folder, "base_model_name_or_path is .*gone.* was not found.*--from-host")


def test_the_wrong_host_is_told_by_its_places(written, tiny_host):
    refused(
        written("peft", "llama", "lora"),
        "has no LoRA tensor for a bert host",
        from_host=str(tiny_host("bert")),
    )
    refused(
        written("adapterhub", "llama", "houlsby"),
        "model_type: 'llama', and its host .* is of family bert",
        from_host=str(tiny_host("bert")),
    )


# The tensors

A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"
V = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"
DOWN = "model.layers.0.attention_adapters.adapters.peftport.adapter_down.0.weight"
SPOILT = [
    ({A: None}, f"lacks tensor '{A}'"),
    ({A: None, A.replace("_A", "_B"): None}, r"lacks the tensors of 'model\.layers\.1.*q_proj'"),
    ({"more": torch.ones(2)}, "tensor 'more' belongs to no place of a llama host"),
    ({A.replace("q_proj", "k_proj"): torch.ones(4, 32)}, "lacks tensor .*k_proj.*lora_B"),
    ({A.replace("lora_A", "lora_magnitude_vector"): torch.ones(32)}, "lora_magnitude_vector"),
    ({"base_model.model.score.weight": torch.ones(2, 32)}, "tensor 'score.weight' .* no place"),
    ({A: torch.ones(4, 31)}, rf"'{A}' has shape \(4, 31\), expected \(4, 32\)"),
    ({A: torch.ones(5, 32)}, rf"'{A}' has shape \(5, 32\), expected \(4, 32\)"),
    ({V: torch.ones(16, 4, 1)}, rf"'{V}' has shape \(16, 4, 1\), expected \(16, 4\)"),
    ({A.replace("model.model.model", "model.model"): torch.ones(4, 32)}, "are one place"),
    ({A: torch.ones(4, 32, dtype=torch.int32)}, f"tensor '{A}' is of type I32, expected floats"),
    ({A: torch.ones(4, 32, dtype=torch.bool)}, f"tensor '{A}' is of type BOOL"),
]
NOT_FINITE = [torch.nan, torch.inf, -torch.inf]


@pytest.mark.parametrize(("changes", "message"), SPOILT)
def test_tensors_that_do_not_belong_are_refused_by_name(changes, message, written):
    folder = written("peft", "llama", "lora")
    respell(folder / PEFT, changes)
    refused(folder, message)
    with pytest.raises(BadInput, match=message):
        read_outline(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({DOWN: None}, f"lacks tensor '{DOWN}'"),
        ({"more": torch.ones(2)}, "tensor 'more' belongs to no place"),
        ({DOWN.replace("layers.0", "layers.7"): torch.ones(8, 32)}, "layers.7.* no place"),
        ({DOWN.replace("peftport", "other"): torch.ones(8, 32)}, "other.* no place"),
        ({DOWN: torch.ones(7, 32)}, rf"'{DOWN}' has shape \(7, 32\), expected \(8, 32\)"),
        ({DOWN.removeprefix("model."): torch.ones(8, 32)}, "there under another name"),
        ({DOWN: torch.ones(8, 32, dtype=torch.int64)}, f"tensor '{DOWN}' is of type I64"),
    ],
)
def test_adapters_tensors_that_do_not_belong_are_refused_by_name(changes, message, written):
    folder = written("adapterhub", "llama", "houlsby")
    respell(folder / HUB, changes)
    refused(folder, message)
    with pytest.raises(BadInput, match=message):
        read_outline(folder)


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize(("format", "file"), [("peft", PEFT), ("adapterhub", HUB)])
def test_numbers_that_are_not_finite_are_refused(value, format, file, written):
    folder = written(format, "llama", "lora")
    name, tensor = next(iter(read_apart(folder / file).items()))
    tensor[1, 2] = value
    respell(folder / file, {name: tensor})
    message = f"{file}: tensor '{name}' has values that are not finite"
    refused(folder, message)
    with pytest.raises(BadInput, match=message):
        read_outline(folder)


def test_a_prefix_of_another_size_is_refused(written):
    folder = written("peft", "llama", "prefix")
    flat = read_apart(folder / PEFT)["prompt_embeddings"]
    save_file({"prompt_embeddings": flat[:, :-1].contiguous()}, folder / PEFT)
    refused(folder, r"'prompt_embeddings' has shape \(5, 63\), expected \(5, 64\)")
    save_file({"other": flat}, folder / PEFT)
    refused(folder, "lacks tensor 'prompt_embeddings'")


def ten_gigabytes_of_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 10_000_000_000) + path.read_bytes()[8:])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def pickled(path: Path) -> None:
    torch.save(read_apart(path), path)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def nested(path: Path) -> None:
    header = b"[" * 90_000
    path.write_bytes(struct.pack("<Q", len(header)) + header)


@pytest.mark.parametrize("corrupt", [ten_gigabytes_of_header, truncated, pickled, emptied, nested])
@pytest.mark.parametrize("read", [load_module, read_outline])
@pytest.mark.parametrize(("format", "file"), [("peft", PEFT), ("adapterhub", HUB)])
def test_a_file_that_is_not_whole_safetensors_is_refused(corrupt, read, format, file, written):
    folder = written(format, "llama", "lora")
    corrupt(folder / file)
    with pytest.raises(BadInput, match=rf"{folder / file} is not a whole safetensors file: \w"):
        read(folder)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)], ids=len)
@pytest.mark.parametrize("read", [load_module, read_outline])
@pytest.mark.parametrize(
    ("format", "file", "family", "technique"),
    [
        ("peft", PEFT, "llama", "lora"),
        ("peft", PEFT, "gpt2", "lora"),
        ("peft", PEFT, "llama", "prefix"),
        ("adapterhub", HUB, "llama", "lora"),
        ("adapterhub", HUB, "gpt2", "lora"),
        ("adapterhub", HUB, "llama", "houlsby"),
        ("adapterhub", HUB, "llama", "compacter"),
    ],
)
def test_a_tensor_of_another_shape_is_named(shape, read, format, file, family, technique, written):
    folder = written(format, family, technique)
    whole = read_apart(folder / file)
    for name, tensor in whole.items():
        if tuple(tensor.shape) == shape or tensor.ndim == 1 == len(shape):
            continue
        save_file(whole | {name: torch.zeros(shape)}, folder / file)
        with pytest.raises(BadInput, match=r"shape|size"):
            read(folder)


def test_a_folder_without_tensors_is_refused(written):
    folder = written("peft", "llama", "lora")
    (folder / PEFT).unlink()
    refused(folder, "has neither adapter_model.safetensors nor adapter_model.bin")


# Pickles


class Hostile:
    """What runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


BIN = "pytorch_adapter.bin"


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_a_pickle_that_runs_something_does_not_run(save, with_pickle, tmp_path):
    marker = tmp_path / "ran"
    save({"weight": torch.ones(2), "more": Hostile(marker)}, with_pickle / BIN)
    refused(with_pickle, rf"{BIN} cannot be read by torch's weights-only loader: \w")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "holds a list, expected tensors by name"),
        (torch.ones(2), "holds a Tensor, expected tensors by name"),
        ({"state": {"weight": torch.ones(2)}}, "'state' is a dict, expected a tensor"),
        ({3: torch.ones(2)}, "3 is a Tensor, expected a tensor"),
        ({"weight": 1.0}, "'weight' is a float, expected a tensor"),
        ({"weight": torch.ones(2, dtype=torch.int64)}, "'weight' is of type torch.int64"),
        ({"weight": torch.eye(3).to_sparse()}, "'weight' is of type"),
        ({"weight": torch.ones(2, dtype=torch.complex64)}, "torch.complex64, expected floats"),
        ({"weight": torch.ones(1).expand(10**12)}, "'weight' claims more data than the file has"),
        ({"weight": torch.ones(2, device="meta")}, "'weight' claims more data than the file has"),
        ({"weight": torch.tensor([torch.nan, 1])}, "'weight' has values that are not finite"),
        (
            {"weight": torch.tensor([1, torch.nan]).to(torch.float8_e5m2)},
            "'weight' has values that are not finite",
        ),
    ],
)
def test_a_pickle_of_other_things_than_plain_tensors_is_refused(content, message, with_pickle):
    torch.save(content, with_pickle / BIN)
    refused(with_pickle, message)
    with pytest.raises(BadInput, match=message):
        read_outline(with_pickle)


def test_a_pickle_that_unpacks_to_more_than_it_is_is_refused(with_pickle, tmp_path):
    torch.save({"weight": torch.zeros(1_000_000)}, tmp_path / "plain")
    with zipfile.ZipFile(tmp_path / "plain") as plain:
        entries = {entry.filename: plain.read(entry) for entry in plain.infolist()}
    with zipfile.ZipFile(with_pickle / BIN, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in entries.items():
            packed.writestr(name, data)
    refused(with_pickle, "it is compressed, which torch does not do")


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage", b"PK\x03\x04 and no more"])
def test_a_pickle_that_is_broken_is_refused(content, with_pickle):
    (with_pickle / BIN).write_bytes(content)
    refused(with_pickle, rf"{BIN} cannot be read by torch's weights-only loader")


def test_a_truncated_pickle_is_refused(with_pickle):
    (with_pickle / BIN).write_bytes((with_pickle / BIN).read_bytes()[:-200])
    refused(with_pickle, rf"{BIN} cannot be read by torch's weights-only loader")


def test_copies_of_a_prefix_that_differ_are_refused(with_pickle):
    tensors = torch.load(with_pickle / BIN, weights_only=True)
    (name, *_) = (n for n in tensors if n.endswith("control_trans.0.bias") and ".pool." in n)
    tensors[name] = tensors[name] + 1
    torch.save(tensors, with_pickle / BIN)
    refused(with_pickle, "is not what other layers have of it")

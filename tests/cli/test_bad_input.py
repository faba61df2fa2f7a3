"""Modules and hosts that cannot be used: one message that names them, and nothing written."""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modules.formats.modules import CONFIG, PEFT, change, made, respell
from peftport.modules import formats
from port_methods import soft
from tiny_runs import host_in

__all__ = ["soft"]

A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


def ten_gigabytes_of_header(path: Path) -> None:
    path.write_bytes(struct.pack("<Q", 10_000_000_000) + path.read_bytes()[8:])


Spoil = Callable[[Path], object]
SPOILT: dict[str, tuple[Spoil, str]] = {
    "no base model": (
        lambda m: change(m, base_model_name_or_path=None),
        f"{CONFIG}: base_model_name_or_path: it does not say which host",
    ),
    "a path that leads elsewhere": (
        lambda m: change(m, base_model_name_or_path="../../etc"),
        f"{CONFIG}: base_model_name_or_path: ",
    ),
    "a tensor missing": (lambda m: respell(m / PEFT, {A: None}), f"lacks tensor '{A}'"),
    "a tensor too much": (
        lambda m: respell(m / PEFT, {"more": torch.ones(2)}),
        "tensor 'more' belongs to no place",
    ),
    "another type": (
        lambda m: respell(m / PEFT, {A: torch.ones(4, 32, dtype=torch.int32)}),
        f"tensor '{A}' is of type I32, expected floats",
    ),
    "another shape": (lambda m: respell(m / PEFT, {A: torch.ones(4, 31)}), "has shape (4, 31)"),
    "a long header": (lambda m: ten_gigabytes_of_header(m / PEFT), "is not a whole safetensors"),
    "no number": (
        lambda m: respell(m / PEFT, {A: torch.full((4, 32), torch.nan)}),
        "has values that are not finite",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
@pytest.mark.parametrize("verb", ["check", "port", "assess"])
def test_a_module_that_cannot_be_used_is_refused(
    verb, what, call, from_peft, tiny_continuation, tiny_task, tmp_path
):
    spoil, message = SPOILT[what]
    spoil(from_peft)
    more = {"check": (), "port": ("--out", tmp_path / "out"), "assess": ("--task", tiny_task)}
    code, text, error = call(verb, from_peft, "--host", tiny_continuation("llama"), *more[verb])
    if (verb, what) == ("check", "a tensor too much"):
        assert code == 0, "check says of each method that it would leave the tensor out"
        assert "first left out: more" in text
        return
    assert (code, text) == (2, "")
    assert message in error
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    assert sorted(os.listdir(tmp_path)) == ["theirs"]


def pickled(path: Path) -> None:
    torch.save({"x": torch.ones(2)}, path)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("spoil", [pickled, truncated])
@pytest.mark.parametrize("verb", ["check", "port", "test", "assess"])
def test_tensors_that_are_not_whole_safetensors_are_refused(
    verb, spoil, call, tiny_host, tiny_task, tmp_path
):
    formats.save(made(host_in(tiny_host("t5")), "lora"), tmp_path / "m")
    spoil(tmp_path / "m" / "module.safetensors")
    host = ("--host", tiny_host("t5"))
    more = {"check": (), "port": ("--out", tmp_path / "out")}.get(verb, ("--task", tiny_task))
    code, text, error = call(verb, tmp_path / "m", *host, *more)
    assert (code, text) == (2, "")
    assert "module.safetensors is not a whole safetensors file" in error
    assert error.count("error: ") == 1
    assert os.listdir(tmp_path) == ["m"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--method", "copi"), "unknown port method 'copi'. Did you mean 'copy'"),
        (("--out", "THERE"), "exists already"),
        (("--host", "./none"), "'./none' was not found"),
    ],
)
def test_a_port_that_cannot_begin_writes_nothing(more, message, call, tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("t5")), "lora"), tmp_path / "m")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("kept")
    more = tuple(tmp_path / "there" if part == "THERE" else part for part in more)
    asked = ("port", tmp_path / "m", "--host", tiny_host("t5"), "--out", tmp_path / "out")
    code, text, error = call(*asked, *more)
    assert (code, text) == (2, "")
    assert message in error
    assert sorted(os.listdir(tmp_path)) == ["m", "there"]
    assert os.listdir(tmp_path / "there") == ["mine"]


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(f"text number {i}" for i in range(20)))
    return path


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda host: ten_gigabytes_of_header(host / "model.safetensors"), "its header claims"),
        (lambda host: (host / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda host: (host / "config.json").write_text("{"), "config.json is not valid JSON"),
        (lambda host: (host / "config.json").unlink(), "has no config.json"),
    ],
)
@pytest.mark.parametrize("whose", ["--from-host", "--host"])
def test_a_host_that_cannot_be_read_is_refused_by_methods_that_look_at_it(
    whose, spoil, message, call, soft, texts, tiny_host, tmp_path
):
    formats.save(made(host_in(tiny_host("t5")), "lora"), tmp_path / "m")
    shutil.copytree(tiny_host("t5"), tmp_path / "host")
    spoil(tmp_path / "host")
    hosts = {"--host": tiny_host("t5"), whose: tmp_path / "host"}
    asked = ("port", tmp_path / "m", "--method", soft, "--texts", texts, "--out", tmp_path / "out")
    code, _, error = call(*asked, *(part for option in hosts.items() for part in option))
    assert code == 2
    assert message in error
    assert error.count("error: ") == 1
    assert not (tmp_path / "out").exists()


def test_a_method_that_does_not_apply_names_those_that_do(call, soft, texts, tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("t5")), "houlsby"), tmp_path / "m")
    asked = ("port", tmp_path / "m", "--host", tiny_host("t5"), "--method", soft, "--texts", texts)
    code, _, error = call(*asked, "--out", tmp_path / "out")
    assert code == 2
    assert "port by soft: does not apply: it ports lora, not adapter. Methods that can: " in error
    assert "copy" in error


@pytest.mark.parametrize("written", ["nan", "inf", "0.001,-inf", "-1", "much", ""])
def test_a_list_of_numbers_is_of_numbers(written, call):
    asked = ("assess", "nowhere", "--host", "lab:small", "--task", "lab:films")
    code, text, error = call(*asked, "--learning-rates", f"{written},")
    assert (code, text) == (2, ""), error
    assert f"--learning-rates '{written},': expected numbers of 0 or more" in error

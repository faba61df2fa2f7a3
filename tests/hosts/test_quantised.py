"""A host with quantised weights is refused in a sentence where its weights are needed, and only
there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import peftport as pp
from modules.formats.modules import made
from peftport.errors import BadInput
from peftport.hosts import geometry_by_name, load_host
from peftport.hosts.quantised import unreadable
from peftport.hosts.weights import Weights
from peftport.porting import judge_all
from peftport.porting.means import side, unread
from tiny_runs import host_in

METHODS = ("bitsandbytes", "gptq", "awq", "fp8", "compressed-tensors", "hqq", None)


@pytest.fixture(params=METHODS)
def quantised(request, tiny_host, tmp_path) -> Path:
    """A folder whose configuration says that its weights are quantised."""
    folder = Path(shutil.copytree(tiny_host("llama"), tmp_path / "host"))
    config = json.loads((folder / "config.json").read_text())
    said = {"quant_method": request.param} if request.param else {"load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": said}))
    return folder


def test_its_geometry_is_that_of_the_plain_host(quantised, tiny_host):
    assert geometry_by_name(str(quantised)) == geometry_by_name(str(tiny_host("llama")))


@pytest.mark.parametrize("reader", [lambda p: load_host(str(p)), Weights, lambda p: side(str(p))])
def test_what_reads_its_weights_refuses_it(reader, quantised):
    with pytest.raises(BadInput, match=r"weights are quantised \(.*Name the unquantised host"):
        reader(quantised)


def test_methods_that_read_weights_say_no_and_copy_says_yes(quantised, tiny_host, tmp_path):
    module = made(host_in(tiny_host("llama")), "lora", classes=0)
    why = unread(str(tiny_host("llama")), str(quantised))
    shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
    verdicts = judge_all(module.record, shapes, geometry_by_name(str(quantised)), why)
    can = {verdict.method for verdict in verdicts if verdict.problem is None}
    assert can == {"copy"}
    assert all("quantised" in (v.problem or "quantised") for v in verdicts)


def test_a_port_without_a_method_says_why_none_can(quantised, tiny_host, tmp_path):
    made(host_in(tiny_host("gpt2")), "lora", classes=0).save(tmp_path / "module")
    with pytest.raises(BadInput, match=r"No method can: .*quantised .*Name the unquantised host"):
        pp.port(tmp_path / "module", quantised, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("unsloth/llama-3-8b-bnb-4bit", "unsloth/llama-3-8b"),
        ("unsloth/Qwen3-4B-unsloth-bnb-4bit", "unsloth/Qwen3-4B"),
        ("TheBloke/Llama-2-7B-GPTQ", "TheBloke/Llama-2-7B"),
        ("casperhansen/llama-3-8b-instruct-awq", "casperhansen/llama-3-8b-instruct"),
    ],
)
def test_the_plain_host_is_guessed_from_the_name(name, plain, quantised):
    assert f"(by its name {plain})" in str(unreadable(quantised, name))

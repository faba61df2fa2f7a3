"""Modules of other libraries through the commands that take a MODULE."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import pytest

from modules.formats.modules import GOLDEN, made, same
from peftport.files import read_json
from peftport.modules import formats, load_module
from tiny_runs import host_in


def test_a_module_of_peft_s_is_ported_as_it_is(call, from_peft, tiny_continuation, tmp_path):
    receiver, out = tiny_continuation("llama"), tmp_path / "out"
    code, text, _ = call("check", from_peft, "--host", receiver, "--method", "copy", "--json")
    assert code == 0
    found = json.loads(text)
    assert (found["format"], found["can_port"]) == ("peft", True)
    assert found["counts"]["copied"] == 8

    code, text, _ = call("port", from_peft, "--host", receiver, "--out", out, "--json")
    assert code == 0
    assert json.loads(text)["format"] == "peft"
    assert read_json(out / "adapter_config.json")["base_model_name_or_path"] == str(receiver)
    assert len(read_json(out / "account.json")["tensors"]) == 8
    before, after = load_module(from_peft), load_module(out)
    assert same(before, after)
    assert after.record.origin == before.record.host
    assert after.record.host.fingerprint == host_in(receiver).fingerprint
    assert after.record.task["name"] == "unknown"


@pytest.mark.parametrize("format", ["peftport", "adapterhub"])
def test_a_module_comes_out_in_the_format_asked_for(
    format, call, from_peft, tiny_continuation, tmp_path
):
    out = tmp_path / "out"
    receiver = tiny_continuation("llama")
    into = ("--host", receiver, "--out", out, "--format", format, "--no-verify")
    code, text, _ = call("port", from_peft, *into)
    assert code == 0, text
    assert formats.format_of(out) == format
    assert same(load_module(out), load_module(from_peft))
    card = (out / "README.md").read_text()
    assert f"made for: `{receiver}`" in card
    assert "trained for `unknown`, by `copy`, seed 0." in card
    assert "Tensors: 8 copied; each one is in `account.json`." in card


def test_a_format_that_is_not_known_or_cannot_hold_the_module_writes_nothing(
    call, from_peft, tiny_host, tmp_path
):
    into = ("--host", tiny_host("llama"), "--out", tmp_path / "out")
    code, _, error = call("port", from_peft, *into, "--format", "pfet")
    assert (code, "unknown format 'pfet'. Did you mean 'peft'" in error) == (2, True)
    formats.save(made(host_in(tiny_host("llama")), "houlsby"), tmp_path / "adapter")
    code, _, error = call("port", tmp_path / "adapter", *into, "--format", "peft")
    assert (code, "peft has no adapter" in error) == (2, True)
    assert sorted(os.listdir(tmp_path)) == ["adapter", "theirs"]


def test_a_module_of_peft_s_is_tested_and_its_card_told(call, from_peft, tiny_host, tiny_task):
    words = ("--label-words", "terrible,great")
    asked = ("test", from_peft, "--host", tiny_host("llama"), "--task", tiny_task, *words)
    code, text, error = call(*asked, "--json", "--to-card")
    assert (code, error.count("\n"), "does not say its template" in error) == (0, 1, True)
    figures = json.loads(text)
    assert figures["made_for_this_host"] is True
    call(*asked, "--to-card")
    rows = (from_peft / "README.md").read_text().splitlines()[-2:]
    assert rows[0] == rows[1]
    assert f"| {figures['accuracy']:.3f} |" in rows[0]


def test_a_module_of_peft_s_is_assessed(call, from_peft, tiny_continuation, tiny_task):
    code, text, error = call(
        *("assess", from_peft, "--host", tiny_continuation("llama"), "--task", tiny_task),
        *("--label-words", "terrible,great", "--budgets", "0", "--seeds", 2, "--native-steps", 1),
        "--json",
    )
    assert code == 0, error
    found = json.loads(text)
    assert found["relation"] == "continuation", "the two hosts' weights are near each other"
    assert set(found["budgets"][0]["accuracy"]) >= {"copy", "gaussian", "scratch", "host"}


def test_a_module_of_adapters_with_its_head_is_tested_and_ported(
    call, tiny_host, tiny_continuation, tiny_task, tmp_path
):
    folder, host = GOLDEN / "bert-seq_bn", ("--from-host", tiny_host("bert"))
    code, _, error = call("check", folder, "--host", tiny_host("bert"))
    assert code == 2
    assert "adapter_config.json: model_name is 'tiny-bert'" in error
    assert "--from-host" in error
    asked = ("test", folder, "--host", tiny_host("bert"), "--task", tiny_task, "--json")
    code, text, error = call(*asked, *host)
    assert code == 0, error
    assert "pytorch_adapter.bin is a pickle" in error
    assert json.loads(text)["n_test"] == 48
    into = ("--host", tiny_continuation("bert"), "--out", tmp_path / "out")
    code, _, error = call("port", folder, *into, *host)
    assert code == 0, error
    ported = load_module(tmp_path / "out", pickles=False)
    assert ported.record.head == "first"
    assert formats.format_of(tmp_path / "out") == "adapterhub"
    assert not list((tmp_path / "out").glob("*.bin"))


@pytest.mark.parametrize("verb", ["check", "port", "test", "assess"])
def test_pickles_are_refused_where_asked(verb, call, tiny_host, tiny_task, tmp_path):
    more: dict[str, tuple[Any, ...]] = {
        "check": ("--host", tiny_host("bert")),
        "port": ("--host", tiny_host("bert"), "--out", tmp_path / "out"),
        "test": ("--host", tiny_host("bert"), "--task", tiny_task),
        "assess": ("--host", tiny_host("bert"), "--task", tiny_task),
    }
    asked = (verb, GOLDEN / "bert-seq_bn", *more[verb], "--from-host", tiny_host("bert"))
    code, _, error = call(*asked, "--no-pickle")
    assert code == 2
    assert "pytorch_adapter.bin is a pickle and --no-pickle is given" in error


def test_an_encoder_s_module_without_a_head_cannot_be_tested(call, tiny_host, tiny_task, tmp_path):
    formats.save(made(host_in(tiny_host("bert")), "lora", classes=0), tmp_path / "m", "peft")
    code, _, error = call("test", tmp_path / "m", "--host", tiny_host("bert"), "--task", tiny_task)
    assert code == 2
    assert "has no head" in error


def test_a_host_that_cannot_be_compared_is_told(call, from_peft, tiny_host, tiny_task, tmp_path):
    """Its weights are gone, and its configuration is still there."""
    gone = tmp_path / "gone"
    shutil.copytree(tiny_host("llama"), gone)
    (gone / "model.safetensors").unlink()
    code, text, error = call(
        *("test", from_peft, "--host", tiny_host("llama"), "--task", tiny_task, "--json"),
        *("--label-words", "terrible,great", "--from-host", gone),
    )
    assert code == 0, error
    assert json.loads(text)["made_for_this_host"] is None
    assert f"notice: {gone} is not at hand" in error

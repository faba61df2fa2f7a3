"""`peftport check`: which methods could port a module, told without reading any weight."""

from __future__ import annotations

import json
import os
import shutil

import peft
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPTJConfig

from modules.formats.modules import PEFT, made, read_apart
from peftport.modules import formats
from port_methods import soft
from tiny_runs import host_in

__all__ = ["soft"]


@pytest.fixture
def bare(tiny_host, tmp_path):
    """A tiny host of which the weights are gone."""

    def without_weights(family: str):
        folder = tmp_path / family
        shutil.copytree(tiny_host(family), folder)
        (folder / "model.safetensors").unlink()
        return folder

    return without_weights


def test_every_method_is_told_and_no_weight_read(call, soft, bare, tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("t5")), "lora"), tmp_path / "m")
    code, text, error = call("check", tmp_path / "m", "--host", bare("t5"), "--json")
    assert code == 0, error
    found = json.loads(text)
    by_name = {each["method"]: each for each in found["methods"]}
    assert found["can_port"]
    assert by_name["copy"]["can_port"]
    assert by_name["copy"]["needs"] == []
    assert by_name["soft"]["needs"] == ["texts", "weights"]
    assert "gaussian" not in by_name


def test_a_method_that_does_not_apply_says_why(call, soft, tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("t5")), "prefix"), tmp_path / "m")
    code, text, _ = call("check", tmp_path / "m", "--host", tiny_host("t5"))
    assert code == 0
    assert "copy         yes  tensors: " in text
    assert "soft         no   does not apply: it ports lora, not prefix" in text


def test_one_method_is_told_with_its_options(call, soft, tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("t5")), "lora"), tmp_path / "m")
    asked = ("check", tmp_path / "m", "--host", tiny_host("t5"), "--json")
    code, text, _ = call(*asked, "--method", soft, "--layers", "every", "--set", "scale=2")
    assert code == 0
    assert json.loads(text)["method"] == "soft"
    assert json.loads(text)["can_port"]
    code, _, error = call(*asked, "--layers", "every")
    assert (code, "name it with --method" in error) == (2, True)
    code, _, error = call(*asked, "--method", soft, "--set", "scale=-1")
    assert (code, "option 'scale': Input should be greater than 0" in error) == (2, True)


def test_a_forecast_says_in_sentences_how_much_a_copy_keeps(
    call, tiny_host, tiny_continuation, tiny_task, tmp_path
):
    formats.save(made(host_in(tiny_host("bert")), "lora"), tmp_path / "m")
    asked = ("check", tmp_path / "m", "--host", tiny_continuation("bert"), "--forecast")
    code, text, error = call(*asked)
    assert code == 0, error
    assert "a copy is forecast to keep " in text
    assert "the copy was not tried: that needs unlabelled texts" in text
    assert "calibrated on " in text

    code, text, _ = call(*asked, "--texts", tiny_task, "--text-count", "32", "--json")
    assert code == 0
    found = json.loads(text)["forecast"]
    assert found["low"] <= found["recovery"] <= found["high"]
    assert found["texts"] == 32
    assert set(found["weights"]) == {"distance", "overlap"}
    assert set(found["on_texts"]) == {"answers", "cka"}
    assert found["calibrated_on"]


@pytest.mark.parametrize(
    ("receiver", "more", "what"),
    [
        ("gpt2", ["--forecast"], "differ in shape"),
        ("t5", ["--relation", "continuation"], "add --forecast"),
        ("t5", ["--texts", "lab:films"], "add --forecast"),
        ("t5", ["--forecast", "--texts", "lab:films", "--text-count", "3"], "too few"),
    ],
)
def test_a_forecast_that_cannot_be_made_is_bad_input(
    receiver, more, what, call, tiny_host, tmp_path
):
    formats.save(made(host_in(tiny_host("t5")), "lora"), tmp_path / "m")
    code, out, error = call("check", tmp_path / "m", "--host", tiny_host(receiver), *more)
    assert (code, out) == (2, "")
    assert what in error


def test_it_tells_what_each_method_takes_and_what_a_shallower_host_leaves_out(
    call, tiny_host, tmp_path
):
    """What `port` would then do without a word of partial."""
    from porting.spaces import geometry

    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "m")
    host = tmp_path / "shallow"
    shutil.copytree(tiny_host("llama"), host)
    config = json.loads((host / "config.json").read_text())
    config["num_hidden_layers"] = geometry("llama").stacks["decoder"] - 1
    config.pop("layer_types", None)
    (host / "config.json").write_text(json.dumps(config))
    code, text, error = call("check", tmp_path / "m", "--to", host, "--json")
    assert code == 0, error
    found = json.loads(text)
    (one,) = [each for each in found["methods"] if each["method"] == "procrustes"]
    assert one["can_port"]
    assert one["note"].endswith("tensors of layers without a partner are left out")
    assert set(one["estimate"]) == {"seconds", "memory_bytes", "disk_bytes", "temporary_bytes"}
    assert found["estimated_for"]["texts"] == 1000, "as many as port draws"
    _, text, _ = call("check", tmp_path / "m", "--to", host)
    assert "left out; needs both hosts" in " ".join(text.split())
    assert "of memory" in " ".join(text.split())


def test_time_and_memory_are_told_for_the_texts_that_port_would_draw(call, tiny_host, tmp_path):
    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "m")
    asked = ("check", tmp_path / "m", "--host", tiny_host("qwen2"), "--method", "procrustes")
    code, text, _ = call(*asked, "--json")
    few, more = (json.loads(call(*asked, "--json", "--text-count", n)[1]) for n in (100, 4000))
    assert few["estimated_for"]["texts"] == 100
    assert few["estimate"]["memory_bytes"] < json.loads(text)["estimate"]["memory_bytes"]
    assert json.loads(text)["estimate"]["memory_bytes"] < more["estimate"]["memory_bytes"]
    assert "with 100 texts of 24 tokens" in call(*asked, "--text-count", 100)[1]
    code, _, error = call(*asked, "--text-count", 3)
    assert (code, "3 texts are too few: 16 are the least" in error) == (2, True)


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("great story,great film", "begin with the same token"),
        ("great,greater", "begin with the same token"),
        (None, None),
        ("terrible,great", None),
        ("great story,dull film", None),
    ],
)
@pytest.mark.parametrize("family", ["qwen2", "t5"])
def test_it_says_of_label_words_what_port_does(family, words, what, call, tiny_host, tmp_path):
    """For every method: one that can by `check` is made by `port`, any other is refused alike."""
    origin, receiver = tiny_host(family), tiny_host({"qwen2": "llama"}.get(family, family))
    formats.save(made(host_in(origin), "lora"), tmp_path / "m")
    (tmp_path / "texts.txt").write_text("\n\n".join(f"a dull film {i}" for i in range(20)))
    asked = (tmp_path / "m", "--host", receiver)
    said = ("--label-words", words, "--template", "{text} it was") if words else ()
    found = json.loads(call("check", *asked, *said, "--json")[1])
    assert any(what in (each["problem"] or "") for each in found["methods"]) if what else True
    for each in found["methods"]:
        out = ("--texts", tmp_path / "texts.txt", "--no-verify", "--out", tmp_path / each["method"])
        few = ("--set", "steps=1") if each["method"] == "distill" else ()
        code, _, error = call("port", *asked, "--method", each["method"], *said, *few, *out)
        assert (code == 0) == each["can_port"], (each, error)
        assert each["can_port"] or each["problem"].removeprefix("does not apply: ") in error


def test_words_that_the_module_s_own_host_cannot_read_stop_those_that_ask_it(
    call, tiny_host, tmp_path, monkeypatch
):
    from peftport.api import reading

    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "m")
    monkeypatch.setattr(
        reading,
        "words_problem",
        lambda record, host, name: "it cannot" if name == record.host.name else None,
    )
    asked = ("check", tmp_path / "m", "--host", tiny_host("qwen2"), "--json")
    found = json.loads(call(*asked, "--label-words", "terrible,great")[1])
    by_name = {each["method"]: each["problem"] for each in found["methods"]}
    assert {name for name, problem in by_name.items() if problem == "it cannot"} == {
        *("correlation", "procrustes", "ridge", "distill")
    }
    assert by_name["subspace"] is None


def test_a_host_of_pickles_alone_is_told_as_port_refuses_it(call, from_peft, bare, tmp_path):
    host = bare("llama")
    torch.save({}, host / "pytorch_model.bin")
    code, text, _ = call("check", from_peft, "--host", host, "--json")
    found = json.loads(text)["methods"]
    assert code == 0
    assert not any(each["can_port"] for each in found)
    assert all("read from safetensors only" in each["problem"] for each in found)
    code, _, error = call("port", from_peft, "--host", host, "--out", tmp_path / "out")
    assert (code, "read from safetensors only" in error) == (2, True)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), "not a whole safetensors file"),
        (lambda file: file.write_text("version https://git-lfs.github.com/spec/v1"), "git-lfs"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "is a pipe"),
        (lambda file: (file.unlink(), file.symlink_to("nowhere")), "has no model.safetensors"),
    ],
)
def test_weights_that_are_not_whole_are_told_as_port_refuses_them(
    spoil, told, call, from_peft, tiny_host, tmp_path
):
    host = tmp_path / "host"
    shutil.copytree(tiny_host("llama"), host)
    spoil(host / "model.safetensors")
    code, text, _ = call("check", from_peft, "--host", host, "--json")
    assert code == 0
    assert all(told in each["problem"] for each in json.loads(text)["methods"])
    code, _, error = call("port", from_peft, "--host", host, "--out", tmp_path / "out")
    assert (code, told in error) == (2, True)


def test_what_is_left_out_when_asked_is_told(call, from_peft, tiny_host):
    more = {"base_model.model.model.norm.weight": torch.full((32,), 7.0)}
    save_file(read_apart(from_peft / PEFT) | more, from_peft / PEFT)
    code, text, _ = call("check", from_peft, "--host", tiny_host("llama"))
    assert code == 0
    told = " ".join(text.split())
    assert "peftport cannot carry it; --allow-partial goes on with what is left" in told


def test_hosts_of_which_one_is_of_no_known_family_are_compared(call, from_peft, tmp_path):
    config = GPTJConfig(vocab_size=99, n_embd=32, n_layer=2, n_head=4, rotary_dim=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "host")
    code, text, _ = call("check", from_peft, "--host", tmp_path / "host", "--json")
    assert code == 0
    assert json.loads(text)["differences"]["family"] == ["llama", "gptj"]
    model = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(tmp_path / "host"),
        peft.LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "of-it")
    code, text, _ = call("check", tmp_path / "of-it", "--host", tmp_path / "host")
    assert code == 0
    code, text, _ = call("check", tmp_path / "of-it", "--host", "lab:small", "--json")
    assert code == 0
    assert json.loads(text)["differences"]["family"] == ["gptj", "t5"]

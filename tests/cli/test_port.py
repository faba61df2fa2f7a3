"""`peftport port` with methods that look at hosts and texts, and with training after the port."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from modules.formats.modules import made, same
from peftport.files import read_json
from peftport.modules import formats, load_module
from peftport.porting.estimate import Load
from peftport.porting.map_costs import MapCosts
from port_methods import soft
from tiny_runs import host_in

__all__ = ["soft"]


@pytest.fixture
def lora(tiny_host, tmp_path) -> Path:
    """A LoRA module on the tiny T5, of a task with two classes."""
    formats.save(made(host_in(tiny_host("t5")), "lora"), tmp_path / "lora")
    return tmp_path / "lora"


@pytest.fixture
def texts(tmp_path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(f"text number {i}" for i in range(40)))
    return path


def test_a_method_gets_options_hosts_and_texts(call, soft, lora, texts, tiny_continuation):
    receiver, out = tiny_continuation("t5"), lora.parent / "out"
    asked = ("port", lora, "--host", receiver, "--method", soft, "--out", out, "--json")
    code, text, error = call(*asked, "--texts", texts, "--text-count", 20, "--set", "scale=0.25")
    assert code == 0, error
    found = json.loads(text)
    assert found["options"] == {"scale": 0.25, "layers": "proportional", "steps": 0}
    assert found["texts"] == {"count": 20, "source": "texts.txt"}
    assert found["seconds"] > 0
    before, after = load_module(lora), load_module(out)
    assert all(tensor.equal(before.tensors[n] / 4) for n, tensor in after.tensors.items())
    assert after.record.port["receiver"] == str(receiver)
    card = (out / "README.md").read_text()
    assert 'by `soft`, seed 0, options `{"scale": 0.25, "layers": "proportional", ' in card
    assert "It looked at 20 texts of `texts.txt`, without labels." in card


def test_the_way_of_pairing_layers_is_an_option_of_the_method(call, soft, lora, texts, tiny_host):
    asked = (
        "port",
        lora,
        "--host",
        tiny_host("t5"),
        "--out",
        lora.parent / "out",
        "--texts",
        texts,
    )
    code, text, error = call(*asked, "--method", soft, "--layers", "every", "--json")
    assert code == 0, error
    assert json.loads(text)["options"]["layers"] == "every"
    shutil.rmtree(lora.parent / "out")
    code, _, error = call(*asked, "--method", "gaussian", "--layers", "every")
    assert (code, "port by gaussian: option 'layers': no such option" in error) == (2, True)


@pytest.fixture
def procrustes(call, texts, tiny_host, tiny_continuation, tmp_path):
    """A port by `procrustes` with more options."""
    module = tmp_path / "module"
    formats.save(made(host_in(tiny_host("llama")), "lora"), module)
    receiver = tiny_continuation("llama")
    asked = ("port", module, "--to", receiver, "--text", texts, "--method", "procrustes", "--json")

    def port(*more):
        return call(*asked, "--out", tmp_path / "out", *more)

    return port


def test_what_does_not_fit_into_memory_is_refused_with_what_makes_it_fit(
    procrustes, monkeypatch, tmp_path
):
    monkeypatch.setattr("peftport.porting.estimate.memory_at_hand", lambda: 1e6)
    code, text, error = procrustes()
    assert (code, text) == (2, "")
    for said in ("port by procrustes needs about", "are free", "--ignore-memory"):
        assert said in error
    assert not (tmp_path / "out").exists()
    code, _, error = procrustes("--ignore-memory")
    assert code == 0, error


@pytest.mark.parametrize("anyway", [False, True])
def test_what_the_temporary_folder_has_no_room_for_is_refused(
    anyway, procrustes, monkeypatch, tmp_path
):
    """Before it begins; tried all the same, when the room is asked for."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("peftport.porting.aside._FEW", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    code, text, error = procrustes(*["--ignore-memory"] * anyway)
    assert (code, text) == (2, "")
    for said in (tempfile.gettempdir(), "TMPDIR", "--text-count"):
        assert said in error
    assert ("No space left" in error) is anyway
    assert not (tmp_path / "out").exists()


def test_fewer_places_are_taken_where_those_make_it_fit(procrustes, monkeypatch):
    """Unless another number was asked for: then it is said which would do."""
    monkeypatch.setattr("peftport.porting.map_based.mapping_costs", _by_places)
    monkeypatch.setattr("peftport.api.planned.load_of", lambda *_: Load(1000))
    monkeypatch.setattr("peftport.porting.estimate.memory_at_hand", lambda: 3e9)
    code, _, error = procrustes("--set", "places=4096")
    assert (code, "--set places=1024 makes it fit" in error) == (2, True)
    code, text, error = procrustes()
    assert code == 0, error
    assert "notice: maps are fitted on 1024 places" in error
    assert json.loads(text)["options"]["places"] == 1024


def _by_places(_request, samples):
    return MapCosts(0.0, (samples * 1.0e6, 0.0), 0.0, 0.0)


def test_it_says_beforehand_what_it_will_take_and_then_how_far_it_is(procrustes, monkeypatch):
    monkeypatch.setattr("peftport.cli.progress.QUIET", 0.0)
    code, _, error = procrustes()
    assert code == 0, error
    assert "procrustes: about " in error
    assert "layer 2 of 2, about " in error


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_tokenizers_with_nothing_in_common_are_refused(
    call, family, texts, tiny_host, tiny_continuation, tmp_path
):
    module, receiver, out = tmp_path / "module", tmp_path / "receiver", tmp_path / "out"
    formats.save(made(host_in(tiny_host(family)), "lora"), module)
    shutil.copytree(tiny_continuation(family), receiver)
    tokenizer = read_json(receiver / "tokenizer.json")
    nothing = {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}
    (receiver / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": nothing}))
    asked = ("port", module, "--host", receiver, "--texts", texts, "--out", out)
    code, text, error = call(*asked, "--method", "procrustes")
    assert (code, text) == (2, "")
    assert "error: the two hosts' tokenizers have nothing in common on these texts" in error
    assert not out.exists()


def test_the_texts_of_the_task_are_taken_where_none_are_named(
    call, soft, lora, tiny_host, tiny_task
):
    asked = (
        "port",
        lora,
        "--host",
        tiny_host("t5"),
        "--method",
        soft,
        "--out",
        lora.parent / "out",
    )
    code, text, error = call(*asked, "--task", tiny_task, "--label-words", "bad,good", "--json")
    assert code == 0, error
    # Of the 96 training texts, one stands there twice.
    assert json.loads(text)["texts"] == {"count": 95, "source": "opinions"}
    assert json.loads(text)["trained"] is None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "port by soft needs unlabelled texts: give a file or folder with --texts"),
        (("--texts", "few.txt"), "few.txt has 1 different texts; at least 16 are needed"),
        (("--texts", "none.txt"), "none.txt does not exist"),
        (("--texts", "few.txt", "--text-count", "4"), "4 texts are too few"),
        (("--set", "scal=1"), "option 'scal': no such option. Did you mean 'scale'?"),
        (("--set", "scale"), "--set 'scale': expected KEY=VALUE"),
        (("--steps", "3"), "--steps 3 needs a --task"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_written(
    more, message, call, soft, lora, tiny_host, monkeypatch
):
    monkeypatch.chdir(lora.parent)
    Path("few.txt").write_text("one text")
    before = sorted(os.listdir())
    asked = ("port", lora, "--host", tiny_host("t5"), "--method", soft, "--out", "out")
    code, _, error = call(*asked, *more)
    assert code == 2
    assert message in error
    assert sorted(os.listdir()) == before


def test_another_host_than_the_module_s_own_is_refused(
    call, soft, lora, texts, tiny_host, tiny_continuation
):
    asked = ("port", lora, "--host", tiny_host("t5"), "--method", soft, "--texts", texts)
    other = tiny_continuation("t5")
    code, _, error = call(*asked, "--out", lora.parent / "out", "--from-host", other)
    assert code == 2
    assert f"{other} is not the host that the module is made for: its weights are" in error
    code, _, error = call(*asked, "--out", lora.parent / "out", "--from-host", "/nowhere")
    assert code == 2
    assert "the module's own host is needed: host '/nowhere' was not found" in error
    assert not (lora.parent / "out").exists()


def test_a_module_that_does_not_say_its_host_s_weights_is_believed_with_a_notice(
    call, soft, from_peft, texts, tiny_host
):
    host = tiny_host("llama")
    asked = ("port", from_peft, "--host", host, "--method", soft, "--texts", texts)
    code, _, error = call(*asked, "--out", from_peft.parent / "out")
    assert code == 0, error
    assert f"notice: the module's files do not say its host's weights; {host} is taken" in error


def test_what_no_technique_has_is_left_out_when_that_is_allowed(call, from_peft, tiny_host):
    """As trl saves a value head beside a LoRA."""
    file, host = from_peft / "adapter_model.safetensors", tiny_host("llama")
    save_file({**load_file(file), "v_head.summary.weight": torch.ones(1, 32)}, file)
    asked = ("port", from_peft, "--host", host, "--out", from_peft.parent / "out", "--no-verify")
    code, _, error = call(*asked)
    assert (code, "'v_head.summary.weight' belongs to no place" in error) == (2, True)
    code, _, error = call(*asked, "--allow-partial")
    assert code == 0, error
    told = read_json(from_peft.parent / "out" / "account.json")["tensors"]
    assert [e["source"] for e in told if e["action"] == "dropped"] == ["v_head.summary.weight"]


def test_a_notice_is_said_once(call, from_peft, tiny_host):
    file = from_peft / "adapter_model.safetensors"
    named = {n.replace("base_model", "module.base_model"): t for n, t in load_file(file).items()}
    save_file(named, file)
    out = from_peft.parent / "out"
    code, _, error = call("port", from_peft, "--host", tiny_host("llama"), "--out", out)
    notices = [line for line in error.splitlines() if str(file) in line]
    assert code == 0, error
    assert len(notices) == len(set(notices)) >= 1


def test_a_copy_needs_no_originating_host(call, lora, tiny_continuation):
    into = ("--host", tiny_continuation("t5"), "--out", lora.parent / "out")
    code, _, error = call("port", lora, *into, "--from-host", "/nowhere")
    assert code == 0, error
    assert (
        f"notice: /nowhere, named as the host of {lora}, is not at hand with its weights" in error
    )


@pytest.mark.parametrize("verb", ["port", "check"])
def test_a_copy_says_no_other_host_than_the_module_s_own(verb, call, lora, tiny_continuation):
    other = tiny_continuation("t5")
    out = ("--out", lora.parent / "out") if verb == "port" else ()
    code, text, error = call(verb, lora, "--host", other, "--from-host", other, *out)
    assert (code, text) == (2, "")
    assert f"{other} is not the host that the module is made for: its weights are" in error
    assert not (lora.parent / "out").exists()


def test_options_that_say_nothing_here_are_noticed_or_refused(call, lora, texts, tiny_continuation):
    into = ("port", lora, "--host", tiny_continuation("t5"), "--method", "copy")
    code, _, error = call(*into, "--out", lora.parent / "out", "--texts", texts)
    assert code == 0, error
    assert "notice: copy looks at no texts: --texts is not read" in error
    code, text, error = call(*into, "--out", lora.parent / "other", "--private")
    assert (code, text) == (2, "")
    assert "--private says how --push-to-hub makes a repository" in error
    code, _, error = call(*into, "--out", "")
    assert code == 2
    assert "is the folder that you are in; name a new one" in error


def test_rows_without_text_are_left_out_and_counted(call, soft, lora, texts, tiny_host):
    rows = lora.parent / "rows.csv"
    rows.write_text("text\n" + "".join(f"film {n}\n" for n in range(40)) + '"  "\n' * 10)
    asked = ("port", lora, "--host", tiny_host("t5"), "--method", soft, "--texts", rows)
    code, _, error = call(*asked, "--out", lora.parent / "out")
    assert code == 0, error
    assert f"notice: 10 of 50 rows of {rows} have no text: left out" in error


def test_a_path_that_is_no_text_is_escaped_in_json(call, lora, tiny_continuation):
    out = lora.parent / os.fsdecode(b"bad\xff")
    code, text, _ = call("port", lora, "--host", tiny_continuation("t5"), "--out", out, "--json")
    assert code == 0
    assert json.loads(text.encode())["module"] == str(out)


def test_a_port_can_be_trained_on(call, lora, tiny_continuation, tiny_task):
    receiver, out = tiny_continuation("t5"), lora.parent / "out"
    asked = ("port", lora, "--host", receiver, "--out", out, "--task", tiny_task, "--seed", 2)
    more = ("--label-words", "bad,good", "--learning-rate", 0.02, "--limit-train", 32)
    code, text, error = call(*asked, *more, "--steps", 3, "--json")
    assert code == 0, error
    found = json.loads(text)
    assert found["trained"]["steps"] == 3
    assert found["trained"]["learning_rate"] == 0.02
    assert found["validation"]["n_test"] == 32
    after = load_module(out)
    assert not same(load_module(lora), after)
    assert after.record.port["trained"] == found["trained"]
    assert after.record.training == load_module(lora).record.training
    assert after.record.task["limits"] == {"train": 32}
    card = (out / "README.md").read_text()
    assert "Then trained on `opinions`: seed 2, steps 3, learning_rate 0.02, batch_size 16" in card
    assert f"| ported, 3 steps, validation split | {receiver} | opinions | " in card


def test_training_gives_a_head_to_an_encoder_s_module_that_has_none(
    call, tiny_host, tiny_task, tmp_path
):
    host = tiny_host("bert")
    formats.save(made(host_in(host), "lora", classes=0), tmp_path / "m", "peft")
    asked = ("port", tmp_path / "m", "--host", host, "--task", tiny_task, "--out", tmp_path / "out")
    code, _, error = call(*asked, "--steps", 2)
    assert code == 0, error
    ported = load_module(tmp_path / "out")
    assert ported.tensors["head.weight"].shape == (2, 32)
    code, text, error = call(
        "test", tmp_path / "out", "--host", host, "--task", tiny_task, "--json"
    )
    assert code == 0, error
    assert json.loads(text)["n_test"] == 48


def test_a_task_of_other_classes_is_refused(call, lora, tiny_host, tmp_path):
    folder = tmp_path / "three"
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = "".join(f"some {i} text,{i % 3}\n" for i in range(24))
        (folder / f"{split}.csv").write_text(f"text,label\n{rows}")
    asked = ("port", lora, "--host", tiny_host("t5"), "--out", tmp_path / "out", "--steps", 2)
    code, _, error = call(*asked, "--task", folder, "--label-words", "a,b,c")
    assert code == 2
    assert "has 3 classes and the module was trained for 2" in error
    assert not (tmp_path / "out").exists()


def test_an_account_says_what_became_of_every_tensor(call, lora, tiny_continuation):
    out = lora.parent / "out"
    code, text, _ = call("port", lora, "--host", tiny_continuation("t5"), "--out", out)
    assert code == 0
    assert "by copy, " in text
    assert "each one in" in text
    assert len(read_json(out / "account.json")["tensors"]) == len(load_module(lora).tensors)


@pytest.mark.parametrize("with_task", [True, False])
def test_without_a_method_it_says_which_ones_can_and_the_command_runs(
    with_task, call, tiny_host, tiny_task, tmp_path
):
    module = tmp_path / "module"
    formats.save(made(host_in(tiny_host("llama")), "lora"), module)
    words = ("--label-words", "terrible,great") if with_task else ()
    task = ("--task", tiny_task) if with_task else ()
    asked = ("port", module, "--host", tiny_host("gpt2"), "--out", tmp_path / "out")
    code, text, error = call(*asked, *task, *words)
    assert (code, text) == (2, "")
    assert "cannot be copied to" in error
    assert "procrustes (looks at both hosts and texts)" in error
    (told,) = re.findall(r"Name one with --method; see `peftport (.*)`", error)
    if with_task:
        assert "--method ridge" in told, "the module tells classes apart, and its words are known"
        assert "--label-words terrible,great" in told
    code, _, error = call(*shlex.split(told))
    assert code == 0, error

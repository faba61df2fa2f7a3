"""Heads of sequence classifiers, as every family of encoders has them: read from stock peft, copied
to the same family, written, and loaded by stock peft, with logits within 1e-5."""

from __future__ import annotations

import json
import shutil
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file

import peftport
from modules.formats.modules import (
    PEFT,
    answer_of,
    change,
    made,
    read_apart,
    refused,
    respell,
    same,
    silenced,
)
from modules.formats.test_with_peft import assert_same, from_peft, stock, stock_answer
from peftport.errors import BadInput
from peftport.hosts import families
from peftport.modules import HostName, formats, load_module
from peftport.modules.formats.heads import sequence_head
from peftport.porting import port
from peftport.techniques.head import BIAS, DENSE, WEIGHT, head_logits
from techniques.references import batch
from tiny_runs import host_in

PARTS = {
    "bert": (["classifier", "bert.pooler"], "first"),
    "roberta": (["classifier"], "first"),
    "xlm-roberta": (["classifier"], "first"),
    "camembert": (["classifier"], "first"),
    "albert": (["classifier", "albert.pooler"], "first"),
    "distilbert": (["classifier", "pre_classifier"], "first_relu"),
    "electra": (["classifier"], "first_gelu"),
    "deberta": (["classifier", "pooler"], "first_gelu"),
    "deberta-v2": (["classifier", "pooler"], "first_gelu"),
    "modernbert": (["classifier", "head"], "first_gelu_norm"),
}
"""The parts that make the head of a family, and how it pools."""
TARGETS = {
    "albert": ["query", "ffn"],
    "distilbert": ["q_lin", "lin1"],
    "deberta": ["in_proj", "intermediate.dense"],
    "deberta-v2": ["query_proj", "intermediate.dense"],
    "modernbert": ["Wqkv", "Wi"],
}


def lora(family: str, saved: list[str] | None = None) -> peft.LoraConfig:
    return peft.LoraConfig(
        task_type="SEQ_CLS",
        r=4,
        lora_alpha=12,
        target_modules=TARGETS.get(family, ["query", "intermediate.dense"]),
        modules_to_save=PARTS[family][0] if saved is None else saved,
    )


def test_every_family_that_says_how_its_heads_are_built_is_tried():
    known = {name for name, entry in families().items() if "sequence" in (entry.get("heads") or {})}
    assert set(PARTS) == known


def assert_copied_as_in_peft(module, family, there, folder) -> None:
    """A copy on another host, written and read again, answers as it does in stock peft."""
    inputs = batch(there.tokenizer)
    name = HostName(name=str(there.folder), fingerprint=there.fingerprint)
    copied = port(module, there.geometry, name).module
    formats.save(copied, folder, "peft")
    assert same(load_module(folder), copied)
    loaded = peft.PeftModel.from_pretrained(stock(there.folder, "SEQ_CLS"), str(folder))
    theirs = stock_answer(loaded.eval(), family, "SEQ_CLS", inputs)
    assert_same(
        answer_of(copied, there, inputs), theirs, answer_of(silenced(copied), there, inputs)
    )


@pytest.mark.parametrize("family", PARTS)
def test_a_head_is_read_copied_written_and_loaded_by_stock_peft(
    family, tiny_host, tiny_continuation, tmp_path
):
    folder, near = tiny_host(family), tiny_continuation(family)
    host, there = host_in(folder), host_in(near)
    inputs = batch(host.tokenizer)
    model = from_peft(family, folder, lora(family), tmp_path / "theirs")
    module = load_module(tmp_path / "theirs")
    assert module.record.head == PARTS[family][1]
    bare = answer_of(silenced(module), host, inputs)
    assert_same(
        answer_of(module, host, inputs), stock_answer(model, family, "SEQ_CLS", inputs), bare
    )

    assert_copied_as_in_peft(module, family, there, tmp_path / "copied")


@pytest.mark.parametrize("family", ["bert", "albert", "deberta", "deberta-v2"])
def test_a_dense_layer_that_was_not_saved_is_missed_by_name(family, tiny_host, tmp_path):
    """peft saves by itself what is named `...classifier`, so that DistilBERT's head comes whole."""
    from_peft(family, tiny_host(family), lora(family, ["classifier"]), tmp_path / "theirs")
    part = sequence_head(host_in(tiny_host(family)).geometry).dense.partition(".")[0]
    refused(
        tmp_path / "theirs",
        f"the module's head stands on the {part} of .*, which has none; its {part} was drawn at "
        "random when the module was trained, and was not kept",
    )


def test_a_head_that_was_written_here_is_read_without_its_host(tiny_host, tmp_path):
    shutil.copytree(tiny_host("deberta"), tmp_path / "host")
    module = made(host_in(tmp_path / "host"), "lora", "first_gelu")
    formats.save(module, tmp_path / "module", "peft")
    shutil.rmtree(tmp_path / "host")
    assert same(load_module(tmp_path / "module"), module)


@pytest.mark.parametrize("to", ["bert", "distilbert", "electra"])
@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra"])
def test_a_head_of_another_activation_is_refused_in_words(family, to, tiny_host, tmp_path):
    from_peft(family, tiny_host(family), lora(family), tmp_path / "theirs")
    module = load_module(tmp_path / "theirs")
    record: dict[str, Any] = {"geometry": host_in(tiny_host(to)).geometry.record()}
    there = type(module)(module.record.model_copy(update=record), module.tensors)
    if PARTS[family][1] == PARTS[to][1]:
        formats.save(there, tmp_path / "there", "peft")
        return
    here = DENSE[PARTS[family][1]].activation
    with pytest.raises(BadInput, match=f"head has {here} behind .* of {to} hosts have .*peftport"):
        formats.save(there, tmp_path / "there", "peft")


def test_a_head_answers_by_its_own_activation():
    torch.manual_seed(0)
    states, mask = torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.long)
    eye = {WEIGHT: torch.eye(4)[None], BIAS: torch.zeros(1, 4)}
    gelu, norm = torch.nn.functional.gelu, torch.nn.LayerNorm(4)
    expected = {
        "first": states[:, 0].tanh(),
        "first_relu": states[:, 0].clamp(min=0),
        "first_gelu": gelu(states[:, 0]),
        "first_gelu_norm": norm(gelu(states[:, 0])),
        "mean_gelu_norm": norm(gelu(states.mean(1))),
    }
    for pooling, dense in DENSE.items():
        shapes = dense.shapes(4)
        head = eye | {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
        head[dense.weight] = torch.eye(4)[None]
        if dense.norm:
            head[dense.norm] = torch.ones(1, 4)
        torch.testing.assert_close(head_logits(states, mask, head), expected[pooling])


@pytest.mark.parametrize("pooling", [pooling for pooling, dense in DENSE.items() if dense.bias])
def test_adapters_flexible_heads_have_any_of_the_activations(pooling, tiny_host, tmp_path):
    module = made(host_in(tiny_host("bert")), "houlsby", pooling)
    formats.save(module, tmp_path / "module", "adapterhub")
    config = json.loads((tmp_path / "module" / "head_config.json").read_text())["config"]
    assert config["activation_function"] == DENSE[pooling].activation
    assert same(load_module(tmp_path / "module"), module)


def test_a_decoder_s_head_is_none_that_adapters_has(tiny_host, tmp_path):
    module = made(host_in(tiny_host("llama")), "lora", "last")
    with pytest.raises(BadInput, match=r"reads the last token by one matrix, .*--format peft"):
        formats.save(module, tmp_path / "module", "adapterhub")
    assert not (tmp_path / "module").exists()


def test_a_head_with_a_norm_is_none_that_adapters_has(tiny_host, tmp_path):
    module = made(host_in(tiny_host("bert")), "houlsby", "first_gelu_norm")
    with pytest.raises(BadInput, match=r"has a norm behind its dense layer, .*--format peftport"):
        formats.save(module, tmp_path / "module", "adapterhub")


def test_a_head_that_the_receiving_family_has_not_is_left_out_when_that_is_allowed(
    tiny_host, call, tmp_path
):
    from_peft("distilbert", tiny_host("distilbert"), lora("distilbert"), tmp_path / "theirs")
    asked = ("port", tmp_path / "theirs", "--host", tiny_host("bert"), "--method", "copy")
    code, _, error = call(*asked, "--out", tmp_path / "out")
    assert code == 2
    assert "has relu behind its dense layer" in error
    assert "`port --allow-partial` leaves the head out" in error
    code, _, error = call(*asked, "--out", tmp_path / "out", "--allow-partial", "--verify")
    assert code == 0, error
    assert "notice: the module's head is left out: the module's head has relu behind" in error
    found = load_module(tmp_path / "out")
    assert not any(name.startswith("head.") for name in found.tensors)
    account = json.loads((tmp_path / "out" / "account.json").read_text())
    dropped = {each["source"] for each in account["tensors"] if each["action"] == "dropped"}
    assert dropped == {
        f"head.{n}" for n in ("weight", "bias", "dense_relu.weight", "dense_relu.bias")
    }
    assert account["counts"]["dropped"] == 4
    assert found.record.port is not None and found.record.port["counts"] == account["counts"]

    code, _, error = call(*asked, "--out", tmp_path / "own", "--format", "peftport")
    assert code == 0, error
    assert load_module(tmp_path / "own").record.head == "first_relu"


@pytest.mark.parametrize("method", ["copy", "procrustes"])
def test_such_a_head_is_refused_before_any_work_and_by_check_alike(
    method, tiny_host, tiny_task, call, tmp_path, monkeypatch
):
    """Written with peftport's format it is whole, and in one of adapters with its activation."""
    from_peft("distilbert", tiny_host("distilbert"), lora("distilbert"), tmp_path / "theirs")
    asked = (tmp_path / "theirs", "--host", tiny_host("bert"), "--method", method)
    why = "has relu behind its dense layer, and sequence classifiers of bert hosts have tanh"
    code, text, error = call("check", *asked)
    assert code == 0, error
    assert f"{why}; --format peftport keeps it; --allow-partial" in " ".join(text.split())
    for format in ("peftport", "adapterhub"):
        out = tmp_path / format
        texts = ("--texts", tiny_task, "--format", format, "--no-verify")
        code, _, error = call("port", *asked, *texts, "--out", out)
        assert code == 0, error
        assert load_module(out).record.head == "first_relu"

    def means_for(*_: object) -> None:
        raise AssertionError("hosts are loaded")

    monkeypatch.setattr("peftport.api.planned.means_for", means_for)
    code, _, error = call("port", *asked, "--texts", tiny_task, "--out", tmp_path / "out")
    assert code == 2
    assert f"{why}. Write it with --format peftport; `port --allow-partial` leaves" in error


@pytest.mark.parametrize("partial", [(), ("--allow-partial",)], ids=str)
@pytest.mark.parametrize(
    ("case", "method", "format", "told"),
    [
        ("houlsby", ("distill",), "peft", "peft has no adapter; write it with --format"),
        ("lora", ("distill", "--set", "technique=compacter"), "peft", "peft has no compacter"),
        ("lora", ("distill",), "adapterhub", "is known for albert hosts; write it with --format"),
    ],
)
def test_what_a_format_has_not_is_refused_before_any_work(
    case, method, format, told, partial, tiny_host, tiny_task, call, tmp_path, monkeypatch
):
    def means_for(*_: object) -> None:
        raise AssertionError("hosts are loaded")

    monkeypatch.setattr("peftport.api.planned.means_for", means_for)
    formats.save(made(host_in(tiny_host("bert")), case, "mean"), tmp_path / "module")
    to = "albert" if format == "adapterhub" else "bert"
    asked = ("port", tmp_path / "module", "--host", tiny_host(to), "--method", *method)
    texts = ("--texts", tiny_task, "--format", format, "--out", tmp_path / "out")
    code, _, error = call(*asked, *texts, *partial)
    assert code == 2
    assert told in error


def test_check_says_where_a_module_s_format_is_of_no_use(tiny_host, call, tmp_path):
    formats.save(
        made(host_in(tiny_host("bert")), "lora", "mean"), tmp_path / "module", "adapterhub"
    )
    asked = ("check", tmp_path / "module", "--host", tiny_host("albert"), "--method", "distill")
    code, text, error = call(*asked)
    assert code == 0, error
    assert "no layout of adapters' folders is known for albert hosts" in " ".join(text.split())


def test_what_is_not_written_is_in_no_format(tiny_host, tmp_path):
    """Who ports by the library may write it in any afterwards."""
    from_peft("distilbert", tiny_host("distilbert"), lora("distilbert"), tmp_path / "theirs")
    for partial in (False, True):
        ported = peftport.port(
            tmp_path / "theirs", tiny_host("bert"), method="copy", allow_partial=partial
        )
        ported.module.save(tmp_path / str(partial), "peftport")
        assert load_module(tmp_path / str(partial)).record.head == "first_relu"


def test_a_head_is_not_left_out_for_what_else_a_format_cannot_hold(tiny_host, call, tmp_path):
    formats.save(made(host_in(tiny_host("bert")), "houlsby", "mean"), tmp_path / "module")
    asked = ("port", tmp_path / "module", "--host", tiny_host("bert"), "--out", tmp_path / "out")
    code, _, error = call(*asked, "--format", "peft", "--allow-partial")
    assert code == 2
    assert "peft has no adapter" in error
    assert "the module's head is left out" not in error


SHAPES = [(), (2,), (1, 2, 32)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("head", ["mean", "first"])
@pytest.mark.parametrize("case", ["lora", "prefix"])
def test_a_weight_of_a_head_that_is_no_matrix_is_refused(case, head, shape, written):
    folder = written("peft", "roberta", case, head=head)
    name = next(
        n for n in read_apart(folder / PEFT) if n.endswith(("classifier.weight", "out_proj.weight"))
    )
    respell(folder / PEFT, {name: torch.ones(shape)})
    refused(folder, r"the weight of the head has shape \(.*\), expected classes, width")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("head", ["mean", "first"])
def test_neither_is_one_of_adapters(head, shape, written):
    folder = written("adapterhub", "bert", "houlsby", head=head)
    place = folder / "model_head.safetensors"
    name = sorted(n for n in read_apart(place) if n.endswith(".weight"))[-1]
    respell(place, {name: torch.ones(shape)})
    refused(folder, r"the weight of the head has shape \(.*\), expected classes, width")


def test_a_static_head_without_a_configuration_of_its_own_is_read(written):
    """What stands in place of it is looked past."""
    folder = written("adapterhub", "bert", "houlsby", head="mean")
    place = folder / "model_head.safetensors"
    tensors = read_apart(place)
    kinds = {"bias": "classifier.bias", "weight": "classifier.weight"}
    save_file({kinds[name.rpartition(".")[2]]: t for name, t in tensors.items()}, place)
    for odd in ([1], "x", 3):
        named = {"config": odd, "model_class": "BertForTokenClassification"}
        change(folder, "head_config.json", **named)
        assert load_module(folder).record.task["labels"] == [0, 1]

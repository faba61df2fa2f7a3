"""`peftport train` and `peftport test`: from a host and a task to a module and its figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from peftport.files import read_json
from peftport.techniques import TECHNIQUES
from tiny_words import opinions

FEW = ("--steps", 3, "--batch-size", 8)


@pytest.mark.parametrize("technique", list(TECHNIQUES))
def test_a_module_is_trained_saved_and_tested(technique, call, tiny_host, tiny_task, tmp_path):
    asked, out = ("--host", tiny_host("bert"), "--task", tiny_task), tmp_path / "m"
    options = ("--set", "reduction=4") if technique == "compacter" else ()
    made = (*options, *FEW, "--out", out, "--json")
    code, text, error = call("train", *asked, "--technique", technique, *made)
    assert code == 0, error
    found = json.loads(text)
    assert (found["technique"], found["seed"], found["training"]["steps"]) == (technique, 0, 3)
    assert found["validation"]["n_test"] == 32
    assert found["parameters"] > 0
    assert "step      3 of 3  loss " in error
    assert read_json(out / "module.json")["technique"] == technique
    code, text, error = call("test", out, *asked, "--json", "--limit-test", 20)
    assert code == 0, error
    figures = json.loads(text)
    assert set(figures) >= {"accuracy", "macro_f1", "auroc", "log_loss", "n_test"}
    assert figures["made_for_this_host"] is True
    assert figures["n_test"] == 20


@pytest.mark.parametrize("said", [{}, {"decoder_start_token_id": None}])
def test_an_answer_begins_with_padding_where_the_host_does_not_say_with_what(
    said, call, tiny_host, tiny_task, tmp_path
):
    def tested(host: Path) -> float:
        code, text, error = call("test", "--host", host, "--task", tiny_task, "--json")
        assert code == 0, error
        return json.loads(text)["log_loss"]

    host = shutil.copytree(tiny_host("t5"), tmp_path / "host")
    config = read_json(host / "config.json")
    assert config.pop("decoder_start_token_id") == config["pad_token_id"]
    (host / "config.json").write_text(json.dumps({**config, **said}))
    assert tested(host) == tested(tiny_host("t5"))


def test_the_same_seed_makes_the_same_module_and_another_another(
    call, tiny_host, tiny_task, tmp_path
):
    asked = ("train", "--host", tiny_host("llama"), "--task", tiny_task, "--technique", "lora")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        code, _, error = call(*asked, *FEW, "--seed", seed, "--out", tmp_path / name)
        assert code == 0, error
    a, b, c = ((tmp_path / name / "module.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def files(folder: Path, **splits: dict[str, list[object]]) -> Path:
    folder.mkdir()
    for split, columns in splits.items():
        pd.DataFrame(columns).to_csv(folder / f"{split}.csv", index=False)
    return folder


def bad_tasks(folder: Path, tiny_task: Path) -> dict[str, Path]:
    """Tasks that cannot be trained on, by the word that stands for them below."""
    texts, labels = opinions(20, seed=3)
    rows = {"text": texts, "label": labels}
    named = {"text": texts, "label": [row % 3 for row in range(20)]}
    made = {
        "MISSING": folder / "nothing.csv",
        "EMPTY": files(folder / "empty", train={"text": [], "label": []}, test=rows),
        "ODD": files(folder / "odd", train=rows, test={"text": ["a film"], "label": [7]}),
        "NAMES": files(folder / "names", train=named, validation=named, test=named),
        "KEY": folder / "key.yaml",
        "CUT": folder / "cut",
    }
    made["KEY"].write_text(f"source: {tiny_task}\nlabls: {{0: terrible, 1: great}}\n")
    shutil.copytree(tiny_task, made["CUT"])
    whole = (made["CUT"] / "train.parquet").read_bytes()
    (made["CUT"] / "train.parquet").write_bytes(whole[: len(whole) // 2])
    return made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--technique", "lra"), "unknown technique 'lra'. Did you mean 'lora'"),
        (("--set", "rnk=4"), "no such option. Did you mean 'rank'"),
        (("--set", "targets=[zz]"), "'zz'"),
        (("--host", "./none"), "'./none' was not found"),
        (("--task", "MISSING"), "nothing.csv"),
        (("--task", "EMPTY"), "train.csv"),
        (("--task", "CUT"), "train.parquet"),
        (("--task", "ODD"), "test.csv"),
        (("--task", "NAMES"), "have no label words"),
        (("--task", "KEY"), "unknown key 'labls'. Did you mean 'labels'"),
        (("--label-words", "great,great"), "great"),
        (("--label-words", "great,great story"), "begin with the same token"),
        (("--label-words", "great"), "great"),
        (("--out", "EXISTS"), "exists already"),
        (("--device", "tpu"), "--device 'tpu' is not here"),
    ],
)
def test_bad_input_ends_with_2_one_message_and_nothing_written(
    given, message, call, tiny_host, tiny_task, tmp_path
):
    places = bad_tasks(tmp_path, tiny_task) | {"EXISTS": tmp_path}
    before = sorted(tmp_path.rglob("*"))
    usual = {"--host": tiny_host("t5"), "--task": tiny_task, "--technique": "lora"}
    usual |= {"--out": tmp_path / "m", given[0]: places.get(given[1], given[1])}
    code, text, error = call("train", *FEW, *(part for pair in usual.items() for part in pair))
    assert (code, text) == (2, "")
    assert message in error
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    assert sorted(tmp_path.rglob("*")) == before


def test_a_loss_that_is_not_finite_ends_with_1_and_nothing_written(
    call, tiny_host, tiny_task, tmp_path
):
    asked = ("train", "--host", tiny_host("llama"), "--task", tiny_task, "--technique", "lora")
    code, text, error = call(*asked, *FEW, "--learning-rate", 1e30, "--out", tmp_path / "m")
    assert (code, text) == (1, "")
    assert "error: " in error
    assert "not finite" in error
    assert list(tmp_path.iterdir()) == []


def test_a_module_for_another_geometry_is_sent_to_port(call, tiny_host, tiny_task, tmp_path):
    asked = ("--task", tiny_task, "--technique", "lora", *FEW, "--out", tmp_path / "m")
    assert call("train", "--host", tiny_host("llama"), *asked)[0] == 0
    code, text, error = call("test", tmp_path / "m", "--host", tiny_host("t5"), "--task", tiny_task)
    assert (code, text) == (2, "")
    assert "port it first, with `peftport port " in error
    assert "--method ridge" in error, "a copy cannot"
    code, _, error = call(
        *("port", tmp_path / "m", "--host", tiny_host("t5"), "--out", tmp_path / "out")
    )
    assert code == 2
    assert not (tmp_path / "out").exists()
    assert "cannot be copied to" in error
    assert "only 4 of the module's 8 tensors can be carried over" in error
    assert "Methods that can: ridge (looks at both hosts and texts); distill (looks at" in error

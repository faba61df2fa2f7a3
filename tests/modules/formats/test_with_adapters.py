"""What adapters (1.3) writes, peftport loads; what peftport writes, adapters loads: within 1e-5.

The library cannot be installed beside transformers 5. What it wrote is in `tests/golden`; for what
it is to load, PEFTPORT_ADAPTERS_PYTHON names the Python of an environment that has it, or
`make adapters` has made one.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from families import ALL_KINDS
from modules.formats.modules import GOLDEN, answer_of, made, silenced
from peftport.errors import BadInput
from peftport.hosts.geometry import families
from peftport.modules import formats, load_module
from techniques.references import batch
from tiny_hosts import build_model, digest
from tiny_runs import host_in

TESTS = Path(__file__).resolve().parents[2]
FOLDERS = sorted(folder.name for folder in GOLDEN.iterdir() if folder.is_dir())
HEADS = {
    "bert-compacter": "mean",
    "bert-lora": "first",
    "bert-prefix": "first",
    "bert-seq_bn": "first",
    "roberta-double_seq_bn": "first",
    "xlm-roberta-seq_bn": "first",
}


# What adapters writes


def test_every_kind_of_module_is_there_on_every_kind_of_host():
    assert {(ALL_KINDS[name.rpartition("-")[0]], name.rpartition("-")[2]) for name in FOLDERS} >= {
        *(("encoder", case) for case in ("seq_bn", "double_seq_bn", "compacter", "lora", "prefix")),
        *(("decoder", case) for case in ("seq_bn", "compacter++", "lora", "prefix")),
        *(("encoder-decoder", case) for case in ("double_seq_bn", "compacter", "lora")),
    }


@pytest.mark.parametrize("family", sorted({name.rpartition("-")[0] for name in FOLDERS}))
def test_the_hosts_of_the_folders_are_the_tiny_hosts_of_today(family):
    with safe_open(GOLDEN / "answers.safetensors", framework="pt") as file:
        assert file.metadata()[family] == digest(build_model(family))


@pytest.mark.parametrize("name", sorted({*FOLDERS} - {"t5-compacter"}))
def test_what_adapters_wrote_answers_as_it_does_there(name, host_with_pooler, tiny_host):
    family = name.rpartition("-")[0]
    folder = (host_with_pooler if ALL_KINDS[family] == "encoder" else tiny_host)(family)
    host = host_in(folder)
    module = load_module(GOLDEN / name, from_host=str(folder))
    assert module.record.host.name == str(folder)
    assert ("head.weight" in module.tensors) == (name in HEADS)
    assert module.record.head == HEADS.get(name, "mean")
    inputs = batch(host.tokenizer)
    theirs = load_file(GOLDEN / "answers.safetensors")[name]
    bare = answer_of(silenced(module), host, inputs)
    assert (bare - theirs).abs().max() > 0.03
    torch.testing.assert_close(answer_of(module, host, inputs), theirs, atol=1e-5, rtol=0)


def test_a_compacter_whose_rule_adapters_did_not_save_is_refused(tiny_host):
    """adapters 1.3 leaves out the shared rule on T5, and draws another one on loading."""
    with pytest.raises(BadInput, match=r"lacks tensor 'shared_parameters\.golden\.phm_rule'"):
        load_module(GOLDEN / "t5-compacter", from_host=str(tiny_host("t5")))


def test_names_of_classes_are_read(tiny_host):
    module = load_module(GOLDEN / "bert-compacter", from_host=str(tiny_host("bert")))
    assert module.record.task == {"name": "unknown", "labels": ["bad", "good"], "label_words": None}


def test_a_pickle_is_read_with_a_notice_and_refused_where_asked(tiny_host, caplog):
    caplog.set_level("INFO", "peftport")
    load_module(GOLDEN / "llama-prefix", from_host=str(tiny_host("llama")))
    assert "pytorch_adapter.bin is a pickle, read by torch's weights-only loader" in caplog.text
    with pytest.raises(BadInput, match=r"pytorch_adapter\.bin is a pickle and --no-pickle"):
        load_module(GOLDEN / "llama-prefix", from_host=str(tiny_host("llama")), pickles=False)
    assert load_module(GOLDEN / "roberta-lora", from_host=str(tiny_host("roberta")), pickles=False)


# What adapters loads


def test_a_family_of_adapters_is_of_one_type_of_models():
    """So that the type and the class that a folder names are those of its host."""
    laid_out = {name: each for name, each in families().items() if each.get("adapterhub")}
    assert len(laid_out) >= 6
    assert all(len(each["model_types"]) == 1 for each in laid_out.values())


def test_a_type_of_models_that_adapters_does_not_have_is_refused(tiny_host, tmp_path):
    module = made(host_in(tiny_host("camembert")), "houlsby")
    with pytest.raises(BadInput, match="no layout of adapters' folders is known for camembert"):
        formats.save(module, tmp_path / "out", "adapterhub")


def python_of_adapters() -> str:
    """The Python of an environment with adapters; without one the test is skipped."""
    named = os.environ.get("PEFTPORT_ADAPTERS_PYTHON")
    python = Path(named) if named else TESTS.parent / ".venv-adapters" / "bin" / "python"
    if not python.is_file():
        pytest.skip("adapters is not at hand: set PEFTPORT_ADAPTERS_PYTHON, or run `make adapters`")
    return str(python)


BOTTLENECKS = ("houlsby", "pfeiffer", "compacter")
SHIFTED: dict[str, Any] = {"shift_positions": False}
WRITTEN: list[tuple[str, str, str | None, dict[str, Any]]] = [
    *(("t5", case, None, {}) for case in (*BOTTLENECKS, "lora")),
    ("t5", "houlsby", None, {"cross": True}),
    ("t5-v1.0", "compacter", None, {"variant": "pfeiffer", "activation": "gelu_new"}),
    *(("bert", case, head, {}) for case in BOTTLENECKS for head in ("mean", "first")),
    ("bert", "lora", "mean", {"targets": ("self.q", "self.k", "ffn.up"), "rslora": True}),
    ("bert", "prefix", "first", SHIFTED),
    ("roberta", "pfeiffer", "first", {}),
    ("roberta", "prefix", "mean", SHIFTED),
    ("roberta", "houlsby", None, {}),
    ("xlm-roberta", "pfeiffer", "first", {}),
    ("xlm-roberta", "lora", "mean", {}),
    *(("gpt2", case, None, {}) for case in (*BOTTLENECKS, "lora")),
    ("gpt2", "lora", None, {"targets": ("qkv", "ffn.up", "ffn.down"), "alpha": 3}),
    ("gpt2", "prefix", None, SHIFTED),
    *(("llama", case, None, {}) for case in BOTTLENECKS),
    ("llama", "lora", None, {"targets": ("ffn.up",)}),
    ("llama", "lora", None, {"targets": ("v", "ffn.down"), "alpha": 3}),
    ("llama", "prefix", None, SHIFTED),
]


def test_adapters_loads_what_is_written(tiny_host, tmp_path):
    python = python_of_adapters()
    modules, jobs = [], []
    for number, (family, case, head, options) in enumerate(WRITTEN):
        host = host_in(tiny_host(family))
        module = made(host, case, head or "mean", 2 if head else 0, **options)
        formats.save(module, tmp_path / str(number), "adapterhub")
        modules.append((module, host))
        jobs.append({"family": family, "folder": str(tmp_path / str(number))})
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    script = [str(TESTS / "golden" / "with_adapters.py"), "answer"]
    done = subprocess.run(
        [python, *script, str(tmp_path / "jobs.json"), str(tmp_path / "answers")],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = load_file(tmp_path / "answers")
    for number, (module, host) in enumerate(modules):
        inputs = batch(host.tokenizer)
        theirs = answers[str(number)]
        assert (answer_of(silenced(module), host, inputs) - theirs).abs().max() > 0.03, number
        ours = answer_of(module, host, inputs)
        torch.testing.assert_close(
            ours, theirs, atol=1e-5, rtol=0, msg=lambda m, n=number: f"{WRITTEN[n]}: {m}"
        )

"""A port between real language models, from end to end: SmolLM2-135M, read from a GGUF file, and
the same model pretrained further, for which noise on every weight stands in.

The file is got by `make smollm2`. Where it is missing the tests are skipped, and fail in CI.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from inline_executor import Inline
from peftport.api.study_files import report_of
from peftport.hosts import find_host
from peftport.hosts.genealogy import relation_of
from peftport.kind import kind_named
from peftport.studies.run import run_study
from real_data import require_smollm2
from study_specs import tiny_spec
from tiny_words import write_opinions

pytestmark = pytest.mark.long

pytest.importorskip("gguf", reason="the package gguf is not installed")

NOISE = 0.05
"""In units of each matrix's standard deviation: about as far as a rounding to 5 bits."""


@pytest.fixture(scope="module")
def origin() -> Path:
    return require_smollm2()


@pytest.fixture(scope="module")
def receiver(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host with noise on every matrix, in bfloat16, as a folder of transformers'."""
    plain = find_host(str(origin)).files()
    folder = tmp_path_factory.mktemp("real") / "moved"
    shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("*.safetensors", "peftport_*"))
    generator = torch.Generator().manual_seed(0)
    tensors = load_file(plain / "model.safetensors")
    for name, tensor in tensors.items():
        wide = tensor.float()
        if wide.ndim > 1:
            wide += NOISE * wide.std() * torch.randn(wide.shape, generator=generator)
        tensors[name] = wide.bfloat16()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny task with fewer rows, for a host that takes its time with each."""
    rows = {"train": 32, "validation": 8, "test": 24}
    return write_opinions(tmp_path_factory.mktemp("tasks") / "opinions", rows)


@pytest.fixture(scope="module")
def donor(origin: Path, few_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    import peftport as pp

    folder = tmp_path_factory.mktemp("real") / "donor"
    pp.train(
        str(origin),
        str(few_rows),
        "lora",
        out=folder,
        steps=8,
        batch_size=4,
        learning_rate=3e-3,
        options={"rank": 4, "targets": ["q", "v"]},
        label_words="terrible,great",
    )
    return folder


def test_a_gguf_host_and_one_near_it_are_of_one_genealogy(origin, receiver):
    assert relation_of(find_host(str(origin)).files(), "", receiver) == "continuation"


@pytest.mark.parametrize(
    ("method", "options"),
    [("copy", ()), ("procrustes", ("--set", "places=256", "--text-count", 16))],
)
def test_a_real_module_is_ported_and_acts_in_stock_peft(
    method, options, origin, receiver, donor, few_rows, tmp_path, call
):
    out = tmp_path / "ported"
    texts = ("--texts", few_rows) if method != "copy" else ()
    where = ("--host", receiver, "--from-host", origin, "--method", method)
    said = ("--no-verify", "--format", "peft", "--out", out)
    code, _, errors = call("port", donor, *where, *texts, *options, *said)
    assert code == 0, errors
    code, told, errors = call("verify", out, "--host", receiver, "--json")
    assert code == 0, errors
    found = json.loads(told)
    assert found["passed"] and found["acts"] and found["equal"]
    assert found["loaded_by"].startswith("peft ")
    assert found["nats"] > 0.01
    where = ("--host", receiver, "--task", few_rows, "--label-words", "terrible,great")
    code, told, errors = call("test", out, *where, "--json")
    assert code == 0, errors
    assert json.loads(told)["auroc"] > 0.9


VOCABULARY = 49_152
WRITTEN = {
    "choice": ("copy", ("--label-words", "terrible,great")),
    "completion": ("distill", ("--label-words", "terrible,great", "--max-answer", 2)),
    "language": ("copy", ()),
}
"""How a module of a kind is ported here, and what its rows need."""


@pytest.mark.parametrize("kind", WRITTEN)
def test_modules_of_every_kind_are_trained_ported_and_tested(
    kind, origin, receiver, few_rows, tmp_path, call
):
    method, words = WRITTEN[kind]
    task = ("--task", few_rows, "--kind", kind, *words)
    few = ("--set", "rank=4", "--set", "targets=[q,v]", "--learning-rate", "3e-3")
    train = ("--technique", "lora", *few, "--steps", 4, "--batch-size", 4, "--limit-train", 16)
    donor, out = tmp_path / "donor", tmp_path / "ported"
    code, _, errors = call("train", "--host", origin, *task, *train, "--out", donor)
    assert code == 0, errors
    where = ("--host", receiver, "--from-host", origin, "--method", method, "--no-verify")
    learn = ("--text-count", 16, "--set", "steps=2", "--set", "batch_size=4")
    how = () if method == "copy" else (*task, *learn)
    code, _, errors = call("port", donor, *where, *how, "--out", out)
    assert code == 0, errors
    code, told, errors = call("test", out, "--host", receiver, *task, "--limit-test", 4, "--json")
    assert code == 0, errors
    found, asked = json.loads(told), kind_named(kind)
    assert found["n_test"] == 4
    if kind != "choice":
        assert 0 < found["token_loss"] < math.log(VOCABULARY), "it knows more than chance does"
    assert found[asked.primary] is not None


def test_a_study_of_a_kind_that_writes_ends_and_is_reported(origin, receiver, few_rows, tmp_path):
    spec = tiny_spec(
        {"a": origin, "b": receiver},
        few_rows,
        kind="completion",
        max_answer=4,
        techniques={"lora": {"rank": 4}},
        pairs=[{"origin": "a", "receiver": "b", "relation": "continuation"}],
        budgets=[0],
        seeds=1,
        donor_steps=2,
        native_steps=2,
        limit_train=8,
        limit_test=4,
        training={"batch_size": 4, "learning_rates": {"lora": 0.003}},
    )
    outcome = run_study(spec, tmp_path / "study", Inline())
    assert outcome.done == outcome.total
    found = report_of(tmp_path / "study", tmp_path / "report").to_dict()
    assert found["metric"] == "token_loss"

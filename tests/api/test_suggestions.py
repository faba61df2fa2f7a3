"""One place decides which port method is tried first: every command and document suggests it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from modules.formats.modules import made
from peftport.modules import formats
from peftport.porting.methods import Verdict, to_try
from tiny_hosts import write_host
from tiny_runs import host_in

DOCS = Path(__file__).resolve().parents[2] / "docs"
WORDS = ("--label-words", "terrible,great")
FEW = ("--budgets", "0", "--seeds", 2, "--native-steps", 1, "--limit-test", 16)


@pytest.fixture
def module(tiny_host, tmp_path):
    """A function that writes a module for a family's tiny host."""

    def written(family: str) -> Path:
        formats.save(made(host_in(tiny_host(family)), "lora"), tmp_path / "m")
        return tmp_path / "m"

    return written


@pytest.mark.parametrize(
    ("origin", "receiver", "first"),
    [
        ("llama", "gpt2", "ridge"),
        ("t5", "llama", "ridge"),
        ("bert", "roberta", "procrustes"),
        ("t5", "bert", "distill"),
    ],
)
def test_every_command_suggests_the_same_method(
    origin, receiver, first, call, module, tiny_host, tiny_task, tmp_path
):
    """Between hosts of other shape, where nothing can be copied."""
    host = ("--host", tiny_host(receiver))
    words = WORDS if receiver != "bert" else ()
    asked, task = (module(origin), *host, *words), ("--task", tiny_task)
    found = json.loads(call("check", *asked, "--json")[1])
    assert found["try_first"][0] == first
    assert call("check", *asked)[1].endswith(f"Try first: {first}.\n")

    _, _, error = call("port", *asked, *task, "--out", tmp_path / "out")
    assert f"--method {first} " in error
    _, _, error = call("test", *asked, *task)
    assert f"--method {first} " in error
    if first != "distill":
        code, text, error = call("assess", *asked, *task, *FEW, "--json")
        assert code == 0, error
        assert f"notice: no --methods are named; assessed by {first}\n" in error
        assert list(json.loads(text)["methods"]) == [first]


@pytest.fixture
def stranger(tmp_path) -> Path:
    """A host of the tiny llama's shape whose weights have nothing in common with its."""
    return write_host("llama", tmp_path / "stranger", seed=1)


def test_a_copy_comes_first_where_the_hosts_are_kin_alone(
    call, module, tiny_continuation, stranger, tiny_task, tmp_path
):
    folder, kin = module("llama"), tiny_continuation("llama")
    task = ("--task", tiny_task, *WORDS)
    for host, methods in ((kin, ["copy"]), (stranger, ["copy", "ridge"])):
        asked = ("assess", folder, "--host", host, *task, *FEW, "--json")
        code, text, error = call(*asked)
        assert code == 0, error
        assert list(json.loads(text)["methods"]) == methods
    code, _, error = call("port", folder, "--host", kin, *task, "--out", tmp_path / "kin")
    assert (code, "no --method is named" in error) == (0, False)
    code, _, error = call("port", folder, "--host", stranger, *task, "--out", tmp_path / "other")
    assert code == 0, error
    told = " ".join(error.split())
    assert f"keeps something only where {stranger} continues" in told
    assert "--method ridge" in told
    text = call("check", folder, "--host", stranger, *WORDS)[1]
    assert f"Try first: copy where {stranger} continues " in text
    assert text.endswith("; else ridge.\n")


def test_what_cannot_and_copies_between_unrelated_hosts_are_passed_over():
    names = ("distill", "theirs", "procrustes", "copy", "ridge")
    verdicts = [Verdict(name, "no" if name == "ridge" else None, frozenset()) for name in names]
    found = [each.method for each in to_try(verdicts)]
    assert found == ["copy", "procrustes", "distill", "theirs"]
    assert "copy" not in [each.method for each in to_try(verdicts, related=False)]
    written = [each.method for each in to_try(verdicts, kind="completion")]
    assert written == ["copy", "distill", "procrustes", "theirs"]


def test_of_a_module_that_writes_distillation_is_suggested_whoever_says_that_it_does(
    call, module, tiny_host
):
    asked = ("check", module("llama"), "--host", tiny_host("gpt2"), "--kind", "completion")
    code, text, error = call(*asked)
    assert code == 0, error
    assert text.endswith("Try first: distill.\n")


def test_a_command_that_is_suggested_says_the_kind_that_was_said(
    call, module, tiny_host, tiny_task, tmp_path
):
    said = ("--task", tiny_task, "--kind", "completion", *WORDS, "--max-answer", 2)
    code, _, error = call("test", module("llama"), "--host", tiny_host("gpt2"), *said)
    assert code == 2
    command = shlex.split(re.search(r"`peftport (port .*?)`", error)[1])
    assert command[command.index("--kind") + 1] == "completion"
    command[command.index("--out") + 1] = str(tmp_path / "out")
    more = ("--text-count", 16, "--set", "steps=1", "--no-verify")
    code, _, error = call(*command, *more)
    assert code == 0, error


def test_the_guide_and_the_reference_suggest_them_in_the_same_order():
    names = ("copy", "ridge", "procrustes", "distill")
    verdicts = [Verdict(name, None, frozenset()) for name in sorted(names)]
    order = [each.method for each in to_try(verdicts)]
    guide = (DOCS / "guides" / "base-model-replaced.md").read_text()
    table = guide[guide.index("| your case |") :].split("\n\n")[0]
    assert re.findall(r"\| `(\w+)` \|", table) == order
    reference = (DOCS / "porting.md").read_text()
    steps = reference[reference.index("## Which method") :]
    told = re.findall(r"`(\w+)`", steps[steps.index("\n1. ") : steps.index("\n4. ")])
    assert [name for name in dict.fromkeys(told) if name in names] == order

"""`peftport test MODULE --against`: two tests on the same rows, and how far they are apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import peftport as pp
from modules.formats.modules import change, made, silenced
from peftport.modules import formats
from tiny_runs import host_in

WORDS = ("--label-words", "terrible,great", "--template", "{text} it was")


@pytest.fixture
def module(tiny_host, tmp_path) -> Path:
    """A LoRA for the tiny Llama that moves its answers."""
    formats.save(made(host_in(tiny_host("llama")), "lora"), tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture
def tested(call, tiny_host, tiny_task, module):
    """A function that tests the module with more options: the record of --json."""

    def run(*more: object) -> dict:
        asked = ("test", module, "--host", tiny_host("llama"), "--task", tiny_task, *WORDS)
        code, text, error = call(*asked, "--json", *more)
        assert code == 0, error
        return json.loads(text)

    return run


def figures(record: dict) -> dict:
    return {name: record[name] for name in ("accuracy", "auroc", "log_loss", "n_test", "host")}


def test_the_bare_host_has_the_figures_that_it_has_alone(
    call, tested, module, tiny_host, tiny_task
):
    beside = tested("--against", "bare")
    asked = ("test", "--host", tiny_host("llama"), "--task", tiny_task, *WORDS, "--json")
    alone = json.loads(call(*asked)[1])
    assert figures(beside["against"]) == figures(alone)
    assert figures(beside) == figures(tested()), "what stands beside it changes nothing of it"
    for name, found in beside["differences"].items():
        assert found["value"] == pytest.approx(beside[name] - alone[name])
        assert found["low"] <= found["value"] <= found["high"]


def test_it_is_printed_in_columns(call, module, tiny_host, tiny_task):
    asked = ("test", module, "--host", tiny_host("llama"), "--task", tiny_task, *WORDS)
    code, text, error = call(*asked, "--against", "bare")
    assert code == 0, error
    head, beside, columns, *lines = text.splitlines()
    assert head.endswith("95 % intervals over them")
    assert beside.startswith("against bare host ")
    assert [word in columns for word in ("the module", "against", "difference")] == [True] * 3
    assert all(line.count(" to ") == 3 for line in lines)
    assert "template" not in error, "the bare host reads the rows as the module does"


def test_a_module_stands_beside_its_copy_on_another_host(tested, module, tiny_host, tmp_path):
    """On its own host, unless another is named; a module that does nothing is the bare host."""
    nothing = tmp_path / "nothing"
    formats.save(silenced(made(host_in(tiny_host("llama")), "lora")), nothing)
    against = tested("--against", nothing)
    assert figures(against["against"]) == figures(tested("--against", "bare")["against"])
    same = tested("--against", module, "--against-host", tiny_host("llama"))
    assert {found["value"] for found in same["differences"].values()} == {0.0}


def test_the_port_and_the_donor_on_its_own_host(tmp_path):
    """The donor is where it was made, though the port is elsewhere."""
    film = pp.train("lab:small", "lab:films", "lora", out=tmp_path / "m", steps=2, limit_train=32)
    there = pp.port(film, "lab:small-tuned", method="copy", out=tmp_path / "there")
    found = pp.test(there, "lab:small-tuned", "lab:films", against=film, limit_test=32)
    assert found.against is not None
    assert (found.host, found.against.host) == ("lab:small-tuned", "lab:small")
    alone = pp.test(film, "lab:small", "lab:films", limit_test=32)
    assert found.against.figures == alone.figures
    assert len(found.frame()) == 2
    writer = pp.train("lab:small", "lab:films", "lora", kind="completion", steps=1, limit_train=32)
    with pytest.raises(pp.BadInput, match=r"kind completion.*Say with --kind"):
        pp.test(there, "lab:small-tuned", "lab:films", against=writer, limit_test=32)


def test_no_difference_is_given_where_another_part_of_a_text_is_read(tiny_host, tiny_task):
    """An encoder-decoder says how probable the second half of a text is after the first."""
    here, there = tiny_host("llama"), tiny_host("t5")
    module = pp.train(str(here), str(tiny_task), "lora", kind="language", steps=1)
    found = pp.test(module, str(here), str(tiny_task), against="bare", against_host=str(there))
    assert found.differences == {}
    assert str(found).count("  not comparable") == 3
    alike = pp.test(module, str(here), str(tiny_task), against="bare")
    assert set(alike.differences) == {"bits_per_byte", "token_loss", "perplexity"}


def test_a_module_whose_own_host_is_elsewhere_is_made_for_the_one_on_which_it_is_tested(
    call, tested, module, from_peft, tiny_host, tiny_task
):
    """As `--from-host` says it of MODULE; without either the message names the option that does."""
    host = tiny_host("llama")
    here = tested("--against", from_peft, "--against-host", host)["against"]
    change(from_peft, base_model_name_or_path="somebody/elsewhere")
    assert tested("--against", from_peft, "--against-host", host)["against"] == here
    found = pp.test(
        module, host, str(tiny_task), against=from_peft, against_host=host,
        label_words="terrible,great", template="{text} it was",
    )  # fmt: skip
    assert found.against is not None
    assert found.against.figures == {name: here[name] for name in found.against.figures}
    asked = ("test", module, "--host", host, "--task", tiny_task, "--against", from_peft)
    code, _, error = call(*asked)
    assert code == 2
    assert "name it with --against-host" in error
    assert "--from-host" not in error


def test_what_cannot_be_compared_is_refused_before_anything_is_tested(
    call, module, tiny_host, tiny_task, tmp_path
):
    encoder = tiny_host("bert")
    asked = ("test", module, "--host", tiny_host("llama"), "--task", tiny_task)
    cases = (
        (("--against-host", encoder), "--against-host: say with --against"),
        (("--against", tmp_path / "nowhere"), "was not found"),
        (("--against", "bare", "--against-host", encoder), "is an encoder"),
        (("--against", module, "--against-host", encoder), "is made for"),
    )
    for more, said in cases:
        code, text, error = call(*asked, *more)
        assert (code, text) == (2, ""), error
        assert said in error
        assert "rows tested" not in error
    code, _, error = call("test", "--host", encoder, "--task", tiny_task, "--against", "bare")
    assert code == 2
    assert "--against: not without MODULE" in error

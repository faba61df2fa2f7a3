"""`peftport hosts`: list, describe, pretrain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftport import lab
from peftport.hosts import families
from tiny_words import opinions

FEW = ("--steps", 4, "--length", 24, "--tokens-per-batch", 256)


@pytest.fixture
def text(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("text") / "opinions.txt"
    path.write_text("\n\n".join(opinions(120, seed=5)[0]))
    return path


def test_the_lab_and_every_family_are_listed(call):
    code, text, error = call("hosts", "list", "--json")
    assert (code, error) == (0, "")
    found = json.loads(text)
    assert {each["name"] for each in found["lab"]} == {f"lab:{name}" for name in lab.NAMES}
    assert {each["family"] for each in found["families"]} == set(families())
    code, text, _ = call("hosts", "list")
    assert all(f"  lab:{name} " in text for name in lab.NAMES)


def test_a_host_is_described_with_its_insertion_points_and_its_fingerprint(call, tiny_host):
    host = tiny_host("gpt2")
    code, text, _ = call("hosts", "describe", host, "--json")
    assert code == 0
    found = json.loads(text)
    assert (found["family"], found["kind"], found["width"]) == ("gpt2", "decoder", 32)
    assert found["linears"]["decoder.0.ffn.up"] == [found["ffn"], 32]
    assert len(found["fingerprint"]) == 64 + 1 + 16
    assert found["provenance"] is None
    code, text, _ = call("hosts", "describe", host)
    assert found["fingerprint"] in text


def test_a_new_host_is_made_and_continued_and_says_from_what(call, text, tmp_path):
    asked = ("hosts", "pretrain", "--texts", text, *FEW, "--json")
    sizes = ("--width", 32, "--layers", 1, "--heads", 2, "--vocabulary", 460)
    code, out, error = call(*asked, "--family", "bert", *sizes, "--out", tmp_path / "new")
    assert code == 0, error
    assert "step      4 of 4  loss " in error
    new = json.loads(out)
    assert (new["family"], new["from"], new["ffn"]) == ("bert", None, 128)
    code, out, error = call(*asked, "--from", tmp_path / "new", "--out", tmp_path / "on")
    assert code == 0, error
    found = json.loads(out)
    assert found["from"] == {"name": str(tmp_path / "new"), "fingerprint": new["fingerprint"]}
    assert found["fingerprint"] != new["fingerprint"]
    code, out, _ = call("hosts", "describe", tmp_path / "on", "--json")
    assert json.loads(out)["provenance"]["from"]["fingerprint"] == new["fingerprint"]
    asked = ("hosts", "pretrain", "--texts", text, *FEW, "--family", "bert", *sizes[:-2])
    code, out, error = call(*asked, "--teacher", tmp_path / "new", "--out", tmp_path / "taught")
    assert code == 0, error
    assert f"taught by {tmp_path / 'new'}, 4 steps of teacher-states" in out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("describe", "./nowhere"), "'./nowhere' was not found"),
        (("describe", "lab:smal"), "Did you mean 'small'"),
        (("describe", "OTHER"), "no model of type 'lama'"),
        (("pretrain", "--family", "berd"), "Did you mean 'bert'"),
        (("pretrain",), "give either a family, for a new host, or a host to continue from"),
        (("pretrain", "--from", "OTHER"), "no model of type 'lama'"),
        (("pretrain", "--family", "bert", "--texts", "none.txt"), "none.txt"),
        (("pretrain", "--family", "bert", "--texts", "EMPTY"), "no text"),
        (("pretrain", "--family", "bert", "--steps", 0), "steps"),
        (("pretrain", "--family", "bert", "--out", "EXISTS"), "exists already"),
    ],
)
def test_bad_input_ends_with_2_one_message_and_nothing_written(
    asked, message, call, text, tmp_path
):
    places = {"OTHER": tmp_path / "mamba", "EMPTY": tmp_path / "empty.txt", "EXISTS": tmp_path}
    places["OTHER"].mkdir()
    (places["OTHER"] / "config.json").write_text('{"model_type": "lama"}')
    places["EMPTY"].write_text("\n\n")
    before = sorted(tmp_path.iterdir())
    verb, *given = (places.get(part, part) for part in asked)
    usual = ("--texts", text, *FEW, "--out", tmp_path / "out") if verb == "pretrain" else ()
    code, out, error = call("hosts", verb, *usual, *given)
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("error: ") == 1
    assert "Traceback" not in error
    assert sorted(tmp_path.iterdir()) == before


def test_a_loss_that_is_not_finite_ends_with_1_and_nothing_written(call, text, tmp_path):
    asked = ("hosts", "pretrain", "--family", "bert", "--texts", text, *FEW, "--width", 32)
    code, _, error = call(*asked, "--learning-rate", 1e30, "--out", tmp_path / "out")
    assert code == 1
    assert "error: the loss or its gradient was not finite at step " in error
    assert "Lower the learning rate." in error
    assert list(tmp_path.iterdir()) == []

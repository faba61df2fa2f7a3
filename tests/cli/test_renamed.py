"""Former names of options are understood for one version, with a notice, and shown nowhere."""

from __future__ import annotations

import pytest

from peftport.cli.renamed import FORMER

TRAIN = ["train", "--host", "x", "--task", "y", "--technique", "lora", "--out", "o"]
NOTICE = "notice: {} is called {} now"


@pytest.mark.parametrize(
    ("asked", "former", "now"),
    [
        (("check", "m", "--to", "lab:small"), "--to", "--host"),
        (("check", "m", "--to=lab:small"), "--to", "--host"),
        (("assess", "m", "--to", "lab:small", "--task", "lab:films"), "--to", "--host"),
        (("check", "m", "--host", "x", "--genealogy", "continuation"), "--genealogy", "--relation"),
        (("check", "m", "--host", "x", "--forecast", "--text", "f"), "--text", "--texts"),
        (("check", "m", "--host", "x", "--texts", "32"), "--texts", "--text-count"),
        ([*TRAIN, "--option", "rank=2"], "--option", "--set"),
        (
            ("hosts", "pretrain", "--text", "f", "--out", "o", "--steps", "1"),
            "--text",
            "--texts",
        ),
    ],
)
def test_a_former_name_is_understood_with_a_notice(asked, former, now, call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, error = call(*asked)
    assert NOTICE.format(former, now) in error
    assert "No such option" not in error
    assert code == 2  # none of what is named is there


def test_present_names_bring_no_notice(call, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, _, error = call("check", "m", "--host", "lab:small", "--texts", "films.txt")
    assert "notice" not in error


def test_help_shows_present_names_alone(call):
    for verb in ("train", "check", "port", "assess"):
        _, text, _ = call(verb, "--help")
        words = text.split()
        assert not set(words) & (FORMER.keys() - {"--text"})


def test_a_name_that_never_was_is_still_refused(call):
    code, _, error = call("train", "--too", "x")
    assert (code, "No such option" in error) == (2, True)

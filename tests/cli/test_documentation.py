"""What docs/porting.md says of commands and methods."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import peftport as pp
from peftport.porting import METHODS, port_method

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "porting.md").read_text()
USAGE = TEXT.split("```")[1]


@pytest.mark.parametrize("verb", ["check", "port", "test", "assess"])
def test_every_option_in_it_is_one(verb, call):
    told = USAGE[USAGE.index(f"peftport {verb}") :].split("\npeftport")[0]
    code, text, _ = call(verb, "--help")
    assert code == 0
    for option in re.findall(r"--[\w-]+", told):
        assert re.search(rf"^ +{option}\b", text, re.MULTILINE), option


def test_every_method_is_told():
    told = set(re.findall(r"^\| `(\w+)", TEXT, re.MULTILINE))
    assert told == {name for name in METHODS if not port_method(name).control}


NUMBER = re.compile(r"\d[\d,]*(\.\d+)?(e-?\d+)?( (s|min)\b)?")


def printed() -> list[tuple[str, str]]:
    """(command, what it prints) for every command of the page that is shown with its output."""
    found = []
    for block in re.findall(r"^```\n\$ (.*?)^```", TEXT, re.DOTALL | re.MULTILINE):
        command, _, output = block.replace("\\\n", " ").partition("\n")
        if output:
            found.append((command, output))
    return found


def alike(text: str) -> str:
    """A text without what differs from run to run and from machine to machine: numbers, times, and
    where lines end."""
    return " ".join(NUMBER.sub("N", text).split())


SMALLER = {
    r"--text-count \d+": "--text-count 20",
    r"--steps \d+": "--steps 1",
    r"steps=\d+": "steps=1",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules that the page speaks of, trained for a few steps."""
    folder = tmp_path_factory.mktemp("page")
    for seed in range(3):
        out = folder / "modules" / f"books-{seed}"
        pp.train("lab:small", "lab:books", "lora", out=out, steps=2, seed=seed, limit_train=64)
    return folder


def test_what_it_prints_of_commands_is_what_they_print(place, call, monkeypatch):
    """The commands of the page in its order, with fewer texts and steps."""
    monkeypatch.chdir(place)
    commands = printed()
    assert len(commands) >= 6
    for command, told in commands:
        for pattern, smaller in SMALLER.items():
            command = re.sub(pattern, smaller, command)
        verb = shlex.split(command)[1]
        few = ("--limit-test", 40) if verb in ("test", "assess") else ()
        more = ("--native-steps", 2) if verb == "assess" else ()
        code, text, error = call(*shlex.split(command)[1:], *few, *more)
        assert code == 0, (command, error)
        if verb == "assess":
            assert rows(text) <= rows(told), command
        else:
            assert alike(text) == alike(told), command


def rows(text: str) -> set[str]:
    """What stands at the beginning of an assessment's tables' lines: figures hang on the training,
    and with them the verdicts below."""
    tables = text[: text.index("looked at, without labels")]
    labels = {NUMBER.sub("N", re.split(r"  +| \d+ steps", line)[0]) for line in tables.splitlines()}
    return {label for label in labels if not label.startswith(("lora ", "no recovery"))}

"""What docs/porting.md says of commands and methods, and what pages print of commands."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

import peftport as pp
from peftport.porting import METHODS, port_method

DOCS = Path(__file__).resolve().parents[2] / "docs"
TEXT = (DOCS / "porting.md").read_text()
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


NUMBER = re.compile(r"(?<![\w-])[+-]?\d[\d,]*(\.\d+)?(e-?\d+)?( (s|min)\b)?")


def printed(page: str) -> list[tuple[str, str]]:
    """(command, what it prints) for every command of a page that is shown with what it prints, and
    for those that make a module for it, in order."""
    found = []
    for block in re.findall(r"^```\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        lines = block.replace("\\\n", " ")
        if lines.startswith("$ "):
            command, _, output = lines.removeprefix("$ ").partition("\n")
            found += [(command, output)] if output else []
        elif lines.startswith("peftport train "):
            found += [(line, "") for line in lines.splitlines()]
    return found


def alike(text: str) -> str:
    """A text without what differs from run to run and from machine to machine: numbers, times, and
    where lines end."""
    return " ".join(NUMBER.sub("N", text).split())


SMALLER = {
    r"--text-count \d+": "--text-count 20",
    r"--steps \d+": "--steps 2",
    r"steps=\d+": "steps=1",
    r"(peftport (test|assess) .*)": r"\1 --limit-test 40",
    r"(peftport assess .*)": r"\1 --native-steps 2",
}


@pytest.fixture(scope="module")
def modules(tmp_path_factory) -> Path:
    """Two of the modules of docs/porting.md, trained for two steps."""
    folder = tmp_path_factory.mktemp("trained") / "modules"
    for seed in (1, 2):
        out = folder / f"books-{seed}"
        pp.train("lab:small", "lab:books", "lora", out=out, steps=2, seed=seed, limit_train=64)
    return folder


@pytest.fixture
def place(modules, tmp_path, monkeypatch) -> Path:
    """The current folder, with these modules."""
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(modules, tmp_path / "modules"))


@pytest.mark.parametrize(("page", "least"), [("index.md", 6), ("porting.md", 6)])
def test_commands_print_what_a_page_says_that_they_print(page, least, place, call):
    """Run in the page's order, with fewer texts and steps: all but the figures is as it stands
    there."""
    commands = printed((DOCS / page).read_text())
    assert len(commands) >= least
    for command, told in commands:
        smaller = command
        for pattern, less in SMALLER.items():
            smaller = re.sub(pattern, less, smaller)
        code, text, error = call(*shlex.split(smaller)[1:])
        assert code == 0, (command, error)
        if "peftport assess" in command:
            assert labels(text) <= labels(told), command
        elif told:
            assert alike(text) == alike(told), command


def labels(text: str) -> set[str]:
    """What the lines of an assessment's tables begin with. Figures hang on the training, and with
    them the verdicts below and whether there is a recovery."""
    tables = text[: text.index("looked at, without labels")]
    found = {NUMBER.sub("N", re.split(r"  +|: ", line)[0]) for line in tables.splitlines()}
    return {label for label in found if not label.startswith(("lora ", "no recovery", "agreement"))}

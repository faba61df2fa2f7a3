"""The command line as a whole: quick to answer, one contract for every command."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
import typer

from peftport.cli import app
from peftport.errors import RunFailed

HEAVY = ("torch", "transformers", "pandas", "pyarrow", "scipy", "matplotlib")


@pytest.mark.parametrize("asked", ["--help", "hosts list", "port --help", "study --help"])
def test_what_needs_no_host_answers_at_once_and_imports_nothing_heavy(asked):
    code = (
        "import sys\n"
        "from peftport.cli import main\n"
        f"sys.argv = ['peftport', *{asked.split()!r}]\n"
        "try:\n    main()\n"
        "finally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    # Computing time, so that other processes on the machine do not count.
    taken = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "[]\n"
    assert taken < 0.7


def commands(group: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inside = getattr(group, "commands", None)
    if inside is None:
        return [path]
    return [each for name, one in inside.items() for each in commands(one, (*path, name))]


@pytest.mark.parametrize("path", commands(typer.main.get_command(app)), ids=" ".join)
def test_every_command_can_answer_in_json(path, call):
    code, text, _ = call(*path, "--help")
    assert code == 0
    assert "--json" in text


@pytest.mark.parametrize(
    ("raised", "code", "message"),
    [
        (RunFailed("it burst."), 1, "error: it burst.\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_what_ends_a_command_is_its_exit_code(raised, code, message, call, monkeypatch, tmp_path):
    def burst(path):
        raise raised

    monkeypatch.setattr("peftport.places.require_new", burst)
    asked = ("train", "--host", "lab:small", "--task", "lab:films", "--technique", "lora")
    assert call(*asked, "--out", tmp_path / "m") == (code, "", message)


@pytest.mark.parametrize(
    "asked",
    [("trian",), ("train",), ("hosts", "list", "--jsn"), ("test", "m", "--limit-test", "0")],
)
def test_a_command_that_is_not_understood_ends_with_2(asked, call):
    code, text, error = call(*asked)
    assert (code, text) == (2, "")
    assert "Usage: " in error

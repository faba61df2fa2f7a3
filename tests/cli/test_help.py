"""Help that fits a terminal, and every command that is suggested anywhere is one."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import peftport
from peftport.cli import app

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "peftport").rglob("*.py"))
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
COMMAND = typer.main.get_command(app)


def commands(group: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    inside = getattr(group, "commands", None)
    if inside is None:
        return {path: group}
    found = {path: group}
    for name, one in inside.items():
        found |= commands(one, (*path, name))
    return found


@pytest.mark.parametrize("path", commands(COMMAND), ids=lambda path: " ".join(path) or "peftport")
def test_help_fits_eighty_columns(path, call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, text, _ = call(*path, "--help")
    assert code == 0
    assert max(map(len, text.splitlines())) <= 80


def test_the_version_is_told(call):
    assert call("--version") == (0, f"peftport {peftport.__version__}\n", "")


def test_completion_is_offered(call):
    _, text, _ = call("--help")
    assert "--install-completion" in text


def as_text(node: ast.AST) -> str:
    """A string as it is printed, something in the place of what is put into it; else nothing."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    parts = node.values if isinstance(node, ast.JoinedStr) else []
    return "".join(p.value if isinstance(p, ast.Constant) else "PART" for p in parts)


def suggested_in_code() -> list[tuple[str, str]]:
    """(file, command) for every command in backquotes in a string of the package."""
    return [
        (file.name, command)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        for command in re.findall(r"`(peftport [^`]+)`", as_text(node))
    ]


def suggested_in_pages() -> list[tuple[str, str]]:
    """(file, command) for every command in a block or in backquotes of a page."""
    found = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
        lines = re.findall(r"^\s*\$?\s*(peftport [a-z].*)$", blocks, re.MULTILINE)
        inline = re.findall(r"`(peftport [a-z][^`\n]*)`", text)
        found += [(page.name, line) for line in [*lines, *inline]]
    return found


def problem(written: str) -> str | None:
    """What is wrong with the names in a command, as the command line sees it."""
    words = shlex.split(re.sub(r"\s#.*$", "", written).replace("...", " "))[1:]
    group, path = COMMAND, []
    while words and hasattr(group, "commands"):
        # "plan|tune|run" stands for each of them.
        names = words[0].split("|")
        unknown = [name for name in names if name not in group.commands]
        if unknown:
            return f"no command {' '.join([*path, unknown[0]])}"
        group, path, words = group.commands[names[0]], [*path, words[0]], words[1:]
    known = {name for each in group.params for name in (*each.opts, *each.secondary_opts)}
    known |= {"--help"}
    told = [re.match(r"\[*(--[a-z-]+)", word) for word in words]
    wrong = [found[1] for found in told if found and found[1] not in known]
    return f"{' '.join(path)} has no {', '.join(wrong)}" if wrong else None


SUGGESTED = sorted({*suggested_in_code(), *suggested_in_pages()})


@pytest.mark.parametrize(("file", "written"), SUGGESTED)
def test_a_suggested_command_is_one(file, written):
    assert problem(written) is None


def test_suggestions_were_found():
    assert len(SUGGESTED) > 40
    assert problem("peftport check M --hots x") == "check has no --hots"
    assert problem("peftport chekc M") == "no command chekc"

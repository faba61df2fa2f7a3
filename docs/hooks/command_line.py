"""The page reference/command-line.md, made from the commands themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer
from mkdocs.structure.files import File, Files

KINDS = {str: "TEXT", int: "N", float: "NUMBER", Path: "PATH"}
PAGE = "reference/command-line.md"
INTRODUCTION = """# Command line

Made from the commands themselves; `peftport COMMAND --help` says the same.

Exit codes: 0 done, 1 a run failed or a check did not pass, 2 bad input (nothing is written then),
3 a gate did not pass (`peftport assess --fail-under`), 130 interrupted.

With `--json` a command prints one JSON object. Progress and notices go to standard error.
"""


def on_files(files: Files, *, config: Any) -> Files:
    """Add the page."""
    from peftport.cli import app

    command = typer.main.get_command(app)
    text = "\n".join([INTRODUCTION, *_sections(command, ("peftport",))])
    files.append(File.generated(config, PAGE, content=text))
    return files


def _sections(command: Any, path: tuple[str, ...]) -> Iterator[str]:
    """A section for each command, those of a group after it."""
    inside = getattr(command, "commands", {})
    if not inside:
        yield _section(command, path)
    for name, one in sorted(inside.items()):
        yield from _sections(one, (*path, name))


def _section(command: Any, path: tuple[str, ...]) -> str:
    told = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [_argument(each) for each in told if each.param_type_name == "argument"]
    usage = " ".join([*path, *arguments, "[OPTIONS]"])
    lines = [f"## {' '.join(path)}", "", _plain(inspect.cleandoc(command.help or "")), ""]
    return "\n".join([*lines, "```text", usage, "```", "", *map(_told, told), ""])


def _argument(parameter: Any) -> str:
    """An argument as usage shows it, in brackets where it may be left out."""
    name = (parameter.metavar or parameter.name.upper()) + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _told(parameter: Any) -> str:
    """One argument or option, as an item of a list."""
    if parameter.param_type_name == "argument":
        return f"- `{_argument(parameter)}`: {_plain(parameter.help or '')}"
    names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    value = "" if parameter.is_flag else f" {_value(parameter)}"
    default = parameter.default
    if default in (None, False, True, ()) or callable(default):
        said = " Required." if parameter.required else ""
    else:
        said = f" Default: `{default}`."
    return f"- {names}{value}: {_plain(parameter.help or '')}{said}"


def _value(parameter: Any) -> str:
    """What an option takes: its choices, or the kind of its value."""
    takes = parameter.type_descriptor.annotation
    if get_origin(takes) is Literal:
        return f"`{'|'.join(get_args(takes))}`"
    return f"*{parameter.metavar or KINDS[takes]}*"


def _plain(text: str) -> str:
    """Help as Markdown: what stands in braces or angles is shown as it is."""
    return re.sub(r"[<>]", lambda found: {"<": "&lt;", ">": "&gt;"}[found[0]], text)

"""Former names of options: understood for one version more, with a notice, and shown nowhere.

One name for one thing: what was called differently by different commands has one name now. See
"Deprecation" in CONTRIBUTING.md; this file goes with version 0.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

from peftport.cli.output import say

FORMER = {
    "--to": "--host",
    "--option": "--set",
    "--genealogy": "--relation",
    "--text": "--texts",
}


class Command(TyperCommand):
    """A command that also understands the former names of its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the arguments, former names in the place of the present ones."""
        known = {name for parameter in self.params for name in parameter.opts}
        return super().parse_args(ctx, list(_present(args, known)))


def _present(args: list[str], known: set[str]) -> Iterator[str]:
    """The arguments under present names, with a notice for each that had another."""
    for place, argument in enumerate(args):
        name, equals, value = argument.partition("=")
        now = FORMER.get(name, name)
        following = value if equals else next(iter(args[place + 1 : place + 2]), "")
        if name == "--texts" and following.isdigit():
            now = "--text-count"  # it was the number of texts, and now says which
        if now == name or name in known - {"--texts"} or now not in known:
            yield argument
            continue
        say(f"notice: {name} is called {now} now; the former name goes with version 0.3.")
        yield now + equals + value

"""The command line: one file a verb, each importing what is heavy only when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from peftport.cli import (
    assess,
    check,
    doctor,
    formats,
    hosts,
    merge,
    methods,
    port,
    study,
    test,
    train,
    verify,
)
from peftport.cli.renamed import Command
from peftport.errors import PeftportError
from peftport.memory import collect_rarely, keep_freed_memory

app = typer.Typer(
    name="peftport",
    help="Port PEFT modules from one pretrained language model to another, and measure how much "
    "of them survives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (
    *(train.train, test.test, check.check, port.port, verify.verify, assess.assess),
    *(merge.merge, methods.methods, formats.formats, doctor.doctor),
):
    app.command(verb.__name__, cls=Command)(verb)
app.add_typer(hosts.app, name="hosts")
app.add_typer(study.app, name="study")


def _version(asked: bool) -> None:
    if asked:
        from peftport import __version__

        print(f"peftport {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Options of peftport itself."""


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 a run failed or a disk is full, 2 bad input, 130
    interrupted."""
    from peftport.cli.output import log_to_stderr, printed_whole, say

    log_to_stderr()
    keep_freed_memory()
    collect_rarely()
    try:
        with printed_whole():
            app()
    except PeftportError as error:
        say(f"error: {error}")
        raise SystemExit(error.exit_code) from error

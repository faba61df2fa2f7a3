"""The command line: one file a verb, each importing what is heavy only when it runs."""

from __future__ import annotations

import typer

from peftport.cli import assess, check, formats, hosts, methods, port, study, test, train
from peftport.errors import PeftportError
from peftport.memory import collect_rarely, keep_freed_memory

app = typer.Typer(
    name="peftport",
    help="Port PEFT modules from one pretrained language model to another, and measure how much "
    "of them survives.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(hosts.app, name="hosts")
app.command("train")(train.train)
app.command("test")(test.test)
app.command("check")(check.check)
app.command("port")(port.port)
app.command("assess")(assess.assess)
app.command("methods")(methods.methods)
app.command("formats")(formats.formats)
app.add_typer(study.app, name="study")


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted."""
    from peftport.cli.output import log_to_stderr, say

    log_to_stderr()
    keep_freed_memory()
    collect_rarely()
    try:
        app()
    except PeftportError as error:
        say(f"error: {error}")
        raise SystemExit(error.exit_code) from error

"""`peftport assess`: what survives of modules on one host, by one method or several, beside their
controls."""

from __future__ import annotations

from typing import Annotated

import typer

from peftport.cli.arguments import (
    Device,
    FromHost,
    LimitTest,
    NoPickle,
    PrecisionChoice,
    TaskName,
    TextCount,
    Texts,
    ToHost,
)
from peftport.cli.output import AsJson, parse_numbers, show
from peftport.cli.progress import Shares
from peftport.cli.reading import ScoreOptions, gathered
from peftport.hosts.genealogy import Relation

GATE_CLOSED = 3
"""Exit code of an assessment that --fail-under does not let pass."""


@gathered
def assess(
    modules: Annotated[
        list[str],
        typer.Argument(
            metavar="MODULE",
            help="A module's folder; or several of one kind, each of which then takes a seed.",
        ),
    ],
    host: ToHost,
    task: TaskName,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Port methods, joined by commas; with options as in distill:steps=100. See "
            "`peftport methods`. The one that `peftport check` says to try first if not given."
        ),
    ] = None,
    texts: Texts = None,
    text_count: TextCount = 1000,
    budgets: Annotated[
        str, typer.Option(help="Training steps on the receiving host, joined by commas.")
    ] = "0,10,100",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="How many: 3 if not given; of several modules, one for each."),
    ] = None,
    native_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of a native module; the module's own if not given."),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(
            help="One for all conditions, or several, of which each condition takes the best on "
            "the validation split. The module's own if not given.",
        ),
    ] = None,
    relation: Annotated[
        Relation | None,
        typer.Option(help="How the hosts stand to each other, if their records do not say it."),
    ] = None,
    limit_test: LimitTest = None,
    *,
    reading: ScoreOptions,
    fail_under: Annotated[
        float | None,
        typer.Option(
            metavar="RECOVERY",
            help=f"End with exit code {GATE_CLOSED} unless a method's corrected recovery at the "
            "smallest budget is at least this: a gate for CI.",
        ),
    ] = None,
    device: Device = None,
    precision: PrecisionChoice = "auto",
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Show what survives of MODULE on a host, beside its controls, and say what to do."""
    import peftport as pp

    steps = parse_numbers(budgets, "--budgets", int)
    rates = parse_numbers(learning_rates, "--learning-rates", float) if learning_rates else None
    with Shares() as shares:
        found = pp.assess(
            [pp.load_module(each, from_host=from_host, pickles=not no_pickle) for each in modules],
            host,
            task,
            methods=None if methods is None else methods.split(","),
            texts=texts,
            text_count=text_count,
            budgets=steps,
            seeds=seeds,
            native_steps=native_steps,
            learning_rates=rates,
            relation=relation,
            limit_test=limit_test,
            **reading,
            fail_under=fail_under,
            device=device,
            precision=precision,
            progress=shares.begin,
            portion=shares.show,
        )
    show(found, as_json)
    if not found.passed:
        raise typer.Exit(GATE_CLOSED)

"""`peftport study`: plan, tune, run, status, rescue, report, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftport.cli.output import AsJson, parse_numbers, say, show
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.api.study_results import Reported

app = typer.Typer(
    help="Plan a grid of runs, run it, and report what survives a port.", no_args_is_help=True
)

SpecName = Annotated[str, typer.Argument(metavar="SPEC", help="A preset, or a YAML file.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A parameter that the specification asks for, or any of its keys "
        "(training.batch_size=8). Repeat for more.",
    ),
]


@app.command()
def plan(
    spec: SpecName,
    settings: Settings = None,
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Estimate time, memory and disk.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Count what a study comes to, and estimate what it takes, before anything is trained."""
    import peftport as pp

    show(pp.Study(spec, settings=settings or ()).plan(measure=measure, progress=say), as_json)


@app.command()
def tune(
    spec: SpecName,
    settings: Settings = None,
    rates: Annotated[
        str, typer.Option(metavar="R1,R2,...", help="Learning rates to choose from.")
    ] = "0.001,0.003,0.01,0.03",
    seeds: Annotated[
        int, typer.Option(min=1, help="How many seeds, none of which the study uses.")
    ] = 2,
    out: Annotated[
        Path | None, typer.Option(help="A folder for the studies of the rates; runs/NAME-rates.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="As for run.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="As for run.")] = None,
    as_json: AsJson = False,
) -> None:
    """Choose each technique's learning rate on the validation split.

    Trains the first pair of each relation in the first setting with every rate, the same rates for
    modules that are native, ported, sampled and from scratch. What was tried is kept: the same
    command with more rates tries those alone.
    """
    import peftport as pp
    from peftport.studies.progress import Lines

    study = pp.Study(spec, settings=settings or ())
    numbers = parse_numbers(rates, "--rates", float)
    try:
        found = study.tune(
            numbers,
            seeds=seeds,
            out=out,
            workers=workers,
            threads=threads,
            progress=Lines(sys.stderr),
            started=say,
        )
    except KeyboardInterrupt:
        say("Interrupted; the same command goes on.")
        raise typer.Exit(130) from None
    show(found, as_json)


@app.command()
def run(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC|DIR", help="A preset, a YAML file, or a study's folder.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; runs/NAME if not given.")
    ] = None,
    executor: Annotated[
        str, typer.Option(help="Where: local (this machine) or ray (a cluster).")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Packs worked on at the same time; locally 1, on Ray all there is room for."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of each; locally a fair share of the cores, on Ray 1."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Of a Ray cluster's head.")
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(min=0, help="On Ray: GPUs of each pack, fractions allowed; 1 if there are."),
    ] = None,
    retry: Annotated[
        str | None, typer.Option(metavar="failed", help="Run again what has failed.")
    ] = None,
    extend: Annotated[
        bool,
        typer.Option(
            "--extend", help="Go on with a smaller study as this one, which has more seeds, say."
        ),
    ] = False,
    ignore_memory: Annotated[
        bool,
        typer.Option("--ignore-memory", help="Try it though it should not fit into memory."),
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a study, beginning it if need be."""
    import peftport as pp
    from peftport.studies.progress import Lines

    if retry not in (None, "failed"):
        raise BadInput(f"--retry {retry}: the one thing to retry is `failed`.")
    study = pp.Study(spec, out=out, settings=settings or ())
    study.run(
        executor=executor,
        workers=workers,
        threads=threads,
        address=address,
        gpus=gpus,
        retry_failed=retry == "failed",
        extend=extend,
        ignore_memory=ignore_memory,
        progress=Lines(sys.stderr),
        started=say,
    )
    found = study.outcome
    assert found is not None
    if found.report is not None and not as_json:
        _print_tables(found.report)
    show(found, as_json)
    if found.outcome.interrupted:
        raise typer.Exit(130)
    if found.outcome.failed:
        raise typer.Exit(1)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say how far a study is, also while it is being run."""
    from peftport.api.study_results import Standing
    from peftport.studies.outline import standing

    show(Standing(standing(folder)), as_json)


@app.command()
def rescue(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="A new folder for the study.")],
    as_json: AsJson = False,
) -> None:
    """Write what is whole of a damaged study into a new one, which `run` goes on with."""
    from peftport.api.study_files import rescue_of

    show(rescue_of(folder, out), as_json)


@app.command()
def report(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR|FILE", help="The study's folder, or rows that `export` wrote."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="A folder for the report; the study's own if not given."),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Also write the page's figures as PNG files.")
    ] = False,
    corrected_on: Annotated[
        str,
        typer.Option(
            metavar="training|test",
            help="Texts that the threshold is set on, without their labels, for every condition "
            "alike: whether the answers hang on it.",
        ),
    ] = "training",
    as_json: AsJson = False,
) -> None:
    """Write a study's report: a page that needs no network, tables in Markdown and LaTeX."""
    from peftport.api.study_files import report_of

    found = report_of(folder, out, figures=figures, corrected_on=corrected_on)
    if not as_json:
        _print_tables(found)
    show(found, as_json)


@app.command()
def export(
    folder: Folder,
    form: Annotated[
        str, typer.Option("--format", metavar="csv|parquet|json", help="Of the rows.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option(help="A new file; standard output if not given.")
    ] = None,
    excel_safe: Annotated[
        bool,
        typer.Option(
            "--excel-safe", help="In CSV, an apostrophe before texts that a spreadsheet computes."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the rows of a study, one a run."""
    from peftport.api.study_files import export_of

    if out is None and as_json:
        form = "json"
    if out is None and form == "parquet" and sys.stdout.isatty():
        raise BadInput("Parquet is no text for a terminal; give --out FILE.")
    found = export_of(folder, out, form, excel_safe=excel_safe)
    if out is None and not as_json:
        sys.stdout.buffer.write(found.data)
        sys.stdout.buffer.flush()
    else:
        show(found, as_json)


def _print_tables(report: Reported) -> None:
    from rich.console import Console

    from peftport.reports import terminal_table

    Console().print(terminal_table(report.analysis))

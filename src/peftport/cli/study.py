"""`peftport study`: plan, tune, run, status, rescue, report, export."""

from __future__ import annotations

import json
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.cli.output import AsJson, parse_numbers, say, show
from peftport.errors import BadInput
from peftport.files import is_file, is_folder
from peftport.places import require_writable

if TYPE_CHECKING:
    from peftport.reports import Analysis
    from peftport.studies.plan import Plan
    from peftport.studies.resolve import Facts
    from peftport.studies.run import Outcome
    from peftport.studies.spec import Spec

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
    from peftport.studies.identity import Identity
    from peftport.studies.load import load_spec
    from peftport.studies.outline import outline, outline_text
    from peftport.studies.plan import Plan
    from peftport.studies.resolve import resolve

    loaded = load_spec(spec, settings or ())
    planned, facts = Plan(loaded), resolve(loaded, fetch=False)
    Identity(planned, *facts.marks()).check_unique()
    found = outline(planned, facts)
    if measure:
        found["estimate"] = _estimate(planned, facts)
    show(found, outline_text(found), as_json)


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
    from peftport.studies import tune as tuning
    from peftport.studies.executors import Options
    from peftport.studies.executors.local import LocalExecutor
    from peftport.studies.load import load_spec
    from peftport.studies.progress import Lines
    from peftport.studies.run import run_study
    from peftport.studies.store import read_study

    loaded = load_spec(spec, settings or ())
    made = tuning.candidates(loaded, parse_numbers(rates, "--rates", float), seeds)
    folder = out or Path("runs") / f"{loaded.name}-rates"
    rows = {}
    for rate, candidate in made.items():
        say(f"learning rate {rate:g}, tested on {candidate.split}")
        executor = LocalExecutor.from_options(Options(workers, threads))
        outcome = run_study(candidate, folder / f"{rate:g}", executor, progress=Lines(sys.stderr))
        if outcome.interrupted:
            say("Interrupted; the same command goes on.")
            raise typer.Exit(130)
        with read_study(folder / f"{rate:g}") as store:
            rows[rate] = list(store.rows())
    found = tuning.tried(rows)
    show(tuning.record(found, made), tuning.text(found, made), as_json)


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
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a study, beginning it if need be."""
    from peftport.studies.executors import EXECUTORS, Options
    from peftport.studies.progress import Lines
    from peftport.studies.run import run_study

    if retry not in (None, "failed"):
        raise BadInput(f"--retry {retry}: the one thing to retry is `failed`.")
    loaded, folder = _study_to_run(spec, out, settings or [])
    made = EXECUTORS.get(executor).from_options(Options(workers, threads, address, gpus))
    say(f"study {loaded.name} in {folder}")
    outcome = run_study(
        loaded,
        folder,
        made,
        retry_failed=retry == "failed",
        progress=Lines(sys.stderr),
        meanwhile=partial(import_module, "peftport.reports.page"),
    )
    page = None
    if outcome.done and not outcome.interrupted:
        page, analysis = _write_report(folder, folder)
        if not as_json:
            _print_tables(analysis)
    show(_run_record(loaded, folder, outcome, page), _run_text(folder, outcome, page), as_json)
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say how far a study is, also while it is being run."""
    from peftport.studies.outline import standing, standing_text

    found = standing(folder)
    show(found, standing_text(found), as_json)


@app.command()
def rescue(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="A new folder for the study.")],
    as_json: AsJson = False,
) -> None:
    """Write what is whole of a damaged study into a new one, which `run` goes on with."""
    from peftport.studies.rescue import rescue as written

    found = written(folder, out)
    show(
        {"out": str(out), "runs": found.runs, "donors": found.donors},
        f"{found.runs:,} runs and {found.donors:,} donors: {out}\n"
        f"`peftport study run {out}` does what is missing",
        as_json,
    )


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
    as_json: AsJson = False,
) -> None:
    """Write a study's report: a page that needs no network, tables in Markdown and LaTeX."""
    from peftport.reports import summary, write_png

    if out is None and is_file(folder):
        raise BadInput(f"{folder} is a file: say with --out where its report is to be written.")
    place = out or folder
    page, analysis = _write_report(folder, place)
    written = write_png(analysis, place) if figures else []
    if as_json:
        drawn = {"figures": [str(path) for path in written]} if figures else {}
        show({"report": str(page), **drawn, **summary(analysis)}, "", as_json)
    else:
        _print_tables(analysis)
        show({}, f"Report: {page}", False)
        if written:
            show({}, f"Figures: {', '.join(path.name for path in written)}", False)


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
    from peftport.cli.results import read_rows
    from peftport.reports.exports import export as rows_as

    if out is None and as_json:
        form = "json"
    _check_place(out, form)
    rows = read_rows(folder)
    data = rows_as(rows, form, excel_safe)
    if out is not None:
        _write(out, data)
        show(
            {"out": str(out), "format": form, "rows": len(rows)},
            f"{len(rows)} rows: {out}",
            as_json,
        )
    elif as_json:
        show({"rows": json.loads(data)}, "", as_json)
    else:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


def _check_place(out: Path | None, form: str) -> None:
    """Refuse a place where nothing can be written before anything is read."""
    if out is None:
        if form == "parquet" and sys.stdout.isatty():
            raise BadInput("Parquet is no text for a terminal; give --out FILE.")
        return
    if out.exists():
        what = "is a folder; name a file in it" if out.is_dir() else "exists already"
        raise BadInput(f"--out {out} {what}.")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}.")
    require_writable(out)


def _write(out: Path, data: bytes) -> None:
    from peftport.files import write_atomic

    write_atomic(out, data)


def _study_to_run(name: str, out: Path | None, settings: list[str]) -> tuple[Spec, Path]:
    """The specification and the folder that the arguments of `run` stand for."""
    from peftport.studies.load import load_spec
    from peftport.studies.spec import parse_spec
    from peftport.studies.store import read_study

    if not is_folder(Path(name)):
        loaded = load_spec(name, settings)
        return loaded, out or Path("runs") / loaded.name
    for option, given in (("--out", out), ("--set", settings)):
        if given:
            raise BadInput(f"{option} belongs to a new study; {name} goes on as it was begun.")
    with read_study(Path(name)) as store:
        return parse_spec(store.spec, name), Path(name)


def _estimate(planned: Plan, facts: Facts) -> dict[str, Any] | None:
    """What a study takes; None where hosts or tasks are not at hand to be measured."""
    if facts.unknown:
        return None
    from peftport.studies.estimate import estimate
    from peftport.studies.measure import measure

    return estimate(planned, facts, measure(planned, facts, say))


def _write_report(study: Path, out: Path) -> tuple[Path, Analysis]:
    from peftport.cli.results import read_exported, read_results
    from peftport.reports import analyse, write_report

    require_writable(out / "index.html")
    analysis = analyse(read_exported(study) if is_file(study) else read_results(study))
    return write_report(analysis, out), analysis


def _print_tables(analysis: Analysis) -> None:
    from rich.console import Console

    from peftport.reports import terminal_table

    Console().print(terminal_table(analysis))


def _run_record(spec: Spec, folder: Path, outcome: Outcome, page: Path | None) -> dict[str, Any]:
    return {
        "study": spec.name,
        "folder": str(folder),
        "report": str(page) if page else None,
        "runs": outcome.total,
        "done": outcome.done,
        "failed": outcome.failed,
        "missing": outcome.total - outcome.done - outcome.failed,
        "recorded_now": outcome.ran,
        "seconds": round(outcome.seconds, 1),
        "interrupted": outcome.interrupted,
    }


def _run_text(folder: Path, outcome: Outcome, page: Path | None) -> str:
    lines = [f"{outcome.done:,} of {outcome.total:,} runs done, {outcome.failed:,} failed."]
    if outcome.interrupted:
        lines.append(f"Interrupted; go on with: peftport study run {folder}")
    if outcome.failed:
        lines.append(f"Why: peftport study status {folder}")
    if page:
        lines.append(f"Report: {page}")
    return "\n".join(lines)

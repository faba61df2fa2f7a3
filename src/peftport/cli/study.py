"""`peftport study`: plan, run, status, report, export."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.studies.run import Outcome
    from peftport.studies.spec import Spec

app = typer.Typer(
    help="Plan a grid of runs, run it, and report what survives a port.", no_args_is_help=True
)

SpecName = Annotated[str, typer.Argument(metavar="SPEC", help="A preset, or a YAML file.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
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
def plan(spec: SpecName, settings: Settings = None, as_json: AsJson = False) -> None:
    """Count what a study comes to, before anything is trained."""
    from peftport.studies.load import load_spec
    from peftport.studies.outline import outline, outline_text
    from peftport.studies.plan import Plan
    from peftport.studies.resolve import resolve

    loaded = load_spec(spec, settings or ())
    found = outline(Plan(loaded), resolve(loaded, fetch=False))
    _print(found, outline_text(found), as_json)


@app.command()
def run(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC|DIR", help="A preset, a YAML file, or a study's folder.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; runs/NAME if not given.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Packs worked on at the same time.")] = 1,
    executor: Annotated[str, typer.Option(help="Where: local.")] = "local",
    retry: Annotated[
        str | None, typer.Option(metavar="failed", help="Run again what has failed.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Run what is missing of a study, beginning it if need be."""
    from peftport.studies.executors import EXECUTORS
    from peftport.studies.progress import Lines
    from peftport.studies.run import run_study

    if retry not in (None, "failed"):
        raise BadInput(f"--retry {retry}: the one thing to retry is `failed`.")
    loaded, folder = _study_to_run(spec, out, settings or [])
    made = EXECUTORS.get(executor)(workers)
    print(f"{loaded.name} in {folder}", file=sys.stderr)
    outcome = run_study(
        loaded, folder, made, retry_failed=retry == "failed", progress=Lines(sys.stderr)
    )
    report = None
    if not outcome.interrupted and outcome.done:
        report = _write_report(folder)
    _print(
        _run_record(loaded, folder, outcome, report), _run_text(folder, outcome, report), as_json
    )
    if outcome.interrupted:
        raise typer.Exit(130)
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say how far a study is, also while it is being run."""
    from peftport.studies.outline import standing, standing_text

    found = standing(folder)
    _print(found, standing_text(found), as_json)


@app.command()
def report(folder: Folder, as_json: AsJson = False) -> None:
    """Write a study's report: one page that needs no network, beside tables."""
    page = _write_report(folder)
    _print({"report": str(page)}, f"report: {page}", as_json)


@app.command()
def export(
    folder: Folder,
    form: Annotated[
        str, typer.Option("--format", metavar="csv|parquet|json", help="Of the rows.")
    ] = "csv",
    out: Annotated[
        Path | None, typer.Option(help="A new file; standard output if not given.")
    ] = None,
) -> None:
    """Write the rows of a study, one a run."""
    from peftport.studies.export import export_rows

    export_rows(folder, form, out)


def _study_to_run(name: str, out: Path | None, settings: list[str]) -> tuple[Spec, Path]:
    """The specification and the folder that the arguments of `run` stand for."""
    from peftport.studies.load import load_spec
    from peftport.studies.spec import parse_spec
    from peftport.studies.store import read_store

    if not Path(name).is_dir():
        loaded = load_spec(name, settings)
        return loaded, out or Path("runs") / loaded.name
    for option, given in (("--out", out), ("--set", settings)):
        if given:
            raise BadInput(f"{option} belongs to a new study; {name} goes on as it was begun.")
    with read_store(Path(name)) as store:
        return parse_spec(store.spec, name), Path(name)


def _write_report(folder: Path) -> Path:
    from peftport.cli.results import read_results
    from peftport.reports import write_report

    return write_report(read_results(folder), folder)


def _run_record(spec: Spec, folder: Path, outcome: Outcome, report: Path | None) -> dict[str, Any]:
    return {
        "study": spec.name,
        "folder": str(folder),
        "report": str(report) if report else None,
        "runs": outcome.total,
        "done": outcome.done,
        "failed": outcome.failed,
        "missing": outcome.total - outcome.done - outcome.failed,
        "recorded_now": outcome.ran,
        "seconds": round(outcome.seconds, 1),
        "interrupted": outcome.interrupted,
    }


def _run_text(folder: Path, outcome: Outcome, report: Path | None) -> str:
    lines = [f"{outcome.done:,} of {outcome.total:,} runs done, {outcome.failed:,} failed."]
    if outcome.interrupted:
        lines.append(f"Interrupted; go on with: peftport study run {folder}")
    if outcome.failed:
        lines.append(f"Why: peftport study status {folder}")
    if report:
        lines.append(f"Report: {report}")
    return "\n".join(lines)


def _print(record: dict[str, Any], text: str, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        print(text)

"""`peftport verify`: load a module's folder as its users will, and say whether it acts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftport.cli.arguments import (
    Device,
    HostName,
    ModuleFolder,
    NoPickle,
    Precision,
    TextColumn,
)
from peftport.cli.output import AsJson, show


def verify(
    module: ModuleFolder,
    host: HostName,
    texts: Annotated[
        str | None,
        typer.Option(
            "--texts",
            metavar="FILE_OR_FOLDER",
            help="Texts to try it on: .txt, Parquet, CSV or JSONL, or a task. Eight plain "
            "sentences of peftport's if not given.",
        ),
    ] = None,
    text_count: Annotated[
        int, typer.Option("--text-count", min=1, help="How many texts are drawn, at most.")
    ] = 32,
    text_column: TextColumn = None,
    device: Device = None,
    precision: Precision = "fp32",
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Load MODULE with the library that it is meant for, and say whether it acts on a host.

    Ends with exit code 1 if it does nothing, is loaded in part, or answers otherwise than peftport
    computes.
    """
    import peftport as pp

    found = pp.verify(
        pp.ModuleHandle(Path(module), pickles=not no_pickle),  # a wrong one is to be told, too
        host,
        texts=texts,
        text_count=text_count,
        text_column=text_column,
        device=device,
        precision=precision,
    )
    show(found, as_json)
    if not found.passed:
        raise typer.Exit(1)

"""`peftport check`: what ports would do, before any weight is loaded; with --forecast, how much of
the module a copy would keep."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from peftport.cli.arguments import (
    Device,
    FromHost,
    Layers,
    ModuleFolder,
    NoPickle,
    Set,
    Texts,
    ToHost,
    options_of,
)
from peftport.cli.output import AsJson, show
from peftport.cli.reading import ReadingOptions, gathered


@gathered
def check(
    module: ModuleFolder,
    host: ToHost,
    method: Annotated[
        str | None, typer.Option(help="A port method; every one if not given.")
    ] = None,
    set_: Set = None,
    layers: Layers = None,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast", help="Say how much of the module a copy would keep. Reads both hosts."
        ),
    ] = False,
    texts: Texts = None,
    text_count: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many texts are drawn, at most: time and memory are told for so many. 1000 if "
            "not given, as in `port`; 256 for the forecast.",
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="The module's task, for what MODULE leaves unsaid of texts and words, and for "
            "texts of the forecast where --texts names none.",
        ),
    ] = None,
    relation: Annotated[
        Literal["continuation", "independent"] | None,
        typer.Option(help="How the hosts stand to each other, if their records do not say it."),
    ] = None,
    *,
    reading: ReadingOptions,
    device: Device = None,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Say which methods could port MODULE to a host, and what they would do.

    Without --forecast no weights of hosts are read.
    """
    import peftport as pp

    found = pp.check(
        pp.load_module(module, from_host=from_host, pickles=not no_pickle, partial=True),
        host,
        method=method,
        options=options_of(set_, layers),
        forecast=forecast,
        texts=texts,
        text_count=text_count,
        task=task,
        relation=relation,
        **reading,
        device=device,
    )
    show(found, as_json)

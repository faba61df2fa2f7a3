"""`peftport merge`: a LoRA module merged into its host, as a plain model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftport.cli.arguments import (
    FromHost,
    HostName,
    ModuleFolder,
    NoPickle,
    Private,
    PushToHub,
)
from peftport.cli.output import AsJson, show, upload


def merge(
    module: ModuleFolder,
    host: HostName,
    out: Annotated[Path, typer.Option(help="A new folder for the model.")],
    shard_megabytes: Annotated[
        int | None,
        typer.Option(min=1, metavar="MB", help="Of weights in a file, at most; 2,147 (2 GiB)."),
    ] = None,
    push_to_hub: PushToHub = None,
    private: Private = False,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Merge a LoRA module into its host and write a plain model that loads without peft."""
    import peftport as pp

    merged = pp.merge(
        pp.load_module(module, from_host=from_host, pickles=not no_pickle),
        host,
        out,
        shard=None if shard_megabytes is None else shard_megabytes * 1_000_000,
    )
    show(merged, as_json)
    upload(merged, push_to_hub, private)

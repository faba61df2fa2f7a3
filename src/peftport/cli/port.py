"""`peftport port`: rewrite a module for another host, and train it on there if asked to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftport.cli.arguments import (
    Device,
    Format,
    FromHost,
    Layers,
    LimitTrain,
    ModuleFolder,
    NoPickle,
    Private,
    PushToHub,
    Set,
    TextCount,
    Texts,
    ToHost,
    options_of,
)
from peftport.cli.output import AsJson, require_upload, show, upload
from peftport.cli.progress import Shares, losses_to_stderr
from peftport.cli.reading import AnswerOptions, gathered


@gathered
def port(
    module: ModuleFolder,
    host: ToHost,
    out: Annotated[Path, typer.Option(help="A new folder for the ported module.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="A port method; see `peftport methods`. A copy, where one can be made, if not "
            "given."
        ),
    ] = None,
    set_: Set = None,
    layers: Layers = None,
    texts: Texts = None,
    text_count: TextCount = 1000,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="A task as `peftport train` takes it. What MODULE leaves unsaid of texts and "
            "words is taken from it; with --steps the ported module is trained on it.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Training steps on the task after the port; 0 is none.")
    ] = 0,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Of these steps; the module's own if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a training step.")] = 16,
    limit_train: LimitTrain = None,
    *,
    reading: AnswerOptions,
    seed: Annotated[
        int, typer.Option(help="Of what the method draws, of the texts, of the training's order.")
    ] = 0,
    device: Device = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Cut a LoRA to this rank; its account says the loss.")
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Cut a LoRA to the smallest rank that keeps this share of changes."),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Go on though tensors are left out.")
    ] = False,
    ignore_memory: Annotated[
        bool,
        typer.Option("--ignore-memory", help="Try it though it should not fit into memory."),
    ] = False,
    format: Format = None,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify/--no-verify",
            help="Load the folder as its users will and say whether it acts.",
        ),
    ] = True,
    push_to_hub: PushToHub = None,
    private: Private = False,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Port a module to another host and write the account of what became of each tensor."""
    import peftport as pp
    from peftport.places import require_new

    require_upload(push_to_hub, private)
    require_new(out)
    with Shares() as shares:
        ported = pp.port(
            pp.load_module(
                module, from_host=from_host, pickles=not no_pickle, partial=allow_partial
            ),
            host,
            method=method,
            options=options_of(set_, layers),
            texts=texts,
            text_count=text_count,
            task=task,
            steps=steps,
            learning_rate=learning_rate,
            batch_size=batch_size,
            limit_train=limit_train,
            **reading,
            seed=seed,
            device=device,
            allow_partial=allow_partial,
            rank=rank,
            energy=energy,
            ignore_memory=ignore_memory,
            out=out,
            format=format,
            verify=verify,
            progress=losses_to_stderr(steps),
            portion=shares.show,
        )
    show(ported, as_json)
    upload(ported, push_to_hub, private)

"""`peftport train`: make a module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftport.cli.arguments import (
    Device,
    HostName,
    LimitTrain,
    PrecisionChoice,
    Private,
    PushToHub,
    TaskName,
    options_of,
)
from peftport.cli.output import AsJson, require_upload, show, upload
from peftport.cli.progress import losses_to_stderr
from peftport.cli.reading import ScoreOptions, gathered


@gathered
def train(
    host: HostName,
    task: TaskName,
    technique: Annotated[str, typer.Option(help="adapter, compacter, lora or prefix.")],
    out: Annotated[Path, typer.Option(help="A new folder for the module.")],
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the start and of the order of the data.")] = 0,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="The technique's own if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a step.")] = 16,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="An option of the technique, such as rank=16. Repeat for more.",
        ),
    ] = None,
    *,
    reading: ScoreOptions,
    limit_train: LimitTrain = None,
    push_to_hub: PushToHub = None,
    private: Private = False,
    device: Device = None,
    precision: PrecisionChoice = "auto",
    as_json: AsJson = False,
) -> None:
    """Train a module on a host for a task and save it."""
    import peftport as pp

    require_upload(push_to_hub, private)
    made = pp.train(
        host,
        task,
        technique,
        out=out,
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        batch_size=batch_size,
        options=options_of(set_),
        **reading,
        limit_train=limit_train,
        device=device,
        precision=precision,
        progress=losses_to_stderr(steps),
    )
    show(made, as_json)
    upload(made, push_to_hub, private)

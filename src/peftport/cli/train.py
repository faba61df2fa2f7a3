"""`peftport train`: make a module."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftport.cli.arguments import Device, HostName, Precision, TaskName, load_on
from peftport.cli.output import AsJson, figures_text, say, show
from peftport.cli.reading import LabelWords, Template, told


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
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="Of the technique, such as rank=16. Repeat for more."
        ),
    ] = None,
    label_words: LabelWords = None,
    template: Template = None,
    limit_train: Annotated[
        int | None, typer.Option(min=1, help="Train on at most so many texts.")
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    as_json: AsJson = False,
) -> None:
    """Train a module on a host for a task and save it."""
    from peftport.options import parsed
    from peftport.places import require_new
    from peftport.tasks import load_task
    from peftport.techniques import technique as find_technique
    from peftport.training import Settings
    from peftport.training.module import train_module

    require_new(out)
    options = parsed(option or (), "--option")
    find_technique(technique).configure(options)
    said = told(label_words, template)
    data = load_task(task, label_words=said.words, template=said.template, limit_train=limit_train)
    loaded = load_on(host, device, precision)
    trained = train_module(
        loaded,
        data,
        technique,
        options,
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        settings=Settings(batch_size=batch_size, precision=precision),
        progress=lambda step, loss: say(f"step {step:>6} of {steps}  loss {loss:.4f}"),
    )
    trained.module.save(out)
    record = trained.module.record
    figures = dict(trained.validation.figures)
    show(
        {
            "module": str(out),
            "technique": technique,
            "config": record.config,
            "host": record.host.model_dump(),
            "task": data.name,
            "seed": seed,
            "training": record.training,
            "parameters": sum(t.numel() for t in trained.module.tensors.values()),
            "final_loss": trained.losses[-1][1],
            "validation": figures,
        },
        f"{technique} on {host} for {data.name}, {steps} steps: {out}\n"
        f"validation: {figures_text(figures)}",
        as_json,
    )

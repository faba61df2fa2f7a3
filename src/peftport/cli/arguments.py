"""Options that several commands share: each is spelt and explained in one place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

HostName = Annotated[str, typer.Option("--host", help="A hub name, a folder, or lab:NAME.")]
ToHost = Annotated[
    str, typer.Option("--host", help="The receiving host: a hub name, a folder, or lab:NAME.")
]
_TASK = typer.Option(
    "--task",
    help="A hub data set's name, a folder with train/validation/test files, a task YAML, or "
    "lab:NAME.",
)
TaskName = Annotated[str, _TASK]
OptionalTask = Annotated[str | None, _TASK]
ModuleFolder = Annotated[str, typer.Argument(metavar="MODULE", help="A module's folder.")]
FromHost = Annotated[
    str | None,
    typer.Option(
        "--from-host",
        help="The host that MODULE is made for, where its files name none or it is elsewhere.",
    ),
]
NoPickle = Annotated[
    bool,
    typer.Option("--no-pickle", help="Refuse pickled tensors (.bin) in folders of AdapterHub."),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="peftport, peft or adapterhub: how to write it; as MODULE if not given."
    ),
]
PushToHub = Annotated[
    str | None,
    typer.Option(
        "--push-to-hub",
        metavar="USER/NAME",
        help="Upload the folder with its card to this repository of the hub.",
    ),
]
Private = Annotated[
    bool, typer.Option("--private", help="A repository that --push-to-hub makes is private.")
]
TextColumn = Annotated[
    str | None, typer.Option("--text-column", help="The column of texts; text if not given.")
]
LimitTest = Annotated[
    int | None, typer.Option("--limit-test", min=1, help="Test on at most so many texts.")
]
LimitTrain = Annotated[
    int | None, typer.Option("--limit-train", min=1, help="Train on at most so many texts.")
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of the method; `peftport methods` lists them. Repeat for more.",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        "--layers",
        help="How layers are paired on hosts of other depth: proportional, every or cka.",
    ),
]
Texts = Annotated[
    str | None,
    typer.Option(
        "--texts",
        metavar="FILE_OR_FOLDER",
        help="Texts without labels, for methods that look at hosts: .txt, Parquet, CSV or JSONL, "
        "or a task, of which the training texts are taken. Those of --task if not given.",
    ),
]
TextCount = Annotated[
    int, typer.Option("--text-count", min=1, help="How many texts are drawn, at most.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu or cuda; the GPU when there is one.")
]
Precision = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(
        "--precision", help="Of the products with the host's weights; bf16 is often faster."
    ),
]
PrecisionChoice = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(
        "--precision",
        help="Of the products with the host's weights; auto is bf16 for hosts of 384 or wider "
        "where this machine multiplies it faster.",
    ),
]


def options_of(settings: list[str] | None, layers: str | None = None) -> dict[str, Any]:
    """Options from --set and --layers, which is short for --set layers=..."""
    from peftport.options import parsed

    return parsed(settings or (), "--set") | ({"layers": layers} if layers else {})

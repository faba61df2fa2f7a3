"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.hosts.host import Host

HostName = Annotated[str, typer.Option("--host", help="A hub name, a folder, or lab:NAME.")]
ToHost = Annotated[
    str, typer.Option("--to", help="The receiving host: a hub name, a folder, or lab:NAME.")
]
TaskName = Annotated[
    str,
    typer.Option(
        "--task",
        help="A hub data set's name, a folder with train/validation/test files, a task YAML, or "
        "lab:NAME.",
    ),
]
ModuleFolder = Annotated[Path, typer.Argument(metavar="MODULE", help="A module's folder.")]
LimitTest = Annotated[
    int | None, typer.Option("--limit-test", min=1, help="Test on at most so many texts.")
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


def load_on(name: str, device: str | None, precision: Literal["fp32", "bf16"] = "fp32") -> Host:
    """Load a host where it should be; BadInput when there is no such device."""
    from peftport.hosts import load_host

    return load_host(name, device_named(device), precision)


def device_named(device: str | None) -> str:
    """The device that is asked for, or the best there is; BadInput when there is no such."""
    import torch

    available = torch.cuda.is_available()
    if device is None:
        device = "cuda" if available else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda") or (device.startswith("cuda") and not available):
        raise BadInput(f"--device {device!r} is not here; there is cpu{', cuda' * available}.")
    return device

"""What the commands that port share: a method's options, texts without labels, both hosts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from peftport.modules import Record
    from peftport.porting.base import Need
    from peftport.porting.means import Means

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
TextSource = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="FILE_OR_FOLDER",
        help="Texts without labels, for methods that look at hosts: .txt, Parquet, CSV or JSONL, "
        "or a task, of which the training texts are taken. Those of --task if not given.",
    ),
]
TextCount = Annotated[
    int, typer.Option("--texts", min=1, help="How many texts are drawn, at most.")
]
TextColumn = Annotated[str | None, typer.Option("--text-column", help="The column of the texts.")]
TEXTS = 1000


def options_of(settings: list[str] | None, layers: str | None) -> dict[str, Any]:
    """A method's options from --set and --layers, which is short for --set layers=..."""
    from peftport.options import parsed

    return parsed(settings or (), "--set") | ({"layers": layers} if layers else {})


@dataclass(frozen=True)
class Asked:
    """The texts that a command was asked to draw: --text, --texts and --text-column."""

    source: str | None
    count: int
    column: str | None


def means_for(
    needs: frozenset[Need],
    record: Record,
    receiver: str,
    device: str,
    asked: Asked,
    seed: int,
    task: Any = None,
) -> Means | None:
    """Both hosts and the texts of a port, as far as its method needs them.

    Args:
        seed: of the draw of texts.
        task: a loaded task, whose training texts are taken where no source of texts is named.

    Raises:
        BadInput: there are no such texts or too few, or a host cannot be found or is not the one
            that the module was trained on.
    """
    from peftport.porting.means import Means, origin_side, side

    if not needs:
        return None
    texts, source = _texts(asked, seed, task) if "texts" in needs else ((), "")
    return Means(origin_side(record.host, device), side(receiver, device), texts, source)


def _texts(asked: Asked, seed: int, task: Any) -> tuple[tuple[str, ...], str]:
    """The texts and what they are called; none where nothing says which."""
    from peftport.porting.texts import calibration_texts, draw

    if asked.source is not None:
        texts = calibration_texts(asked.source, asked.count, seed, asked.column)
        return texts, Path(asked.source).name
    if task is not None:
        return draw(task.split("train").texts, asked.count, seed, task.name), task.name
    return (), ""

"""What the commands that port share: a method's options, texts without labels, both hosts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.cli.output import say
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.modules import Record
    from peftport.porting.base import Need, PortMethod, Request
    from peftport.porting.estimate import Estimate, Load
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
_FEWEST_PLACES, _FEWEST_TEXTS = 256, 16


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


def load_of(means: Means | None, record: Record, count: int) -> Load:
    """How much text a port looks at: the texts at hand, or as many as are asked for."""
    from peftport.porting.estimate import Load
    from peftport.porting.reading import WORDS

    if means is None or not means.texts:
        return Load(count)
    words = sum(min(len(text.split()), WORDS) for text in means.texts) / len(means.texts)
    templates = (record.task.get("templates") or {}).values()
    around = max((len(template.split()) for template in templates), default=0)
    return Load(len(means.texts), 1.4 * (words + around))


def require_memory(
    method: PortMethod, request: Request, load: Load, settings: Mapping[str, Any]
) -> tuple[Estimate, dict[str, Any]]:
    """The estimate of a port that fits into this machine's memory, and the options with which.

    Where nothing else is set, fewer places are taken than usual if that makes it fit.

    Raises:
        BadInput: it does not fit; the message names what makes it fit.
    """
    from dataclasses import replace

    from peftport.porting.estimate import gigabytes, memory_at_hand

    def taking(options: Mapping[str, Any], texts: int) -> Estimate:
        asked = method.request(request.donor, request.shapes, request.receiver, options)
        return method.estimate(asked, replace(load, texts=texts))

    usual, free = taking(settings, load.texts), memory_at_hand()
    if free is None or usual.memory <= free:
        return usual, dict(settings)
    fits: str | None = None
    places = getattr(request.options, "places", 0) // 2
    while places >= _FEWEST_PLACES:
        fewer = {**settings, "places": places}
        if (found := taking(fewer, load.texts)).memory <= free:
            if "places" not in settings:
                say(f"notice: maps are fitted on {places} places, which fit into memory")
                return found, fewer
            fits = f"--set places={places} makes it fit."
            break
        places //= 2
    texts = load.texts // 2
    while fits is None and texts >= _FEWEST_TEXTS:
        if taking(settings, texts).memory <= free:
            fits = f"--texts {texts} makes it fit."
        texts //= 2
    raise BadInput(
        f"port by {method.name} needs about {gigabytes(usual.memory)} of memory and "
        f"{gigabytes(free)} are free. {fits or 'No option makes it fit on this machine.'} "
        "With --ignore-memory it is tried all the same."
    )


def _texts(asked: Asked, seed: int, task: Any) -> tuple[tuple[str, ...], str]:
    """The texts and what they are called; none where nothing says which."""
    from peftport.porting.texts import calibration_texts, draw

    if asked.source is not None:
        texts = calibration_texts(asked.source, asked.count, seed, asked.column)
        return texts, Path(asked.source).name
    if task is not None:
        return draw(task.split("train").texts, asked.count, seed, task.name), task.name
    return (), ""

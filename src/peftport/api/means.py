"""What the calls that port share: texts without labels, and both hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftport.api.hosts import HostHandle
    from peftport.modules import Record
    from peftport.porting.base import Need
    from peftport.porting.means import Means

TEXTS = 1000
"""How many texts are drawn, at most, where nobody says how many."""

TextSource = str | Path | Sequence[str] | None
"""A file or folder of texts, a task's name, or the texts themselves."""


@dataclass(frozen=True)
class Asked:
    """The texts that are to be drawn: from where, how many at most, and of which column."""

    source: TextSource
    count: int
    column: str | None


def means_for(
    needs: frozenset[Need],
    record: Record,
    receiver: HostHandle,
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
    from peftport.porting.means import Means, Side, origin_side

    if not needs:
        return None
    texts, source = _texts(asked, seed, task) if "texts" in needs else ((), "")
    there = Side(receiver.name, receiver.folder, receiver.geometry, receiver.lend)
    return Means(origin_side(record.host, device), there, texts, source)


def _texts(asked: Asked, seed: int, task: Any) -> tuple[tuple[str, ...], str]:
    """The texts and what they are called; none where nothing says which."""
    from peftport.porting.texts import calibration_texts, draw

    source = asked.source
    if isinstance(source, str | Path):
        texts = calibration_texts(str(source), asked.count, seed, asked.column)
        return texts, Path(source).name
    if source is not None:
        return draw(source, asked.count, seed, "texts"), "texts given"
    if task is not None:
        return draw(task.split("train").texts, asked.count, seed, task.name), task.name
    return (), ""

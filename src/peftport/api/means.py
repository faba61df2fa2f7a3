"""What the calls that port share: texts without labels, and both hosts."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.api.hosts import HostHandle
    from peftport.modules import Record
    from peftport.porting.base import Need, PortMethod, Request
    from peftport.porting.estimate import CostEstimate, Load
    from peftport.porting.means import Means

_log = logging.getLogger(__name__)

TEXTS = 1000
"""How many texts are drawn, at most, where nobody says how many."""
_FEWEST_PLACES, _FEWEST_TEXTS = 256, 16

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
    from peftport.hosts.host import load_tokenizer
    from peftport.hosts.quantised import require_plain
    from peftport.hosts.vocabulary import notice_other_tokenizer
    from peftport.porting.means import Means, Side, origin_side

    if not needs:
        return None
    texts, source = _texts(asked, seed, task) if "texts" in needs else ((), "")
    require_plain(receiver.folder, receiver.name)
    there = Side(
        receiver.name, receiver.folder, receiver.geometry, receiver.lend, receiver.lend_layers
    )
    origin = origin_side(record.host, device)
    if texts:  # they are read on both hosts
        tokenizer = load_tokenizer(origin.folder, origin.name)
        notice_other_tokenizer("the module", record.host.tokenizer, tokenizer, origin.name)
    return Means(origin, there, texts, source)


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


def require_fit(
    method: PortMethod, request: Request, load: Load, settings: Mapping[str, Any]
) -> tuple[CostEstimate, dict[str, Any]]:
    """The estimate of a port that fits into this machine's memory and its temporary folder, and the
    options with which.

    Where nothing else is set, fewer places are taken than usual if that makes it fit.

    Raises:
        BadInput: it does not fit; the message names what makes it fit.
    """
    from peftport.porting.estimate import gigabytes, memory_at_hand

    def taking(options: Mapping[str, Any], texts: int) -> CostEstimate:
        asked = method.request(request.donor, request.shapes, request.receiver, options)
        return method.takes(asked, replace(load, texts=texts))

    usual, free = taking(settings, load.texts), memory_at_hand()
    _require_disk(method, usual.temporary)
    if free is None or usual.memory <= free:
        return usual, dict(settings)
    fits: str | None = None
    places = getattr(request.options, "places", 0) // 2
    while places >= _FEWEST_PLACES:
        fewer = {**settings, "places": places}
        if (found := taking(fewer, load.texts)).memory <= free:
            if "places" not in settings:
                _log.warning("notice: maps are fitted on %d places, which fit into memory", places)
                return found, fewer
            fits = f"--set places={places} makes it fit."
            break
        places //= 2
    texts = load.texts // 2
    while fits is None and texts >= _FEWEST_TEXTS:
        if taking(settings, texts).memory <= free:
            fits = f"--text-count {texts} makes it fit."
        texts //= 2
    raise BadInput(
        f"port by {method.name} needs about {gigabytes(usual.memory)} of memory and "
        f"{gigabytes(free)} are free. {fits or 'No option makes it fit on this machine.'} "
        "With --ignore-memory it is tried all the same."
    )


def _require_disk(method: PortMethod, needed: float) -> None:
    """Raise BadInput where the temporary folder has no room for what lies there meanwhile."""
    from peftport.porting.estimate import gigabytes

    folder = tempfile.gettempdir()
    if needed <= (free := shutil.disk_usage(folder).free):
        return
    raise BadInput(
        f"port by {method.name} needs about {gigabytes(needed)} in {folder} while it runs, and "
        f"{gigabytes(free)} are free. Name a folder with more room in TMPDIR, or give fewer texts "
        "with --text-count."
    )


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

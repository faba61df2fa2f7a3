"""Texts without labels, for methods that look at what hosts make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from peftport.errors import BadInput
from peftport.files import is_folder
from peftport.tasks import load_task
from peftport.tasks.readers import SPLIT_NAMES
from peftport.texts import ENDINGS, read_texts

FEWEST = 16
"""Fewer texts than these tell nothing of a host."""
COUNT = 1000


def calibration_texts(
    source: str, count: int = COUNT, seed: int = 0, column: str | None = None
) -> tuple[str, ...]:
    """Draw unlabelled texts from where `source` says.

    Args:
        source: a file or a folder of files as `peftport.texts.read_texts` reads them; else the name
            of a task (`lab:DOMAIN`, a task YAML, a hub data set), of which the training texts are
            taken. Of a folder with train, validation and test files it is the training files too:
            texts that a module is tested on are never looked at.
        count: how many to draw; all, where there are fewer.
        seed: of the draw; a smaller count is part of a larger one.
        column: the column of the texts in files.

    Returns:
        Texts as they are, long ones too, each once, in the order of the draw.

    Raises:
        BadInput: nothing is there, or fewer than `FEWEST` different texts.
    """
    return draw(_texts(source, column), count, seed, source)


def require_enough(count: int) -> None:
    """Raise BadInput for a number of texts that tells nothing of a host."""
    if count < FEWEST:
        raise BadInput(f"{count} texts are too few: {FEWEST} are the least, hundreds are better.")


def draw(texts: Sequence[str], count: int, seed: int, source: str) -> tuple[str, ...]:
    """Draw `count` of `texts`, each once; arguments and errors as for `calibration_texts`."""
    require_enough(count)
    different = list(dict.fromkeys(text for text in texts if text.strip()))
    if len(different) < FEWEST:
        raise BadInput(
            f"{source} has {len(different)} different texts; at least {FEWEST} are needed, and "
            f"{count} were asked for. Give more text: it needs no labels."
        )
    Random(seed).shuffle(different)
    return tuple(different[:count])


def _texts(source: str, column: str | None) -> list[str]:
    path = Path(source).expanduser()
    if is_folder(path):
        files = [file for file in path.iterdir() if file.suffix.lower() in ENDINGS]
        training = [file for file in files if _split(file) == "train"]
        if not training and any(_split(file) for file in files):
            raise BadInput(
                f"{source} has validation or test files and no training file: texts that a module "
                "is tested on are not looked at. Name a file with other texts."
            )
        places = sorted(training) or [path]
        return [
            text for place in places for file in read_texts(place, column) for text in file.texts
        ]
    if path.suffix.lower() in ENDINGS:
        return [text for file in read_texts(path, column) for text in file.texts]
    return load_task(source, text=column).split("train").texts


def _split(file: Path) -> str | None:
    """The split that a file's name says, as "train" of `train-00000-of-00002.parquet`."""
    return SPLIT_NAMES.get(file.stem.split("-")[0].lower())

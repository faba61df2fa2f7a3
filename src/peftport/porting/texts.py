"""Texts without labels, for methods that look at what hosts make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

from peftport.errors import BadInput
from peftport.files import is_folder
from peftport.tables import NoColumn
from peftport.tasks import load_task
from peftport.tasks.forms import CHATS, KIND_OF, kind_of, read_file
from peftport.tasks.readers import SPLIT_NAMES
from peftport.texts import ENDINGS, read_texts, text_files

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
            texts that a module is tested on are never looked at. Of chats, and of prompts with
            answers, the text is what comes before the answer, as for the task that they make up.
        count: how many to draw; all, where there are fewer.
        seed: of the draw; a smaller count is part of a larger one.
        column: the column of the texts in files.

    Returns:
        Texts as they are, long ones too, each once, in the order of the draw.

    Raises:
        BadInput: nothing is there, or fewer than `FEWEST` different texts.
    """
    return draw(_texts(source, column), count, seed, source)


def require_enough(count: int, what: str = "texts are too few") -> None:
    """Raise BadInput for a number of texts that tells nothing of a host."""
    if count < FEWEST:
        raise BadInput(f"{count} {what}: {FEWEST} are the least, hundreds are better.")


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
        files = text_files(path)
        training = [file for file in files if _split(file) == "train"]
        if not training and any(_split(file) for file in files):
            raise BadInput(
                f"{source} has validation or test files and no training file: texts that a module "
                "is tested on are not looked at. Name a file with other texts."
            )
        return [text for file in training or files for text in _of_file(file, column)]
    if path.suffix.lower() in ENDINGS:
        return _of_file(path, column)
    return load_task(source, text=column).split("train").texts


def _of_file(path: Path, column: str | None) -> list[str]:
    try:
        (file,) = read_texts(path, column)
    except NoColumn as error:
        if column or kind_of(list(error.columns)) != KIND_OF[CHATS]:
            raise
        return read_file(path).texts
    return file.texts


def _split(file: Path) -> str | None:
    """The split that a file's name says, as "train" of `train-00000-of-00002.parquet`."""
    return SPLIT_NAMES.get(file.stem.split("-")[0].lower())

"""How much longer a tokenizer makes a text before it cuts it up: a few steps that each write one
letter as many make gigabytes of a word, in a library that nothing can interrupt."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import by_library, read_bytes

_MOST = 10_000
_MODEL = re.compile(rb'"model"\s*:\s*\{')
_STEPS = re.compile(rb'"(?:normalizer|decoder|post_processor)"\s*:\s*[{n]')
_ESCAPED = re.compile(rb"\\u00[4-7]")
"""A letter of a name that is written otherwise than anybody writes it."""


def require_bounded(path: Path, largest: int) -> None:
    """Look at a `tokenizer.json` before any text is given to it.

    Args:
        largest: bytes that such a file may have.

    Raises:
        BadInput: it is no JSON, or makes texts more than 10,000 times as long.
    """
    found = path.stat()
    _require(path, largest, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=8)
def _require(path: Path, largest: int, _changed: int, _size: int) -> None:
    with by_library(f"{path} is not a tokenizer's file"):
        whole = read_bytes(path, largest)
        try:
            told = json.loads(_without_vocabulary(whole))
        except ValueError:
            told = json.loads(whole)
        parts = told if isinstance(told, dict) else {}
        growth = max(_growth(parts.get(key)) for key in ("normalizer", "decoder", "post_processor"))
    if growth > _MOST:
        raise BadInput(
            f"{path}: it makes texts more than {_MOST:,} times as long before they are tokens, "
            "which no tokenizer does: it is not read."
        )


def _without_vocabulary(data: bytes) -> bytes:
    """The file without its model, which is most of it; the whole one where other parts may stand
    behind that."""
    model = _MODEL.search(data)
    steps = [found.start() for found in _STEPS.finditer(data)]
    if model is None or _ESCAPED.search(data) or not steps or steps[-1] > model.start():
        return data
    return data[: model.start()] + b'"model":null}'


def _growth(step: Any) -> float:
    """How many letters, at most, a step makes of one."""
    if isinstance(step, list):
        made = 1.0
        for each in step:
            made = min(made * _growth(each), 1e300)
        return made
    if not isinstance(step, dict):
        return 1.0
    inner = (step.get(key) for key in ("normalizers", "decoders", "processors"))
    made = _growth([each for each in inner if each])
    pieces = [step.get(key) for key in ("single", "pair", "prepend")]
    made *= max([1, *(len(each) for each in pieces if isinstance(each, list | str))])
    content, pattern = step.get("content"), step.get("pattern")
    if isinstance(content, str) and isinstance(pattern, dict):
        of = pattern.get("String")
        # An expression may fit nothing, between any two letters.
        made *= max(1.0, len(content) / len(of)) if of and isinstance(of, str) else 1 + len(content)
    return made

"""Tokens of large data sets, kept on disk and mapped into memory by every process that needs them.

Tokenising tens of thousands of texts takes seconds, which each command and each worker of a study
would spend anew. What is kept is named by a hash of everything that it depends on, so that it is
never out of date; it may be deleted at any time. It lies in `$PEFTPORT_CACHE`, or in
`$XDG_CACHE_HOME/peftport` (`~/.cache/peftport`).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from peftport.tasks.task import Task

WORTH_KEEPING = 5_000
"""Texts; fewer are tokenised sooner than they are found."""

Tokens = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]
"""Tokens of each text, (texts,), and all tokens one after the other."""


def kept_tokens(name: str, make: Callable[[], Tokens]) -> Tokens:
    """The tokens kept as `name`, mapped from disk; made and kept if they are not there.

    Where nothing can be kept they are made every time.
    """
    file = cache_folder() / f"{name}.npy"
    found = _read(file)
    if found is None:
        made = make()
        _write(file, made)
        found = _read(file) or made
    return found


def tokens_hash(tokenizer: Any, task: Task, texts: Sequence[str], kind: str) -> str:
    """A hash of the texts and of all that decides what their tokens are."""
    import tokenizers
    import transformers

    said = [
        tokenizer.backend_tokenizer.to_str(),
        tokenizer.model_max_length,
        task.templates[kind],
        task.max_tokens,
        kind,
        tokenizers.__version__,
        transformers.__version__,
    ]
    digest = hashlib.sha256(json.dumps(said).encode())
    for text in texts:
        digest.update(len(text).to_bytes(8, "little"))
        digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where tokens are kept; it need not exist."""
    if given := os.environ.get("PEFTPORT_CACHE"):
        return Path(given) / "tokens"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "peftport", "tokens")


def _read(file: Path) -> Tokens | None:
    """What is kept in `file`: the number of texts, their lengths, their tokens; None if nothing."""
    try:
        whole = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    count = int(whole[0]) if whole.size else 0
    lengths, tokens = np.array(whole[1 : 1 + count]), whole[1 + count :]
    return (lengths, tokens) if count > 0 and lengths.sum() == len(tokens) else None


def _write(file: Path, made: Tokens) -> None:
    """Write whole or not at all, however many processes do it at the same time."""
    lengths, tokens = made
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            try:
                np.save(part, np.concatenate([[len(lengths)], lengths, tokens]).astype(np.int32))
                part.flush()
                os.replace(part.name, file)
            except BaseException:
                os.unlink(part.name)
                raise
    except OSError:
        return

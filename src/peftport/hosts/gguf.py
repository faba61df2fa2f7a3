"""Hosts in GGUF files, as llama.cpp and its descendants keep them, read through transformers.

A file's weights are dequantised once, into a folder of transformers' of half precision in
peftport's cache; from there on such a host is one like any other. The cache may be deleted at any
time. Half precision keeps of each weight far more than the file's quantisation has left of it.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from contextlib import redirect_stderr
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import by_library, is_file, is_folder, new_folder, read_json, write_json
from peftport.hosts.configuration import require_possible
from peftport.hosts.gguf_head import require_whole_gguf
from peftport.hosts.quiet import quiet_transformers

RECORD = "peftport_gguf.json"
_ENDING = ".gguf"
_log = logging.getLogger(__name__)


def gguf_at(path: Path) -> Path | None:
    """The GGUF file that a host's path means: itself, or the one in a folder without a
    transformers model. None where it means something else.

    Raises:
        BadInput: the folder holds several.
    """
    if is_file(path):
        return path if path.suffix.lower() == _ENDING else None
    if not is_folder(path) or any(path.glob("*.safetensors")):
        return None
    found = sorted(file for file in path.iterdir() if file.suffix.lower() == _ENDING)
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise BadInput(f"{path} holds several GGUF files: {names}. Name one of them.")
    return found[0] if found else None


def unpacked(file: Path) -> Path:
    """The folder in which a GGUF file lies dequantised; made when it is asked for first.

    Raises:
        BadInput: the package gguf is not installed, or transformers cannot read the file.
    """
    from transformers.utils.import_utils import is_gguf_available

    require_whole_gguf(file)
    mark = _digest(*_state(file))
    folder = _cache() / mark[:32]
    if is_file(folder / RECORD):
        return folder
    if not is_gguf_available():
        raise BadInput(
            f"{file}: GGUF files are read with the package gguf: pip install 'peftport[gguf]'."
        )
    _log.info("notice: %s is dequantised into %s, once", file, folder)
    with quiet_transformers():
        with by_library(f"{file} is no GGUF file that can be read"):
            model, tokenizer = _read(file)
        try:
            with new_folder(folder) as made:
                model.save_pretrained(made)
                tokenizer.save_pretrained(made)
                write_json(made / RECORD, {"file": file.name, "sha256": mark})
        except BadInput:
            if not is_file(folder / RECORD):  # else another process was there first
                raise
    return folder


def mark_of(folder: Path) -> str | None:
    """The SHA-256 of the GGUF file that a folder of the cache was made from; None for any other
    folder, whatever it holds."""
    if folder.parent != _cache() or not is_file(folder / RECORD):
        return None
    return str(read_json(folder / RECORD)["sha256"])


def _read(file: Path) -> tuple[Any, Any]:
    """The model, in half precision and without a trace of its quantisation, and its tokenizer."""
    import torch
    import transformers

    from peftport.hosts.skeleton import auto_class, skeleton
    from peftport.hosts.source import require_room_for

    given = {"gguf_file": file.name}
    config = transformers.AutoConfig.from_pretrained(file.parent, **given)
    require_possible(config.to_dict(), str(file))
    kind = "encoder-decoder" if config.is_encoder_decoder else "decoder"
    weights = sum(each.numel() for each in skeleton(config, kind, str(file)).parameters())
    require_room_for(weights, [file], str(file))
    auto = getattr(transformers, auto_class(kind))
    with redirect_stderr(io.StringIO()):  # a bar, which would be drawn into logs, too
        loaded = auto.from_pretrained(file.parent, dtype=torch.float32, **given)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = auto.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    return plain.half(), transformers.AutoTokenizer.from_pretrained(file.parent, **given)


def _cache() -> Path:
    if given := os.environ.get("PEFTPORT_CACHE"):
        return Path(given).absolute() / "gguf"
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "peftport", "gguf").absolute()


def _state(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file), found.st_mtime_ns, found.st_size


@lru_cache(maxsize=16)
def _digest(file: str, modified: int, size: int) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

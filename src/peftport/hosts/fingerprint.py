"""A host's fingerprint: the SHA-256 of its weights, whatever the sharding or file metadata.

Of hosts larger than 4 GiB not every byte is read, which would take longer than a port does: 64
pages of each tensor are. What training changes is seen there; a change of a few rows can be missed.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import read_json
from peftport.hosts.gguf import mark_of

_CHUNK = 1 << 24
_WHOLE = 4 << 30
"""Bytes of weights up to which all are read."""
_PAGE, _PAGES = 4096, 64
_TICK = 2_000_000_000
_HEADER_LIMIT = 100_000_000
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}


def read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Read the table of contents of a safetensors file without its data.

    Returns:
        Tensor name -> {"dtype", "shape", "data_offsets"}, and where the data begin in the file.

    Raises:
        BadInput: the file is missing, truncated, or not in safetensors format.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if len(start) < 8:
                raise ValueError("it is shorter than a header")
            (length,) = struct.unpack("<Q", start)
            if length > min(size - 8, _HEADER_LIMIT):
                raise ValueError(f"its header claims {length} bytes and the file has {size}")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        _require_whole(header, size - 8 - length)
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{path} is not a whole safetensors file: {error}. "
            "Copy it again from where it came from; pickles are not read."
        ) from error
    return header, 8 + length


def _require_whole(header: dict[str, dict[str, Any]], size: int) -> None:
    """Raise ValueError unless the tensors fill `size` bytes, each as many as its shape says."""
    place = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        wanted = math.prod(entry["shape"]) * _BYTES.get(entry["dtype"], 0)
        if begin != place or wanted not in (0, end - begin):
            raise ValueError(f"tensor {name!r} does not lie where its header says")
        place = end
    if place != size:
        raise ValueError(f"its tensors should have {place} bytes and have {size}")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with a host's weights; BadInput when one is not there."""
    single = folder / "model.safetensors"
    if single.exists():  # as in transformers, it goes before an index
        return [single]
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        raise BadInput(
            f"{folder} has no model.safetensors (or model.safetensors.index.json): a host's "
            "weights are read from safetensors only; save it again with `save_pretrained`."
        )
    try:
        names = {Path(name).name for name in read_json(index)["weight_map"].values()}
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{index} does not say which weights are in which file.") from None
    for name in names:
        if not (folder / name).is_file():
            raise BadInput(f"{folder} has no {name}, which {index.name} names.")
    return [folder / name for name in sorted(names)]


def fingerprint(folder: Path) -> str:
    """SHA-256 over name, type, shape and bytes of every weight, as 64 hexadecimal digits; of a GGUF
    file, that of its bytes."""
    if (mark := mark_of(folder)) is not None:
        return mark
    files = weight_files(folder)
    key = tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)
    # A file of this very moment can be written again without another time or size: not yet kept.
    settled = all(time.time_ns() - modified > _TICK for _, modified, _ in key)
    return _fingerprint(key) if settled else _fingerprint.__wrapped__(key)


@lru_cache(maxsize=64)
def _fingerprint(files: tuple[tuple[str, int, int], ...]) -> str:
    places = {}
    for name, _, _ in files:
        header, start = read_header(Path(name))
        places.update({tensor: (name, start, entry) for tensor, entry in header.items()})
    sampled = sum(size for _, _, size in files) > _WHOLE
    digest = hashlib.sha256()
    for tensor in sorted(places):
        name, start, entry = places[tensor]
        begin, end = (start + place for place in entry["data_offsets"])
        digest.update(json.dumps([tensor, entry["dtype"], entry["shape"]]).encode())
        with open(name, "rb") as file:
            for place, size in _pages(begin, end) if sampled else _chunks(begin, end):
                file.seek(place)
                digest.update(file.read(size))
    return digest.hexdigest()


def _chunks(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """All bytes of a tensor: (place, size)."""
    return ((place, min(_CHUNK, end - place)) for place in range(begin, end, _CHUNK))


def _pages(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Pages at equal distances, the first and the last among them; all of a small tensor."""
    if end - begin <= _PAGE * _PAGES:
        return _chunks(begin, end)
    last = end - begin - _PAGE
    return ((begin + last * page // (_PAGES - 1), _PAGE) for page in range(_PAGES))

"""A host's fingerprint: of its weights, whatever their sharding or metadata, and of its settings.

It reads `WEIGHTS-SETTINGS`: 64 hexadecimal digits of the weights and 16 of what its configuration
says that can reach its outputs (`peftport.hosts.configuration.settings`). Older records have the
first part alone, and stay what they were: they name a host by its weights.

Of hosts larger than 4 GiB not every byte is read, which would take longer than a port does: 64
pages of each tensor are. What training changes is seen there; a change of a few rows can be missed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeGuard

from peftport.errors import BadInput
from peftport.files import exists, is_file, opened, parse_json, read_json
from peftport.hosts.configuration import settings
from peftport.hosts.gguf import mark_of

WEIGHTS_INDEX = "model.safetensors.index.json"
"""Says which of a host's weights are in which of its files."""
_CHUNK = 1 << 24
READ_WHOLE = 4 << 30
"""Bytes of weights up to which all are read."""
PAGE, PAGES = 4096, 64
_TICK = 2_000_000_000
_SETTINGS = 16
_HEADER_LIMIT = 20_000_000
"""Bytes of a header: 130,000 tensors and more."""
_DIMENSIONS = 16
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}


def read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Read the table of contents of a safetensors file without its data.

    Returns:
        Tensor name -> {"dtype", "shape", "data_offsets"}, and where the data begin in the file.

    Raises:
        BadInput: the file is missing, truncated, or not in safetensors format.
    """
    with opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        try:
            length = _header_length(file.read(8), size)
            header = parse_json(file.read(length), "its header")
            if not isinstance(header, dict):
                raise ValueError("its header is no object")
            header.pop("__metadata__", None)
            _require_whole(header, size - 8 - length)
        except (BadInput, ValueError) as error:
            raise BadInput(
                f"{path} is not a whole safetensors file: {str(error).rstrip('.')}. "
                "Copy it again from where it came from; pickles are not read."
            ) from error
    return header, 8 + length


def _header_length(start: bytes, size: int) -> int:
    if len(start) < 8:
        raise ValueError("it is shorter than a header")
    (length,) = struct.unpack("<Q", start)
    if length > size - 8:
        raise ValueError(f"its header claims {length} bytes and the file has {size}")
    if length > _HEADER_LIMIT:
        raise ValueError(f"its header has {length:,} bytes, and at most {_HEADER_LIMIT:,} are read")
    return int(length)


def _require_whole(header: dict[str, Any], size: int) -> None:
    """Raise ValueError unless the tensors fill `size` bytes, each as many as its shape says."""
    for name, entry in header.items():
        _require_entry(name, entry)
    place = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        wanted = math.prod(entry["shape"]) * _BYTES.get(entry["dtype"], 0)
        if begin != place or end < begin or wanted not in (0, end - begin):
            raise ValueError(f"tensor {name!r} does not lie where its header says")
        place = end
    if place != size:
        raise ValueError(f"its tensors should have {place} bytes and have {size}")


def _require_entry(name: str, entry: Any) -> None:
    """Raise ValueError unless a tensor's entry has a type, a shape and a place."""
    kind, shape, place = (
        (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
        if isinstance(entry, dict)
        else (None,) * 3
    )
    if not isinstance(kind, str) or not _whole_numbers(shape) or not _whole_numbers(place):
        raise ValueError(f"tensor {name!r} has no type, no shape or no place")
    # What no memory has room for cannot be counted by torch, even where another size is 0.
    if len(place) != 2 or len(shape) > _DIMENSIONS or math.prod(max(n, 1) for n in shape) >> 60:
        raise ValueError(f"tensor {name!r} has a shape or place that no tensor has")


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(each) is int and each >= 0 for each in value)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with a host's weights; BadInput when one is not there."""
    single = folder / "model.safetensors"
    if exists(single):  # as in transformers, it goes before an index
        return [single]
    index = folder / WEIGHTS_INDEX
    if not exists(index):
        raise BadInput(
            f"{folder} has no model.safetensors (or model.safetensors.index.json): a host's "
            "weights are read from safetensors only; save it again with `save_pretrained`."
        )
    try:
        names = {Path(name).name for name in read_json(index)["weight_map"].values()}
    except (KeyError, TypeError, AttributeError):
        raise BadInput(f"{index} does not say which weights are in which file.") from None
    for name in names:
        if not is_file(folder / name):
            raise BadInput(f"{folder} has no {name}, which {index.name} names.")
    return [folder / name for name in sorted(names)]


def fingerprint(folder: Path) -> str:
    """What names a host: SHA-256 over name, type, shape and bytes of every weight, as 64
    hexadecimal digits; a hyphen; and 16 of the SHA-256 of its settings."""
    told = json.dumps(settings(folder), sort_keys=True, default=str)
    return f"{weights_mark(folder)}-{hashlib.sha256(told.encode()).hexdigest()[:_SETTINGS]}"


def weights_mark(folder: Path) -> str:
    """The first part of a host's fingerprint, which is of its weights alone; of a GGUF file that
    of its bytes."""
    if (mark := mark_of(folder)) is not None:
        return mark
    files = weight_files(folder)
    key = tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files)
    # A file of this very moment can be written again without another time or size: not yet kept.
    settled = all(time.time_ns() - modified > _TICK for _, modified, _ in key)
    return _weights_mark(key) if settled else _weights_mark.__wrapped__(key)


def of_weights(mark: str) -> str:
    """The part of a fingerprint that is of the weights."""
    return mark.partition("-")[0]


def same_host(one: str, other: str) -> bool:
    """Whether two fingerprints name one host, as far as both say: one of an older record, which is
    of weights alone, names every host with these weights."""
    if "-" in one and "-" in other:
        return one == other
    return of_weights(one) == of_weights(other)


def require_host_of_module(name: str, said: str, mark: str) -> None:
    """Raise BadInput unless the host `name`, of the fingerprint `mark`, is the one whose
    fingerprint a module's record says."""
    if said and not same_host(said, mark):
        what = "weights" if of_weights(said) != of_weights(mark) else "settings"
        raise BadInput(
            f"{name} is not the host that the module is made for: its {what} are others. Its "
            f"fingerprint is {shown(mark)}, the module's record says {shown(said)}. Give the right "
            "one with --from-host."
        )


def shown(mark: str) -> str:
    """A fingerprint in short, for messages: the beginning of each of its parts."""
    weights, hyphen, rest = mark.partition("-")
    return f"{weights[:16]}{hyphen}{rest[:4]}"


@lru_cache(maxsize=64)
def _weights_mark(files: tuple[tuple[str, int, int], ...]) -> str:
    places = {}
    for name, _, _ in files:
        header, start = read_header(Path(name))
        places.update({tensor: (name, start, entry) for tensor, entry in header.items()})
    sampled = sum(size for _, _, size in files) > READ_WHOLE
    digest = hashlib.sha256()
    for tensor in sorted(places):
        name, start, entry = places[tensor]
        begin, end = (start + place for place in entry["data_offsets"])
        digest.update(json.dumps([tensor, entry["dtype"], entry["shape"]]).encode())
        with opened(Path(name)) as file:
            for place, size in _pages(begin, end) if sampled else _chunks(begin, end):
                file.seek(place)
                digest.update(file.read(size))
    return digest.hexdigest()


def _chunks(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """All bytes of a tensor: (place, size)."""
    return ((place, min(_CHUNK, end - place)) for place in range(begin, end, _CHUNK))


def _pages(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Pages at equal distances, the first and the last among them; all of a small tensor."""
    if end - begin <= PAGE * PAGES:
        return _chunks(begin, end)
    last = end - begin - PAGE
    return ((begin + last * page // (PAGES - 1), PAGE) for page in range(PAGES))

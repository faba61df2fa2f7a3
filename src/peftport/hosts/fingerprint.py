"""A host's fingerprint: the SHA-256 of its weights, whatever the sharding or file metadata."""

from __future__ import annotations

import hashlib
import json
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

from peftport.errors import BadInput

_CHUNK = 1 << 24
_HEADER_LIMIT = 100_000_000


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
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it should have {8 + length + end} bytes and has {size}")
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} is not a whole safetensors file: {error}. "
            "Copy it again from where it came from; pickles are not read."
        ) from error
    return header, 8 + length


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with a host's weights; BadInput when there are none."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        return [folder / Path(name).name for name in names]
    single = folder / "model.safetensors"
    if not single.exists():
        raise BadInput(
            f"{folder} has no model.safetensors (or model.safetensors.index.json): a host's "
            "weights are read from safetensors only; save it again with `save_pretrained`."
        )
    return [single]


def fingerprint(folder: Path) -> str:
    """SHA-256 over name, type, shape and bytes of every weight, as 64 hexadecimal digits."""
    files = weight_files(folder)
    return _fingerprint(tuple((str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files))


@lru_cache(maxsize=64)
def _fingerprint(files: tuple[tuple[str, int, int], ...]) -> str:
    places = {}
    for name, _, _ in files:
        header, start = read_header(Path(name))
        places.update({tensor: (name, start, entry) for tensor, entry in header.items()})
    digest = hashlib.sha256()
    for tensor in sorted(places):
        name, start, entry = places[tensor]
        begin, end = entry["data_offsets"]
        digest.update(json.dumps([tensor, entry["dtype"], entry["shape"]]).encode())
        with open(name, "rb") as file:
            file.seek(start + begin)
            for chunk in iter(lambda f=file, e=start + end: f.read(min(_CHUNK, e - f.tell())), b""):
                digest.update(chunk)
    return digest.hexdigest()

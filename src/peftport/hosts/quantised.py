"""Hosts whose folder holds quantised weights, which only the library that made them can read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from peftport.errors import BadInput
from peftport.files import is_file, read_json

_MARKS = re.compile(
    r"[-_.](unsloth-)?(bnb-4bit|bnb-8bit|4bit|8bit|gptq|awq|fp8|int4|int8|nf4|w4a16|w8a8)\b.*$",
    re.IGNORECASE,
)
"""How names of such hosts end, after the name of the host that they are made from."""


def quantised_by(folder: Path) -> str | None:
    """The method by which a host's weights are quantised, as its config.json says; None for plain
    weights."""
    path = folder / "config.json"
    config: Any = read_json(path) if is_file(path) else None
    said = config.get("quantization_config") if isinstance(config, dict) else None
    if not said:
        return None
    method = said.get("quant_method") if isinstance(said, dict) else None
    return str(method or "a method that it does not name")


def unreadable(folder: Path, name: str) -> str | None:
    """Why a host's weights cannot be read, for a message; None when nothing is against it."""
    method = quantised_by(folder)
    if method is None:
        return None
    plain = _MARKS.sub("", name)
    guess = f" (by its name {plain})" if plain not in ("", name) and "/" in plain else ""
    return (
        f"host {name}: its weights are quantised ({method}; quantization_config in its "
        f"config.json), and cannot be read here. Name the unquantised host{guess} in its place: "
        "with --from-host where a module is made for it, with --host where it is ported to it"
    )


def require_plain(folder: Path, name: str) -> None:
    """Raise BadInput for a host whose weights are quantised."""
    if why := unreadable(folder, name):
        raise BadInput(f"{why}.")

"""What is refused in a PEFT configuration: anything that changes what the module does and that
peftport does not know, by its name, variants of tomorrow included."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from peftport.modules.formats.base import Folder
from peftport.modules.formats.heads import Kind

# Of no effect on what a saved module computes.
_NEUTRAL = frozenset(
    {
        *("base_model_name_or_path", "revision", "peft_type", "task_type", "inference_mode"),
        *("auto_mapping", "peft_version", "modules_to_save", "ensure_weight_tying"),
    }
)
_KINDS: dict[str, Kind] = {"SEQ_CLS": "sequence", "TOKEN_CLS": "token"}


def refuse_unknown(folder: Folder, known: Collection[str]) -> None:
    """Raise BadInput for the first option that is set and neither neutral nor in `known`."""
    for key, value in folder.config.items():
        if key in _NEUTRAL or key in known or value in (None, False, "", [], {}):
            continue
        folder.refuse(key, f"{value!r}: a variant that peftport does not read")


def number(folder: Folder, key: str, kind: type = int) -> Any:
    """A positive number of the configuration."""
    value = folder.config.get(key)
    allowed = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not 0 < value < 1e9:
        folder.refuse(key, f"{value!r}, expected a positive number")
    return value


def flag(folder: Folder, key: str) -> bool:
    """A switch of the configuration, off where it is missing."""
    value = folder.config.get(key) or False
    if not isinstance(value, bool):
        folder.refuse(key, f"{value!r}, expected true or false")
    return value


def classifier_kind(folder: Folder) -> Kind | None:
    """Which of transformers' classifiers the module is from, None for other models."""
    return _KINDS.get(str(folder.config.get("task_type")))

"""Tasks: texts with labels from files, the hub or the lab, and how a host reads them.

`Encoded`, `Batch` and `encode` need torch, which is imported when one of them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from peftport.tasks.task import Rows, Task, load_task
from peftport.tasks.unlabelled import encode_unlabelled, unlabelled_texts
from peftport.tasks.verbalizer import label_tokens

if TYPE_CHECKING:
    from peftport.tasks.batches import Batch, Encoded, encode, encode_texts

__all__ = [
    "Batch",
    "Encoded",
    "Rows",
    "Task",
    "encode",
    "encode_texts",
    "encode_unlabelled",
    "label_tokens",
    "load_task",
    "unlabelled_texts",
]


def __getattr__(name: str) -> Any:
    if name in ("Batch", "Encoded", "encode", "encode_texts"):
        return getattr(importlib.import_module("peftport.tasks.batches"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""The texts of a task that the label-free correction looks at: training texts, without labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftport.correction import FEWEST, TEXTS
from peftport.tasks.sampling import sampled_rows
from peftport.tasks.task import Task

if TYPE_CHECKING:
    from peftport.tasks.batches import Encoded


def unlabelled_texts(task: Task) -> list[str]:
    """At most `TEXTS` of the training texts, each once, drawn by their hashes; none of them is a
    test text. Empty where the task has no training split or too few such texts."""
    if "train" not in task.splits:
        return []
    tested = set(task.split("test").texts)
    different = [t for t in dict.fromkeys(task.split("train").texts) if t not in tested]
    if len(different) < FEWEST:
        return []
    return [different[row] for row in sampled_rows(different, TEXTS)]


def encode_unlabelled(tokenizer: Any, task: Task, kind: str) -> Encoded | None:
    """The same as a host's tokens; None where there are none, or nothing is corrected."""
    texts = unlabelled_texts(task) if task.asks.corrects(task) else []
    return task.asks.encode_texts(tokenizer, task, texts, kind) if texts else None

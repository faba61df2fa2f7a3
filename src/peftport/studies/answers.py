"""What every run of a study answered, as its kind reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peftport.files import by_library
from peftport.kept import Answers
from peftport.kind import Kind


class Unpacked(Mapping[str, Any]):
    """Run id -> what is kept of its test examples, unpacked whenever it is asked for: a large
    study's would not fit into memory otherwise.

    Args:
        kind: of the study's tasks.
        packed: run id -> answers with scores, what is true of the task's test examples, and what is
            known of the task.

    Raises:
        BadInput: at a look-up, bytes that no study wrote.
    """

    def __init__(
        self, kind: Kind, packed: Mapping[str, tuple[Answers, Any, Mapping[str, Any]]]
    ) -> None:
        self._kind, self._packed = kind, packed

    def __getitem__(self, run_id: str) -> Any:
        packed = self._packed[run_id]
        with by_library(f"what run {run_id} answered is not as peftport writes it"):
            return self._kind.unpack(*packed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)

    def __contains__(self, run_id: object) -> bool:
        return run_id in self._packed

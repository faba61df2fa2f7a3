"""What all results have: a text, a mapping that is ready for JSON, and a look in notebooks."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from typing import Any


class Result(ABC):
    """What a call found.

    `str(result)` is what the command line prints, `result.to_dict()` what it prints with `--json`.
    """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Everything that was found, in types that JSON has."""

    @abstractmethod
    def __str__(self) -> str:
        """The same in words, for people."""

    def _repr_html_(self) -> str:
        """The look in a notebook."""
        return f"<pre>{html.escape(str(self))}</pre>"

"""Which files are read, written and refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peftport.api.result import Result

Entries = tuple[Mapping[str, str], ...]


@dataclass(frozen=True)
class FormatList(Result):
    """What is read, written and refused: by technique, by family, and by key of PEFT's file."""

    techniques: Entries
    families: Entries
    keys: Entries

    def to_dict(self) -> dict[str, Any]:
        """The three lists."""
        names = ("techniques", "families", "keys")
        return {name: [dict(each) for each in getattr(self, name)] for name in names}

    def __str__(self) -> str:
        from peftport.modules.formats import table

        return table.formats_markdown()


def list_formats() -> FormatList:
    """What is read, written and refused, as in docs/formats.md.

    >>> import peftport as pp
    >>> pp.list_formats().techniques[0]["technique"]
    'adapter'
    """
    from peftport.modules.formats import table

    def entries(rows: list[table.Row]) -> Entries:
        return tuple(dict(zip(rows[0], row, strict=True)) for row in rows[1:])

    return FormatList(
        entries(table.techniques()),
        entries(table.adapterhub_families()),
        entries(table.peft_keys()),
    )

"""peftport's own files as a format among the others: `module.safetensors` and `module.json`."""

from __future__ import annotations

from peftport.modules.formats.base import Files, Format
from peftport.modules.module import RECORD, TENSORS, Module


class Own(Format):
    """Every technique, with its whole record."""

    name = "peftport"
    read_by = "peftport"

    def files(self, module: Module) -> Files:
        """The two files."""
        return Files({RECORD: module.record.model_dump(mode="json")}, {TENSORS: module.tensors})

    def usage(self, module: Module) -> str:
        """How peftport loads it."""
        return "from peftport.modules import load_module\n\nmodule = load_module(FOLDER)"

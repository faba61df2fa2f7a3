"""Modules as things: tensors, configuration, provenance."""

from peftport.modules.module import Module, load_module, read_outline, read_record, versions
from peftport.modules.record import HostName, Record, expected_shapes

__all__ = [
    "HostName",
    "Module",
    "Record",
    "expected_shapes",
    "load_module",
    "read_outline",
    "read_record",
    "versions",
]

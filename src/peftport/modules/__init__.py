"""Modules as things: tensors, configuration, provenance."""

from peftport.modules.module import (
    HostName,
    Module,
    Record,
    expected_shapes,
    load_module,
    read_outline,
    read_record,
    versions,
)

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

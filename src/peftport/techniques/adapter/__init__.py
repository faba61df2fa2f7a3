"""Bottleneck adapters: everything that peftport knows of them."""

from peftport.techniques.adapter.core import (
    ACTIVATIONS,
    Activation,
    Adapter,
    AdapterConfig,
    attach_bottlenecks,
    bottleneck_of,
    only_pfeiffer,
    places,
)

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Adapter",
    "AdapterConfig",
    "attach_bottlenecks",
    "bottleneck_of",
    "only_pfeiffer",
    "places",
]

"""Hosts: frozen pretrained models, their geometry, and where they come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftport.hosts.geometry import Geometry, families, geometry_from_record, geometry_of
from peftport.hosts.source import HostSource, find_host, geometry_by_name

if TYPE_CHECKING:
    from peftport.hosts.host import Host, load_host

__all__ = [
    "Geometry",
    "Host",
    "HostSource",
    "families",
    "find_host",
    "geometry_by_name",
    "geometry_from_record",
    "geometry_of",
    "load_host",
]


def __getattr__(name: str) -> Any:
    """Give what needs torch at its first use, so that listing hosts does not import it."""
    if name in ("Host", "load_host"):
        from peftport.hosts import host

        return getattr(host, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

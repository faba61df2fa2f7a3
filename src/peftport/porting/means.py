"""What a port method may use beside the module: both hosts, and texts without labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from peftport.hosts.geometry import Geometry
from peftport.hosts.source import find_host, geometry_in
from peftport.hosts.weights import Weights

if TYPE_CHECKING:
    from peftport.hosts.host import Host


@dataclass(frozen=True)
class Side:
    """One of the two hosts of a port: its files, and the host itself once a method asks for it.

    load: gives the loaded host. It is called when it is needed and its host let go afterwards,
    so that the two hosts of a port need not be in memory together.
    """

    name: str
    folder: Path
    geometry: Geometry
    load: Callable[[], Host] = field(repr=False)

    @cached_property
    def weights(self) -> Weights:
        """The host's weights in its files, read one at a time."""
        return Weights(self.folder)

    def linear(self, point: str) -> Tensor:
        """The frozen weight at an insertion point in float32: (outputs, inputs)."""
        place = self.geometry.linears[point]
        weight = self.weights[f"{place.path}.weight"].float()
        return weight.mT.contiguous() if place.transposed else weight


@dataclass(frozen=True)
class Means:
    """What a method may use beside the module; texts are unlabelled and in no order."""

    origin: Side
    receiver: Side
    texts: tuple[str, ...] = ()


def side(name: str, device: str = "cpu") -> Side:
    """The host called `name` (lab, folder or hub) as a side of a port; nothing is loaded yet."""
    from peftport.hosts.host import load_host

    folder = find_host(name).files()
    return Side(name, folder, geometry_in(folder, name), lambda: load_host(name, device))

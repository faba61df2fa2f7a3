"""What a port method may use beside the module: both hosts, and texts without labels."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from peftport.errors import BadInput, RunFailed
from peftport.hosts.fingerprint import (
    WEIGHTS_INDEX,
    fingerprint,
    read_header,
    require_host_of_module,
    shown,
    weight_files,
)
from peftport.hosts.genealogy import folder_at_hand
from peftport.hosts.geometry import Geometry
from peftport.hosts.quantised import require_plain, unreadable
from peftport.hosts.source import find_host, geometry_in
from peftport.hosts.weights import Weights
from peftport.modules import HostName
from peftport.progress import Portion
from peftport.techniques.base import Parameters

if TYPE_CHECKING:
    from peftport.hosts.host import Host

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Side:
    """One of the two hosts of a port: its files, and the host itself once a method asks for it.

    load: gives the loaded host. It is called when it is needed and its host let go afterwards,
    so that the two hosts of a port need not be in memory together. stream: gives the host with one
    layer's weights in memory at a time (`hosts.streaming`), for those who run it a few times.
    besides: tensors of the module there, without lane axis, beside those that a method is given or
    makes: on its own host embeddings and places that the receiving one has not, on the receiving
    one the embeddings that go over. Who asks a host with the module gives them with the others.
    """

    name: str
    folder: Path
    geometry: Geometry
    load: Callable[[], Host] = field(repr=False)
    stream: Callable[[], Host] = field(repr=False)
    besides: Parameters = field(default_factory=dict, repr=False)

    @cached_property
    def weights(self) -> Weights:
        """The host's weights in its files, read one at a time."""
        return Weights(self.folder)

    def linear(self, point: str) -> Tensor:
        """The frozen weight at an insertion point, in the type it is stored in: (outputs,
        inputs).

        Raises:
            RunFailed: it is not finite.
        """
        place = self.geometry.linears[point]
        weight = self.weights[f"{place.path}.weight"]
        if not weight.isfinite().all():
            raise RunFailed(
                f"host {self.name}: its weight {place.path}.weight is not finite. Take another "
                "copy of it."
            )
        return place.part(weight.mT.contiguous() if place.transposed else weight)

    def seen_as(self, geometry: Geometry) -> Side:
        """The same host, with its fused layers as another geometry of it has them."""

        def seen(host: Host) -> Host:
            return replace(host, geometry=geometry)

        return replace(
            self,
            geometry=geometry,
            load=lambda: seen(self.load()),
            stream=lambda: seen(self.stream()),
        )


@dataclass(frozen=True)
class Means:
    """What a method may use beside the module.

    texts: unlabelled, in no order. source: where they are from, for the record. progress: told, now
    and then, what share of the work is done and what comes next. work: a folder for what is
    finished, so that a port that is killed can go on with it (`finished`); None to keep nothing.
    """

    origin: Side
    receiver: Side
    texts: tuple[str, ...] = field(default=(), repr=False)
    source: str = ""
    progress: Portion = field(default=lambda _share, _what: None, repr=False)
    work: Path | None = None


def side(name: str, device: str = "cpu") -> Side:
    """The host called `name` (lab, folder or hub) as a side of a port; nothing is loaded yet."""
    from peftport.hosts.host import load_host
    from peftport.hosts.streaming import stream_host

    folder = find_host(name).files()
    require_plain(folder, name)
    return Side(
        name,
        folder,
        geometry_in(folder, name),
        lambda: load_host(name, device),
        lambda: stream_host(name, device),
    )


def unread(*names: str) -> str | None:
    """Why the weights of one of these hosts cannot be read; None where nothing is known against
    it. Hosts that are not on this machine are not looked at."""
    for name in names:
        folder = folder_at_hand(name)
        if folder is not None and (why := unreadable(folder, name) or without_weights(name)):
            return why
    return None


def without_weights(name: str) -> str | None:
    """Why the weights of a host on this machine are none that are read, by the names of its files
    and what they say they hold; None where they are, and where there are none yet."""
    folder = folder_at_hand(name)
    there = ("*.bin", "*.safetensors", WEIGHTS_INDEX)
    if folder is None or not any(any(folder.glob(pattern)) for pattern in there):
        return None
    try:
        for file in weight_files(folder):
            read_header(file)
    except BadInput as error:
        return str(error).removesuffix(".")
    return None


def origin_side(host: HostName, device: str = "cpu") -> Side:
    """The host that a module is made for, as its record says, as a side of a port.

    A module whose files do not say its host's weights is taken at its word, with a notice.

    Raises:
        BadInput: the host cannot be found, or its weights are not those that the module was
            trained on.
    """
    try:
        found = side(host.name, device)
    except BadInput as error:
        raise BadInput(
            f"the module's own host is needed: {error} Say where it is with --from-host."
        ) from error
    mark = fingerprint(found.folder)
    require_host_of_module(host.name, host.fingerprint, mark)
    if not host.fingerprint:
        _log.warning(
            "notice: the module's files do not say its host's weights; %s is taken as it is "
            "(weights %s)",
            host.name,
            shown(mark),
        )
    return found

"""Port a module to another host by a method found by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules import HostName, Module, read_outline, versions
from peftport.porting.account import Account
from peftport.porting.base import PortMethod, Request
from peftport.registry import Registry

if TYPE_CHECKING:
    from peftport.porting.means import Means

METHODS = Registry(
    "port method",
    {
        "copy": "peftport.porting.copy:Copy",
        "scratch": "peftport.porting.controls:Scratch",
        "gaussian": "peftport.porting.controls:Gaussian",
        "permuted": "peftport.porting.controls:Permuted",
        "spectrum": "peftport.porting.controls:Spectrum",
        "sampled": "peftport.porting.controls:Gaussian",
    },
)
SAMPLINGS = ("gaussian", "permuted", "spectrum")


@dataclass(frozen=True)
class Ported:
    """A ported module and what became of its tensors."""

    module: Module
    account: Account


def port_method(name: str) -> PortMethod:
    """The port method called `name`; BadInput with what is known when there is none."""
    made: PortMethod = METHODS.get(name)()
    return made


def port(
    donor: Module,
    receiver: Geometry,
    host: HostName,
    method: str = "copy",
    *,
    seed: int = 0,
    allow_partial: bool = False,
    means: Means | None = None,
) -> Ported:
    """Rewrite a module for another host.

    Args:
        donor: the module, on its own host.
        receiver: geometry of the receiving host; `host` is its name and fingerprint.
        method: name of a port method or control.
        seed: of what the method draws.
        allow_partial: go on although tensors are dropped or initialised.
        means: both hosts and texts, for methods that need them.

    Raises:
        BadInput: the method is unknown, lacks what it needs, does not apply, or would carry over
            nothing or only a part. Controls are never partial where shapes agree.
    """
    made = port_method(method)
    require_means(made, means)
    shapes = {name: tuple(tensor.shape) for name, tensor in donor.tensors.items()}
    request = Request(donor.record, shapes, receiver)
    account = made.account(request)
    problem = made.problem(account)
    if problem and not allow_partial:
        raise BadInput(
            f"port by {made.name}: {problem}. Try another --method, or --allow-partial to go on "
            "with what is left."
        )
    generator = torch.Generator().manual_seed(seed)
    result = made.port(request, donor.tensors, generator, means)
    details = {
        "method": made.name,
        "seed": seed,
        "from": donor.record.host.model_dump(),
        "counts": result.account.counts(),
        **result.details,
    }
    record = donor.record.model_copy(
        update={
            "geometry": receiver.record(),
            "host": host,
            "seed": seed,
            "port": details,
            "versions": versions(),
            **result.record,
        }
    )
    return Ported(Module(record, result.tensors), result.account)


def require_means(method: PortMethod, means: Means | None) -> None:
    """Raise BadInput when a method lacks the hosts or the texts that it needs."""
    if method.needs and means is None:
        raise BadInput(f"port by {method.name} needs both hosts: {' and '.join(method.needs)}.")
    if "texts" in method.needs and means is not None and not means.texts:
        raise BadInput(
            f"port by {method.name} needs unlabelled texts: give a file or folder with --text."
        )


def outline(folder: Path, receiver: Geometry, method: str = "copy") -> Account:
    """What a port of the module in `folder` would do, told without reading any tensor's data."""
    record, shapes = read_outline(folder)
    return port_method(method).account(Request(record, shapes, receiver))

"""Port a module to another host by a method found by name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules import HostName, Module, versions
from peftport.porting.account import Account
from peftport.porting.base import PortMethod, Request
from peftport.porting.methods import judge, others, port_method

if TYPE_CHECKING:
    from peftport.porting.means import Means

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ported:
    """A ported module and what became of its tensors."""

    module: Module
    account: Account


def port(
    donor: Module,
    receiver: Geometry,
    host: HostName,
    method: str = "copy",
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    allow_partial: bool = False,
    means: Means | None = None,
) -> Ported:
    """Rewrite a module for another host.

    Args:
        donor: the module, on its own host.
        receiver: geometry of the receiving host; `host` is its name and fingerprint.
        method: name of a port method or control.
        options: the method's, by name; defaults for the others.
        seed: of what the method draws.
        allow_partial: go on although tensors are dropped or initialised.
        means: both hosts and texts, for methods that need them.

    Raises:
        BadInput: the method or an option is unknown, it lacks what it needs, does not apply, or
            would carry over nothing or only a part; the message names methods that apply.
            Controls are never partial where shapes agree.
    """
    made = port_method(method)
    shapes = {name: tuple(tensor.shape) for name, tensor in donor.tensors.items()}
    request = made.request(donor.record, shapes, receiver, options)
    _require_applies(made, request, allow_partial)
    _require_means(made, request, means)
    generator = torch.Generator().manual_seed(seed)
    result = made.port(request, donor.tensors, generator, means)
    details = {
        "method": made.name,
        "options": request.options.model_dump(mode="json"),
        "seed": seed,
        "from": donor.record.host.model_dump(),
        "task": donor.record.task["name"],
        "counts": result.account.counts(),
        **_texts(made, request, means),
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
    return Ported(_typed(Module(record, result.tensors)), result.account)


def _typed(module: Module) -> Module:
    """A module with the values that the donor's type holds, so that what is tested is what is
    written; in float32 where a value is beyond that type's."""
    if module.record.dtype == "float32":
        return module
    rounded = {name: t.to(torch.float32) for name, t in module.written(module.tensors).items()}
    if all(bool(tensor.isfinite().all()) for tensor in rounded.values()):
        return replace(module, tensors=rounded)
    _log.warning(
        "notice: the ported module has values beyond those of %s, the donor's type: it is written "
        "in float32",
        module.record.dtype,
    )
    return replace(module, record=module.record.model_copy(update={"dtype": "float32"}))


def _require_applies(method: PortMethod, request: Request, allow_partial: bool) -> None:
    """Raise BadInput when a method cannot port what is requested, or not all of it."""
    found = judge(method, request)
    if found.problem is None or (found.account is not None and allow_partial):
        return
    hint = others(request)
    if found.account is not None:
        hint += " With --allow-partial it goes on with what is left."
    raise BadInput(f"port by {method.name}: {found.problem}. {hint}")


def _texts(method: PortMethod, request: Request, means: Means | None) -> dict[str, Any]:
    """What the record says of the texts that a method looked at."""
    if means is None or "texts" not in method.requires(request.options):
        return {}
    return {"texts": {"count": len(means.texts), "source": means.source}}


def _require_means(method: PortMethod, request: Request, means: Means | None) -> None:
    """Raise BadInput when a method lacks the hosts or the texts that it needs."""
    needs = method.requires(request.options)
    if needs and means is None:
        raise BadInput(f"port by {method.name} needs both hosts: {' and '.join(sorted(needs))}.")
    if "texts" in needs and means is not None and not means.texts:
        raise BadInput(
            f"port by {method.name} needs unlabelled texts: give a file or folder with --text."
        )

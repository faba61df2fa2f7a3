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
from peftport.porting.base import Made, Need, PortMethod, Request
from peftport.porting.embeddings import Carried, carry
from peftport.porting.heads import head_of
from peftport.porting.methods import judge, others, port_method
from peftport.porting.rewriting import require_one, rewriting_of
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import brought, without_embeddings
from peftport.techniques.head import WEIGHT

if TYPE_CHECKING:
    from peftport.porting.means import Means

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PortedModule:
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
    rank: int | None = None,
    energy: float | None = None,
) -> PortedModule:
    """Rewrite a module for another host.

    Args:
        donor: the module, on its own host.
        receiver: geometry of the receiving host; `host` is its name and fingerprint.
        method: name of a port method or control.
        options: the method's, by name; defaults for the others.
        seed: of what the method draws.
        allow_partial: go on although tensors are dropped or initialised.
        means: both hosts and texts, for methods that need them.
        rank, energy: of a LoRA, cut it to that rank, or to the smallest that keeps such a share of
            every change; see `rank.cut`. Not both.

    Raises:
        BadInput: the method or an option is unknown, it lacks what it needs, does not apply, or
            would carry over nothing or only a part; the message names methods that apply.
            Controls are never partial where shapes agree.
    """
    made = port_method(method)
    if rank is not None or energy is not None:
        require_one(rank, energy)
    shapes = {name: tuple(tensor.shape) for name, tensor in donor.tensors.items()}
    request = made.request(donor.record, shapes, receiver, options)
    _require_applies(made, request, allow_partial)
    _require_means(made, request, means)
    carried = _carried(made, request, donor, means, seed)
    generator = torch.Generator().manual_seed(seed)
    whole = request.rewriting.parted(donor.tensors, request.origin)
    body = {name: whole[name] for name in request.shapes}
    asked = _as_asked(means, request, whole, carried)
    result = made.port(request, body, generator, asked)
    result = _with_besides(made, request, result, carried, allow_partial)
    result = request.rewriting.joined(result, request, receiver)
    result = replace(result, account=request.with_conversion(result.account))
    if rank is not None or energy is not None:
        result = _smaller(request, result, rank, energy)
    details = {
        "method": made.name,
        "options": request.options.model_dump(mode="json"),
        "seed": seed,
        "from": donor.record.host.model_dump(),
        "task": donor.record.task["name"],
        "counts": result.account.counts(),
        **_texts(made, request, means),
        **result.details,
        **({"before": donor.record.port} if donor.record.port else {}),
    }
    record = request.donor.model_copy(
        update={
            "embeddings": brought(result.tensors),
            "left_out": {},
            "geometry": receiver.record(),
            "host": host,
            "seed": seed,
            "port": details,
            "versions": versions(),
            **result.record,
        }
    )
    return PortedModule(_typed(Module(record, result.tensors)), result.account)


def _typed(module: Module) -> Module:
    """A module with the values that the donor's type holds, so that what is tested is what is
    written; in float32 where a value is beyond that type's."""
    if module.record.dtype == "float32":
        return module
    written = module.written(module.tensors)
    rounded = {name: t.to(module.tensors[name].dtype) for name, t in written.items()}
    if all(bool(tensor.isfinite().all()) for tensor in rounded.values()):
        return replace(module, tensors=rounded)
    _log.warning(
        "notice: the ported module has values beyond those of %s, the donor's type: it is written "
        "in float32",
        module.record.dtype,
    )
    return replace(module, record=module.record.model_copy(update={"dtype": "float32"}))


def _carried(
    method: PortMethod, request: Request, donor: Module, means: Means | None, seed: int
) -> Carried | None:
    """The embeddings that the donor brings along, on the receiving host; None where none go
    over."""
    if not _brings_rows(method, request):
        return None
    assert means is not None
    return carry(donor.tensors, means, method, request, seed)


def _brings_rows(method: PortMethod, request: Request) -> bool:
    """Whether embeddings go over."""
    return method.carries and any(entry.target for entry in method.besides(request))


def _as_asked(
    means: Means | None, request: Request, donor: Parameters, carried: Carried | None
) -> Means | None:
    """Both hosts with their fused layers as the request has them, and with what the module has
    there besides; a head that does not go over is none of it, for classes are read without."""
    if means is None:
        return None
    theirs = {n: t for n, t in donor.items() if n not in request.shapes and n != WEIGHT}
    origin = replace(means.origin, besides=theirs)
    receiver = replace(means.receiver, besides=carried.tensors if carried else {})
    if request.origin.split or request.receiver.split:
        origin, receiver = origin.seen_as(request.origin), receiver.seen_as(request.receiver)
    return replace(means, origin=origin, receiver=receiver)


def _smaller(request: Request, made: Made, rank: int | None, energy: float | None) -> Made:
    """What a method made, cut to a rank; BadInput where its technique has none."""
    name = made.record.get("technique", request.donor.technique)
    config = technique(name).configure(made.record.get("config", request.donor.config))
    smaller = rewriting_of(name).cut(made, config, rank, energy)
    if smaller is None:
        raise BadInput(f"a rank or an energy is of LoRA, and the module is of {name}.")
    return smaller


def _with_besides(
    method: PortMethod,
    request: Request,
    made: Made,
    carried: Carried | None,
    allow_partial: bool,
) -> Made:
    """What a method made, with the embeddings that go over.

    Raises:
        BadInput: tokens are not in the receiving host's vocabulary, and a partial port is not
            allowed.
    """
    if not method.carries:
        return made
    entries, tensors = method.besides(request), made.tensors
    if carried is not None:
        entries = tuple(e for e in entries if e.target is None) + carried.entries
        tensors = tensors | carried.tensors
    account = made.account.with_besides(entries)
    problem = None if allow_partial else method.problem(account)
    if problem is not None:
        raise BadInput(
            f"port by {method.name}: {problem}. `peftport port --allow-partial` goes on with what "
            "is left."
        )
    return replace(made, tensors=tensors, account=account)


def needs_of(method: PortMethod, request: Request) -> frozenset[Need]:
    """What a port needs: what its method does, and both hosts for embeddings that are carried."""
    requires = method.requires(request.options)
    return requires | {"weights"} if _brings_rows(method, request) else requires


def without_rows(donor: Module, why: BadInput) -> Module:
    """A module whose embeddings are among what is left out, with a notice that says why."""
    _log.warning("notice: the module's embeddings are left out: %s", why)
    left_out = donor.record.left_out | donor.record.embeddings
    record = donor.record.model_copy(update={"embeddings": {}, "left_out": left_out})
    return Module(record, without_embeddings(donor.tensors))


def without_head(ported: PortedModule, why: str) -> PortedModule:
    """A ported module whose head is left out, with a notice that says why."""
    _log.warning("notice: the module's head is left out: %s", why)
    head, account = head_of(ported.module.tensors), ported.account
    entries = tuple(
        replace(each, target=None, action="dropped", scale=None, why=why)
        if each.target in head
        else each
        for each in account.entries
    )
    record = ported.module.record
    port = (record.port or {}) | {"counts": replace(account, entries=entries).counts()}
    task = record.task | {"labels": []}
    record = record.model_copy(update={"head": "mean", "port": port, "task": task})
    kept = {name: t for name, t in ported.module.tensors.items() if name not in head}
    return PortedModule(Module(record, kept), replace(account, entries=entries))


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
    needs = needs_of(method, request)
    if needs and means is None:
        raise BadInput(f"port by {method.name} needs both hosts: {' and '.join(sorted(needs))}.")
    if "texts" in needs and means is not None and not means.texts:
        raise BadInput(
            f"port by {method.name} needs unlabelled texts: give a file or folder with --texts."
        )

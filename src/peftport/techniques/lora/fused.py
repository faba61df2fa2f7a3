"""Fused layers on one host and split ones on the other: q, k and v in one, gate and up in one.

LoRA on a fused layer is LoRA on each of its parts, with one A for all and the rows of B that are
the part's. So where two hosts differ in what they fuse, both are seen as if nothing of it were, the
module goes over part by part, and on a host that fuses them its parts are joined again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry, Linear, geometry_from_record, parts_of, split_at
from peftport.modules import Record
from peftport.porting.account import Entry
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import embeddings_among
from peftport.techniques.lora.core import Lora, LoraConfig, targets

if TYPE_CHECKING:
    from peftport.porting.base import Made, Request


def agreed(donor: Record, shapes: Shapes, receiver: Geometry) -> tuple[Record, Shapes, Geometry]:
    """A LoRA and the receiving host in the roles that both hosts have.

    Returns:
        The donor's record, on its host with fused layers split where they must be, with the roles
        that the receiving host has as its targets and tensors of others left out; its tensors'
        shapes; and the receiving host's geometry, split likewise.
    """
    origin = geometry_from_record(donor.geometry)
    there, here = _split(origin, receiver, _roles(_points(shapes)))
    shapes = dict(parted_shapes(shapes, there))
    roles = _roles(_points(shapes))
    wanted = sorted(roles & _roles(here.linears))
    if not wanted:
        return donor, shapes, receiver
    lost = {n: s for n, s in shapes.items() if "lora_" in n and _role(n) not in wanted}
    config = Lora().configure(donor.config)
    if not (_means(config, here, wanted) and _means(config, there, wanted)):
        config = config.model_copy(update={"targets": tuple(wanted)})
    record = donor.model_copy(
        update={
            "geometry": there.record(),
            "config": config.model_dump(mode="json"),
            "left_out": donor.left_out | lost,
        }
    )
    return record, {n: s for n, s in shapes.items() if n not in lost}, here


def _split(origin: Geometry, receiver: Geometry, had: set[str]) -> tuple[Geometry, Geometry]:
    """Both hosts with those layers split that only one of them fuses, or that they fuse otherwise.

    had: roles that the module has.
    """
    theirs, ours = _fused(origin), _fused(receiver)
    there = {
        role
        for role in had & theirs.keys()
        if role not in ours or _order(ours[role]) != _order(theirs[role])
    }
    touched = had | {part for role in there for part in parts_of(role)}
    here = {
        role
        for role in ours
        if role in there or (role not in had and touched & set(parts_of(role)))
    }
    return split_at(origin, there), split_at(receiver, here)


def _fused(geometry: Geometry) -> dict[str, Linear]:
    """The fused layers of a host by their role."""
    return {_role(p): linear for p, linear in geometry.linears.items() if linear.fused}


def _order(linear: Linear) -> tuple[int, str | None]:
    return linear.outputs, linear.fused


def _means(config: LoraConfig, geometry: Geometry, roles: list[str]) -> bool:
    """Whether a configuration's targets are these roles on a host, and no others."""
    try:
        return sorted(_roles(targets(config, geometry))) == roles
    except BadInput:
        return False


def parted_shapes(shapes: Shapes, origin: Geometry) -> Shapes:
    """Shapes of a module's tensors on its host with split layers."""
    meta = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return {name: tuple(tensor.shape) for name, tensor in parted(meta, origin).items()}


def parted(tensors: Mapping[str, Tensor], origin: Geometry) -> Parameters:
    """A module's tensors on its host with split layers: every part has the whole A and its own rows
    of B."""
    made: Parameters = {}
    for name, tensor in tensors.items():
        role = _role(name) if "lora_" in name else ""
        if role not in origin.split:
            made[name] = tensor
            continue
        layer, factor = ".".join(name.split(".")[:2]), name.rpartition(".")[2]
        for part in parts_of(role):
            linear = origin.linears[f"{layer}.{part}"]
            made[f"{layer}.{part}.{factor}"] = linear.part(tensor) if factor == "lora_B" else tensor
    return made


def as_fused(made: Made, request: Request, receiver: Geometry) -> Made:
    """What a method made of a LoRA, on the receiving host as it is."""
    if not (request.origin.split or request.receiver.split):
        return made
    config, tensors = made.record.get("config", request.donor.config), made.tensors
    if request.receiver.split:
        lora, tensors = join_parts(Lora().configure(config), tensors, request.receiver, receiver)
        config = lora.model_dump(mode="json")
    entries = told_whole(made.account.entries, request.origin, request.receiver, tensors)
    return replace(
        made,
        tensors=tensors,
        account=replace(made.account, entries=entries),
        record={**made.record, "config": config},
    )


def join_parts(
    config: LoraConfig, tensors: Parameters, split: Geometry, whole: Geometry
) -> tuple[LoraConfig, Parameters]:
    """A module of a host with split layers as one of the host as it is.

    Parts that have one A in common are stacked; otherwise their ranks add up, and every place gets
    the larger rank, with zeros, and so do embeddings.
    """
    points = targets(config, split)
    places = {point: _whole(point, split) for point in points}
    groups = {
        place: [point for point in points if places[point] == place] for place in places.values()
    }
    apart = {place for place, parts in groups.items() if not _one(tensors, parts)}
    rank = config.rank * max([len(groups[place]) for place in apart] or [1])
    made: Parameters = {n: t for n, t in tensors.items() if "lora_" not in n}
    for name, tensor in embeddings_among(tensors).items():
        if "lora_" in name:
            made[name] = _padded(tensor, rank, 0 if name.endswith("lora_A") else 1)
    for place, parts in groups.items():
        down, up = _joined(tensors, parts, split, whole.linears[place].outputs, place in apart)
        made[f"{place}.lora_A"] = _padded(down, rank, 0)
        made[f"{place}.lora_B"] = _padded(up, rank, 1)
    roles = tuple(sorted(_roles(groups)))
    update: dict[str, Any] = {} if _means(config, whole, list(roles)) else {"targets": roles}
    if rank != config.rank:
        update |= {"rank": rank, "alpha": config.scale * rank, "rslora": False}
    return config.model_copy(update=update), made


def _one(tensors: Parameters, parts: list[str]) -> bool:
    """Whether the parts of a layer have one A."""
    first = tensors[f"{parts[0]}.lora_A"]
    return all(torch.equal(first, tensors[f"{part}.lora_A"]) for part in parts[1:])


def _joined(
    tensors: Parameters, parts: list[str], split: Geometry, outputs: int, apart: bool
) -> tuple[Tensor, Tensor]:
    """The factors of a layer from those of its parts; what no part changes has zero rows."""
    downs = [tensors[f"{part}.lora_A"] for part in parts]
    rank = downs[0].shape[0]
    down = torch.cat(downs) if apart else downs[0]
    up = torch.zeros(outputs, len(down))
    for index, part in enumerate(parts):
        column, rows = index * rank if apart else 0, split.linears[part].rows
        given = tensors[f"{part}.lora_B"]
        spans = rows or ((0, outputs),)
        for (start, stop), piece in zip(spans, given.split([b - a for a, b in spans]), strict=True):
            up[start:stop, column : column + rank] = piece
    return down, up


def _padded(factor: Tensor, rank: int, axis: int) -> Tensor:
    """A factor with as many rows (columns) as the rank, zeros in those that it lacks."""
    more = list(factor.shape)
    more[axis] = rank - factor.shape[axis]
    return torch.cat([factor, factor.new_zeros(more)], dim=axis)


def told_whole(
    entries: Iterable[Entry], origin: Geometry, receiver: Geometry, tensors: Parameters
) -> tuple[Entry, ...]:
    """An account of parts as one of the layers that they are of.

    tensors: of the module on the receiving host as it is.
    """
    made = []
    for entry in entries:
        source = entry.source and _whole(entry.source, origin)
        target = entry.target and _whole(entry.target, receiver)
        parts = {n for n in (entry.source, entry.target) if n not in (None, source, target)}
        why = "; ".join(filter(None, [entry.why, f"part {', '.join(sorted(parts))}" * bool(parts)]))
        shape = tuple(tensors[target].shape) if target in tensors else entry.shape
        made.append(replace(entry, source=source, target=target, shape=shape, why=why))
    return tuple(made)


def _whole(name: str, geometry: Geometry) -> str:
    """The place or tensor of the fused layer that one is a part of; its own name else."""
    layer, _, rest = ".".join(name.split(".")[:2]), "", ".".join(name.split(".")[2:])
    for role in geometry.split:
        for part in parts_of(role):
            if rest == part or rest.startswith(f"{part}."):
                return f"{layer}.{role}{rest.removeprefix(part)}"
    return name


def _role(name: str) -> str:
    """ "decoder.3.self.q" or "decoder.3.self.q.lora_A" -> "self.q"."""
    rest = name.split(".", 2)[2]
    return rest.rpartition(".")[0] if ".lora_" in rest else rest


def _roles(points: Iterable[str]) -> set[str]:
    return {_role(point) for point in points}


def _points(shapes: Shapes) -> list[str]:
    return [name.removesuffix(".lora_A") for name in shapes if name.endswith(".lora_A")]

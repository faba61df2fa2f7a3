"""A smaller LoRA: every change of a weight cut to its largest singular values.

Eckart & Young 1936: of all changes of that rank, the nearest. What is lost is the share of the
change's squared norm in the singular values that are left out.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from peftport.porting.account import Account, Entry
from peftport.porting.base import Made
from peftport.porting.rewriting import require_one
from peftport.porting.svd import svd
from peftport.techniques.base import Parameters
from peftport.techniques.lora.core import LoraConfig


def cut(made: Made, config: LoraConfig, rank: int | None, energy: float | None) -> Made:
    """Cut a LoRA to a rank, or to the smallest at which every place keeps a share of its change.

    Args:
        config: of the module that was made.
        energy: share of the squared norm, above 0 and at most 1.

    Returns:
        The module with one rank for all places; its account says at every place what was lost, its
        details the rank and the losses by place. As it was, and with no losses, where its rank is
        no larger than that.

    Raises:
        BadInput: a rank below 1, an energy that is no share, or both or neither of them.
    """
    require_one(rank, energy)
    points = [n.removesuffix(".lora_A") for n in made.tensors if n.endswith(".lora_A")]
    parts = {point: _decomposed(made.tensors, point) for point in points}
    wanted = rank if rank is not None else max(_needed(p[1], energy or 1.0) for p in parts.values())
    if wanted >= config.rank:
        return replace(made, details={**made.details, "rank": config.rank, "rank_loses": {}})
    alpha = config.scale * (math.sqrt(wanted) if config.rslora else wanted)
    tensors, lost = dict(made.tensors), {}
    for point, (left, values, right) in parts.items():
        kept = min(wanted, len(values))
        root = values[:kept].sqrt()
        tensors[f"{point}.lora_B"] = _to(left[:, :kept] * root, wanted, 1)
        tensors[f"{point}.lora_A"] = _to(root[:, None] * right[:kept], wanted, 0)
        whole = float(values.square().sum())
        rest = float(values[wanted:].square().sum())
        lost[point] = round(rest / whole, 6) if whole else 0.0
    smaller = config.model_copy(update={"rank": wanted, "alpha": alpha})
    entries = tuple(_told(entry, tensors, wanted, lost) for entry in made.account.entries)
    return replace(
        made,
        tensors=tensors,
        account=Account(made.account.method, entries),
        record={**made.record, "config": smaller.model_dump(mode="json")},
        details={**made.details, "rank": wanted, "rank_loses": lost},
    )


def _decomposed(tensors: Parameters, point: str) -> tuple[Tensor, Tensor, Tensor]:
    """The singular value decomposition of B A by those of its factors, in double precision: left
    (outputs, rank), values (rank,), right (rank, inputs)."""
    up, down = (tensors[f"{point}.lora_{factor}"].double() for factor in "BA")
    outer, above = torch.linalg.qr(up)
    inner, below = torch.linalg.qr(down.mT)
    left, values, right = svd(above @ below.mT)
    return outer @ left, values, right @ inner.mT


def _needed(values: Tensor, energy: float) -> int:
    """The fewest singular values whose squares are at least that share of all; 1 at least."""
    squares = values.square().cumsum(0)
    if not squares[-1]:
        return 1
    enough = squares >= energy * squares[-1] * (1 - 1e-12)
    return int(enough.double().argmax()) + 1


def _to(factor: Tensor, rank: int, axis: int) -> Tensor:
    """A factor in single precision, with zeros up to the rank."""
    shape = list(factor.shape)
    shape[axis] = rank - factor.shape[axis]
    return torch.cat([factor, factor.new_zeros(shape)], dim=axis).float().contiguous()


def _told(entry: Entry, tensors: Parameters, rank: int, lost: dict[str, float]) -> Entry:
    """What is said of a tensor, with the loss at its place."""
    point = (entry.target or "").rpartition(".")[0]
    if entry.target is None or point not in lost:
        return entry
    action = "mapped" if entry.action == "copied" else entry.action
    said = f"cut to rank {rank}, which loses {lost[point]:.2%} of the change"
    why = "; ".join(filter(None, [entry.why, said]))
    return replace(entry, action=action, shape=tuple(tensors[entry.target].shape), why=why)

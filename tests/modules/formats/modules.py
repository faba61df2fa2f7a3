"""What the tests of formats share: modules with drawn tensors, and what they answer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from peftport.modules import HostName, Module, Record, versions
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.techniques.head import head_logits, head_shapes
from techniques.references import drawn, our_answer
from tiny_runs import CASES


def made(
    host: Any, case: str, head: str = "mean", classes: int = 2, seed: int = 0, **options: Any
) -> Module:
    """A module of one of `tiny_runs.CASES` with drawn tensors, folded as trained ones are."""
    name, usual = CASES[case]
    chosen = technique(name)
    config = chosen.configure(usual | options)
    shapes = chosen.shapes(config, host.geometry) | head_shapes(host.geometry, classes, head)
    config, tensors = chosen.fold(config, host.geometry, drawn(shapes, seed))
    host_name = HostName(name=str(host.folder), fingerprint=host.fingerprint)
    record = Record(
        technique=name,
        config=config.model_dump(mode="json"),
        geometry=host.geometry.record(),
        host=host_name,
        origin=host_name,
        task={"name": "opinions", "labels": list(range(classes)), "label_words": None},
        seed=7,
        training={"steps": 5, "learning_rate": 0.01},
        head=head,
        versions=versions(),
    )
    return Module(record, {name: tensor.contiguous() for name, tensor in tensors.items()})


def answer_of(module: Module, host: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Our answer with a module: class logits where it has a head, else as `our_answer`."""
    lane = stack_lanes([module.tensors])
    with torch.no_grad(), technique(module.technique).attach(host, module.config, lane):
        if "head.weight" not in module.tensors:
            return our_answer(host, inputs)
        mask = inputs["attention_mask"]
        return head_logits(host.token_states(**inputs), mask, lane)


def same(one: Module, other: Module) -> bool:
    """Whether two modules have the same tensors, bit for bit."""
    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()
    )


def silenced(module: Module) -> Module:
    """The module with all but its head at zero, of which only a prefix still acts."""
    tensors = {n: t if n.startswith("head.") else t * 0 for n, t in module.tensors.items()}
    return Module(module.record, tensors)

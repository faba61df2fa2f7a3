"""What the tests of formats share: modules with drawn tensors, and what they answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from peftport.errors import BadInput
from peftport.modules import HostName, Module, Record, load_module, versions
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.techniques.head import head_logits, head_shapes
from techniques.references import drawn, our_answer
from tiny_runs import CASES

CONFIG = "adapter_config.json"
PEFT, HUB = "adapter_model.safetensors", "adapter.safetensors"
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "adapterhub"


def made(
    host: Any, case: str, head: str = "mean", classes: int = 2, seed: int = 0, **options: Any
) -> Module:
    """A module of one of `tiny_runs.CASES` with drawn tensors, folded as trained ones are."""
    name, usual = CASES[case]
    chosen = technique(name)
    config = chosen.configure(usual | options)
    shapes = chosen.shapes(config, host.geometry) | head_shapes(host.geometry, classes, head)
    # Matrices as in the golden folders: larger ones make the softmax of a tiny host so steep that
    # rounding in single precision alone passes 1e-5.
    large = drawn(shapes, seed)
    smaller = {n: t * (1.0 if t.ndim == 1 else 0.6) for n, t in large.items()}
    config, tensors = chosen.fold(config, host.geometry, smaller)
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

    def bits(tensor: Tensor) -> Tensor:
        return tensor.contiguous().view(torch.int32)  # 0 and -0 are equal as numbers

    return one.tensors.keys() == other.tensors.keys() and all(
        torch.equal(bits(tensor), bits(other.tensors[name])) for name, tensor in one.tensors.items()
    )


def silenced(module: Module) -> Module:
    """The module with all but its head at zero, of which only a prefix still acts."""
    tensors = {n: t if n.startswith("head.") else t * 0 for n, t in module.tensors.items()}
    return Module(module.record, tensors)


def change(folder: Path, file: str = CONFIG, **changes: Any) -> None:
    """Change keys of a configuration; `config__x` is x in its `config`."""
    content = json.loads((folder / file).read_text())
    for key, value in changes.items():
        outer, _, inner = key.partition("__")
        (content[outer] if inner else content)[inner or outer] = value
    (folder / file).write_text(json.dumps(content))


def read_apart(file: Path) -> dict[str, torch.Tensor]:
    """Tensors that do not change when their file is written over."""
    return {name: tensor.clone() for name, tensor in load_file(file).items()}


def respell(file: Path, changes: dict[str, Any]) -> None:
    """Change tensors of a file; None takes one away."""
    tensors = read_apart(file) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)


def refused(folder: Path, message: str, **options: Any) -> None:
    """Reading refuses a folder with the message."""
    with pytest.raises(BadInput, match=message):
        load_module(folder, **options)

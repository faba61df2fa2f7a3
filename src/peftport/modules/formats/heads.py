"""Classification heads as transformers' own model classes have them.

A sequence classifier reads the first token through a dense layer and tanh: RoBERTa's has that layer
in its head, BERT's is the pooler, which belongs to the host unless the module holds one. A token
classifier is a linear layer at every token; the mean of its logits over the text is what
peftport's own head computes, and how that head is written. Decoders' sequence classifiers read the
last token through one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import by_library
from peftport.hosts.fingerprint import read_header, weight_files
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.base import Folder
from peftport.modules.module import Module
from peftport.techniques.base import Parameters
from peftport.techniques.head import BIAS, DENSE_BIAS, DENSE_WEIGHT, WEIGHT, Pooling

Kind = Literal["sequence", "token"]
SCORE = "score.weight"
"""The head of transformers' sequence classifiers that are decoders: at the last token."""

_LINEAR = {"classifier.weight": WEIGHT, "classifier.bias": BIAS}
_POOLER = {"pooler.dense.weight": DENSE_WEIGHT, "pooler.dense.bias": DENSE_BIAS}
_WITH_DENSE = {
    "classifier.dense.weight": DENSE_WEIGHT,
    "classifier.dense.bias": DENSE_BIAS,
    "classifier.out_proj.weight": WEIGHT,
    "classifier.out_proj.bias": BIAS,
}


def read_classifier(
    folder: Folder, path: Path, tensors: Mapping[str, Tensor], kind: Kind | None
) -> tuple[Pooling, Parameters]:
    """Read the head among tensors that are named as in the model with the head.

    Args:
        path: the file they are from. tensors: all that is not the module itself.
        kind: of the model class that they are from, as far as it is known.

    Raises:
        BadInput: a tensor is none of a head's that peftport reads; the message names it.
    """
    if not tensors:
        return "mean", {}
    geometry, first = folder.geometry, next(iter(tensors))
    if geometry.kind == "decoder" and tensors.keys() == {SCORE}:
        return "last", {WEIGHT: tensors[SCORE]}
    if geometry.kind != "encoder" or kind is None:
        raise BadInput(
            f"{path}: tensor {first!r} belongs to no place of a {geometry.family} host that "
            "peftport reads: classification heads are read on encoders, of sequence and token "
            "classifiers."
        )
    inner = {name.removeprefix(f"{geometry.prefix}."): t for name, t in tensors.items()}
    shape = _shape_of(geometry, kind, f"{path}: tensor {first!r}: ")
    if kind == "token":
        return "mean", _named(inner, _LINEAR, path)
    if shape == "dense":
        return "first", _named(inner, _WITH_DENSE, path)
    if inner.keys() & _POOLER.keys():
        return "first", _named(inner, _LINEAR | _POOLER, path)
    return "first", _named(inner, _LINEAR, path) | host_pooler(folder)


def head_names(geometry: Geometry, kind: Kind | None) -> frozenset[str]:
    """Names that a head's tensors may have in the model with the head, of a class of that kind."""
    if kind is None or geometry.kind == "encoder-decoder":
        return frozenset()
    if geometry.kind == "decoder":
        return frozenset({SCORE} if kind == "sequence" else ())
    names = _LINEAR if kind == "token" else _LINEAR | _POOLER | _WITH_DENSE
    prefix = geometry.prefix
    return frozenset(f"{before}{name}" for name in names for before in ("", f"{prefix}."))


def written_classifier(module: Module) -> tuple[Kind | None, Parameters]:
    """The head under the names that it has in the model with the head, and that model's kind."""
    if WEIGHT not in module.tensors:
        return None, {}
    if module.record.head == "last":
        return "sequence", {SCORE: module.tensors[WEIGHT]}
    kind: Kind = "token" if module.record.head == "mean" else "sequence"
    try:
        names, shape = _LINEAR, _shape_of(module.geometry, kind)
    except BadInput as error:
        raise BadInput(
            f"{error} The head can be kept in peftport's own format alone (--format peftport)."
        ) from error
    if shape == "dense":
        names = _WITH_DENSE
    elif shape == "pooler":
        before = module.geometry.prefix
        names = _LINEAR | {f"{before}.{name}": ours for name, ours in _POOLER.items()}
    return kind, {name: module.tensors[ours] for name, ours in names.items()}


def saved_modules(module: Module) -> list[str] | None:
    """The parts of the model with the head that `written_classifier` holds the tensors of."""
    kind, _ = written_classifier(module)
    if kind is None:
        return None
    if module.geometry.kind == "decoder":
        return ["score"]
    in_pooler = _shape_of(module.geometry, kind) == "pooler"
    return ["classifier", "pooler"] if in_pooler else ["classifier"]


def host_pooler(folder: Folder) -> Parameters:
    """The pooler of the module's host as a head's dense layer; BadInput when it has none."""
    prefix = folder.geometry.prefix
    found = {}
    for name, ours in _POOLER.items():
        tensor = host_tensor(folder, (name, f"{prefix}.{name}"))
        if tensor is None:
            folder.refuse(
                folder.host_key,
                f"the module's head stands on the pooler of {folder.host_name}, which has none; "
                "its pooler was drawn at random when the module was trained, and was not kept",
            )
        found[ours] = tensor
    return found


def host_tensor(folder: Folder, names: tuple[str, ...]) -> Tensor | None:
    """One weight of the host, by the first of its names that there is; nothing else is read."""
    for file in weight_files(folder.host_files()):
        header, _ = read_header(file)
        for name in names:
            if name not in header:
                continue
            if not folder.data:
                return torch.empty(header[name]["shape"], device="meta")
            with by_library(f"{file} cannot be read"), safe_open(file, "pt") as weights:
                tensor: Tensor = weights.get_tensor(name)
                return tensor.to(torch.float32, copy=True)
    return None


def _shape_of(geometry: Geometry, kind: Kind, where: str = "") -> str:
    """How a family's classifier of a kind is built: "linear", "dense" or "pooler".

    where: beginning of the message where that is not known.
    """
    shapes: dict[str, str] = geometry.trait("heads") or {}
    if kind not in shapes:
        raise BadInput(
            f"{where}how {kind} classifiers of {geometry.family} hosts are built is not known here."
        )
    return shapes[kind]


def _named(tensors: Parameters, names: Mapping[str, str], path: Path) -> Parameters:
    """Tensors under peftport's names; BadInput names one that is missing or surplus."""
    for name in tensors:
        if name not in names:
            raise BadInput(f"{path}: tensor {name!r} is none of the module's nor of its head's.")
    for name in names:
        if name not in tensors:
            raise BadInput(f"{path} lacks tensor {name!r} of the module's head.")
    return {ours: tensors[name] for name, ours in names.items()}


def classes_of(head: Parameters) -> tuple[int, ...]:
    """Labels that only say how many classes a head has."""
    return tuple(range(head[WEIGHT].shape[0])) if WEIGHT in head else ()

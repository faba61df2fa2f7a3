"""Classification heads as transformers' own model classes have them.

A sequence classifier reads the first token through a dense layer and an activation, tanh mostly.
RoBERTa's has that layer in its head, BERT's is the pooler, which belongs to the host unless the
module holds one. The family's data file says where the layer is and what follows it. A token
classifier is a linear layer at every token; the mean of its logits over the text is what
peftport's own head computes, and how that head is written. Decoders' sequence classifiers read the
last token through one matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import by_library
from peftport.hosts.fingerprint import read_header, weight_files
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.base import HEAD_ADVICE, Folder
from peftport.modules.module import Module
from peftport.techniques.base import Parameters
from peftport.techniques.head import BIAS, DENSE, WEIGHT, Pooling, pooling_by

Kind = Literal["sequence", "token"]
SCORE = "score.weight"
"""The head of transformers' sequence classifiers that are decoders: at the last token."""

_OUT = "classifier"
_PLACES = (
    *("classifier.dense", "classifier.out_proj", "pooler.dense", "pooler", "pre_classifier"),
    *("head.dense", "head.norm"),
)
"""Where sequence classifiers have their layers."""


@dataclass(frozen=True)
class SequenceHead:
    """How a family's sequence classifiers are built, as its data file says.

    Attributes:
        dense: path of the layer at the first token. out: of the one that gives the classes.
        activation: between the two. norm: path of a norm behind it.
        reads: what the dense layer does: the first token ("cls") or the text's mean.
        inside: whether the dense layer is one of the bare model's.
    """

    dense: str
    out: str = _OUT
    activation: str = "tanh"
    norm: str | None = None
    reads: str = "cls"
    inside: bool = False

    @property
    def known(self) -> bool:
        """Whether peftport has such a head."""
        return pooling_by(self.activation, self.reads, self.norm is not None) is not None

    @property
    def pooling(self) -> Pooling:
        """What a module's record says of such a head."""
        found = pooling_by(self.activation, self.reads, self.norm is not None)
        assert found is not None, "`sequence_head` gives none that is not known"
        return found

    @property
    def dense_names(self) -> dict[str, str]:
        """The dense layer's tensors: name in the model with the head -> name here."""
        dense = DENSE[self.pooling]
        named = {f"{self.dense}.weight": dense.weight}
        named |= {f"{self.dense}.bias": dense.bias} if dense.bias else {}
        return named | ({f"{self.norm}.weight": dense.norm} if dense.norm else {})

    @property
    def out_names(self) -> dict[str, str]:
        """The same of the layer that gives the classes."""
        return _linear(self.out)

    @property
    def parts(self) -> list[str]:
        """The parts of the model with the head that hold the two layers."""
        return list(dict.fromkeys(path.partition(".")[0] for path in (self.out, self.dense)))


def _linear(path: str) -> dict[str, str]:
    return {f"{path}.weight": WEIGHT, f"{path}.bias": BIAS}


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
    if kind == "token":
        _require_token_head(geometry, f"{path}: tensor {first!r}: ")
        return "mean", _named(inner, _linear(_OUT), path)
    head = sequence_head(geometry, f"{path}: tensor {first!r}: ")
    if len(head.parts) == 1 or inner.keys() & head.dense_names.keys():
        return head.pooling, _named(inner, head.out_names | head.dense_names, path)
    return head.pooling, _named(inner, head.out_names, path) | host_dense(folder, head)


def head_names(geometry: Geometry, kind: Kind | None) -> frozenset[str]:
    """Names that a head's tensors may have in the model with the head, of a class of that kind."""
    if kind is None or geometry.kind == "encoder-decoder":
        return frozenset()
    if geometry.kind == "decoder":
        return frozenset({SCORE} if kind == "sequence" else ())
    paths = (_OUT,) if kind == "token" else (_OUT, *_PLACES)
    names = [name for path in paths for name in _linear(path)]
    prefix = geometry.prefix
    return frozenset(f"{before}{name}" for name in names for before in ("", f"{prefix}."))


def written_classifier(module: Module) -> tuple[Kind | None, Parameters]:
    """The head under the names that it has in the model with the head, and that model's kind."""
    if WEIGHT not in module.tensors:
        return None, {}
    geometry, pooling = module.geometry, module.record.head
    if problem := classifier_problem(geometry, pooling):
        raise BadInput(f"{problem}. {HEAD_ADVICE}")
    kind: Kind = "token" if pooling == "mean" else "sequence"
    names = _written_names(geometry, pooling)
    return kind, {name: module.tensors[ours] for name, ours in names.items()}


def classifier_problem(geometry: Geometry, pooling: Pooling) -> str | None:
    """Why transformers has no classifier with a head that pools so, on such a host; None where it
    has."""
    try:
        _written_names(geometry, pooling)
    except BadInput as error:
        return str(error).removesuffix(".")
    return None


def _written_names(geometry: Geometry, pooling: Pooling) -> dict[str, str]:
    """Names of a head's tensors in the model with the head, and here; BadInput where such models
    are not known, or have another activation."""
    if pooling == "last":
        return {SCORE: WEIGHT}
    if pooling == "mean":
        _require_token_head(geometry)
        return _linear(_OUT)
    head = sequence_head(geometry)
    if head.pooling != pooling:
        raise BadInput(
            f"the module's head has {_behind(pooling)} behind its dense layer, and sequence "
            f"classifiers of {geometry.family} hosts{_told(geometry)} have {_behind(head.pooling)}."
        )
    before = f"{geometry.prefix}." if head.inside else ""
    return head.out_names | {f"{before}{name}": n for name, n in head.dense_names.items()}


def saved_modules(module: Module) -> list[str] | None:
    """The parts of the model with the head that `written_classifier` holds the tensors of."""
    kind, _ = written_classifier(module)
    if kind is None:
        return None
    if module.geometry.kind == "decoder":
        return ["score"]
    return [_OUT] if kind == "token" else sequence_head(module.geometry).parts


def host_dense(folder: Folder, head: SequenceHead) -> Parameters:
    """The dense layer of a head that is the host's own; BadInput when it has none."""
    prefix = folder.geometry.prefix
    found = {}
    for name, ours in head.dense_names.items():
        tensor = host_tensor(folder, (name, f"{prefix}.{name}"))
        if tensor is None:
            part = head.dense.partition(".")[0]
            folder.refuse(
                folder.host_key,
                f"the module's head stands on the {part} of {folder.host_name}, which has none; "
                f"its {part} was drawn at random when the module was trained, and was not kept",
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


def sequence_head(geometry: Geometry, where: str = "") -> SequenceHead:
    """How sequence classifiers of a family are built.

    Args:
        where: beginning of the message where that is not known.
    """
    usual = (geometry.trait("heads") or {}).get("sequence")
    if usual is None:
        raise BadInput(
            f"{where}how sequence classifiers of {geometry.family} hosts are built is not known "
            "here."
        )
    told = usual.get("told_by", {})
    parts = {part: geometry.head[key] for part, key in told.items() if key in geometry.head}
    built = {part: value for part, value in usual.items() if part not in ("told_by", "needs")}
    head = SequenceHead(**built | parts)
    if not head.known or geometry.head.keys() - told.values():
        raise BadInput(
            f"{where}sequence classifiers of {geometry.family} hosts{_told(geometry)} are built "
            "as none that peftport has."
        )
    return head


def _told(geometry: Geometry) -> str:
    """What a host's configuration says of its classifiers that is not as its family has it."""
    said = " and ".join(f"{key} {value!r}" for key, value in geometry.head.items())
    return f" with {said}" if said else ""


def _behind(pooling: Pooling) -> str:
    """What follows a head's dense layer, in words."""
    dense = DENSE[pooling]
    normed = " and a norm" if dense.norm else ""
    return f"{dense.activation}{normed}{', of the mean,' if dense.reads == 'mean' else ''}"


def _require_token_head(geometry: Geometry, where: str = "") -> None:
    """Raise BadInput where a family's token classifiers are not known to be one linear layer."""
    if (geometry.trait("heads") or {}).get("token") != "linear":
        raise BadInput(
            f"{where}how token classifiers of {geometry.family} hosts are built is not known here."
        )


def _named(tensors: Parameters, names: Mapping[str, str], path: Path) -> Parameters:
    """Tensors under peftport's names; BadInput names one that is missing or surplus."""
    for name in tensors:
        if name not in names:
            raise BadInput(f"{path}: tensor {name!r} is none of the module's nor of its head's.")
    for name in names:
        if name not in tensors:
            raise BadInput(f"{path} lacks tensor {name!r} of the module's head.")
    return {ours: tensors[name] for name, ours in names.items()}


def classes_of(head: Parameters, path: Path) -> tuple[int, ...]:
    """Labels that only say how many classes a head has; BadInput where its weight is no matrix.

    Args:
        path: the file that it is from.
    """
    if WEIGHT not in head:
        return ()
    shape = tuple(head[WEIGHT].shape)
    if len(shape) != 2:
        raise BadInput(
            f"{path}: the weight of the head has shape {shape}, expected classes, width."
        )
    return tuple(range(shape[0]))

"""What a PEFT file has besides the technique's own tensors: a head, embeddings, and other parts of
the host that were saved with it.

peft saves both embeddings by itself when a vocabulary grew, trained or not, and whatever
`modules_to_save` names. What equals the host's own says nothing and is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.fingerprint import read_header, weight_files
from peftport.hosts.geometry import Geometry
from peftport.hosts.towers import without_towers
from peftport.modules.formats.base import Folder
from peftport.modules.formats.heads import Kind, head_names, read_classifier
from peftport.modules.formats.names import bare_name
from peftport.modules.formats.places import Places
from peftport.modules.formats.weights import BLOCK, blocks
from peftport.modules.module import Module
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import INPUT, OUTPUT
from peftport.techniques.head import Pooling

TOKEN_ROWS = ".token_adapter.trainable_tokens_delta"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rest:
    """A head, trained embeddings, and the shapes of what cannot be carried, by name."""

    pooling: Pooling = "mean"
    head: Parameters = field(default_factory=dict)
    embeddings: Parameters = field(default_factory=dict)
    left_out: Shapes = field(default_factory=dict)


def embedding_paths(geometry: Geometry) -> dict[str, str]:
    """The embeddings of a host: name here -> path in the host."""
    found = geometry.embeddings
    sides = {INPUT: found.get("input"), OUTPUT: found.get("output")}
    return {side: path for side, path in sides.items() if path is not None}


@dataclass(frozen=True)
class WrittenEmbeddings:
    """A module's embeddings as peft has them: tensors by their names in the model, the parts of
    the model that are saved whole, those that have low-rank factors, and the tokens whose rows
    others have."""

    tensors: Parameters
    saved: list[str]
    targets: list[str]
    tokens: dict[str, list[int]]


def written_embeddings(module: Module, before: str = "") -> WrittenEmbeddings:
    """The embeddings that a module brings along.

    Args:
        before: what stands before the host's paths in the model that the module is written for.
    """
    made = WrittenEmbeddings({}, [], [], {})
    for side, path in embedding_paths(module.geometry).items():
        if f"{side}.weight" in module.tensors:
            made.tensors[f"{before}{path}.weight"] = module.tensors[f"{side}.weight"]
            made.saved.append(path.rpartition(".")[2])
        if f"{side}.rows" in module.tensors:
            made.tensors[f"{before}{path}{TOKEN_ROWS}"] = module.tensors[f"{side}.rows"]
            made.tokens[path.rpartition(".")[2]] = module.tensors[f"{side}.tokens"].tolist()
        if f"{side}.lora_A" in module.tensors:
            made.targets.append(path.rpartition(".")[2])
            for factor in "AB":
                kind = f"lora_embedding_{factor}" if side == INPUT else f"lora_{factor}.weight"
                tensor = module.tensors[f"{side}.lora_{factor}"]
                made.tensors[f"{before}{path}.{kind}"] = tensor
    return made


def read_rest(folder: Folder, path: Path, tensors: Mapping[str, Tensor], kind: Kind | None) -> Rest:
    """Sort the tensors of a file that are none of the technique's.

    Args:
        path: the file they are from. tensors: by their names in the model with the head.
        kind: of the model class that they are from, as far as it is known.

    Raises:
        BadInput: a tensor is one of LoRA's that peftport does not know, or a head is not whole.
    """
    for name in tensors:
        if ".lora_" in name and not name.endswith((".lora_A", ".lora_B")):
            raise BadInput(
                f"{path}: tensor {name!r} belongs to a variant of LoRA that peftport does not read."
            )
    named = head_names(folder.geometry, kind)
    head = {name: tensor for name, tensor in tensors.items() if name in named}
    pooling, read, left_out = _head(folder, path, head, kind)
    others = {name: tensor for name, tensor in tensors.items() if name not in head}
    if not others:
        return Rest(pooling, read, left_out=left_out)
    sides = Places(
        {f"{side}.weight": f"{p}.weight" for side, p in embedding_paths(folder.geometry).items()}
    )
    host = _HostRows(folder)
    embeddings, own = {}, []
    for name, tensor in others.items():
        side = sides.find(name)
        if host.has(path, name, side):
            own.append(name)
        elif side is not None:
            embeddings[side] = tensor
        else:
            left_out[name] = tuple(tensor.shape)
    if own:
        _log.info(
            "notice: %s: %s not trained, as in %s, and left out%s",
            *(path, _listed(own), folder.host_name, host.grown),
        )
    return Rest(pooling, read, embeddings, left_out)


def _head(
    folder: Folder, path: Path, head: Parameters, kind: Kind | None
) -> tuple[Pooling, Parameters, Shapes]:
    """The head, or the shapes of what it has where it cannot be read and may be left out."""
    try:
        return *read_classifier(folder, path, head, kind), {}
    except BadInput as error:
        if not folder.partial:
            raise BadInput(
                f"{error} With `peftport port --allow-partial` the module is read without its "
                f"head ({', '.join(list(head)[:3])}), and the account says so."
            ) from error
        _log.warning("notice: %s: the head is left out: %s", path, error)
        return "mean", {}, {name: tuple(tensor.shape) for name, tensor in head.items()}


class _HostRows:
    """The weights of a module's host, for comparing; without any where they are not at hand.

    grown: what is to be said of rows that the host does not have.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.grown = ""
        try:
            self._files = weight_files(folder.host_files())
        except BadInput as error:
            self._files = []
            _log.warning(
                "notice: what was trained with the module cannot be told from what was not, "
                "without its host's weights: %s",
                error,
            )

    def has(self, path: Path, name: str, side: str | None) -> bool:
        """Whether a tensor of a file has the values of the host's weight of that name.

        Rows beyond the host's do not count: they are a grown vocabulary's, of which the host's
        tokenizer knows nothing.
        """
        own, geometry = self._weight(name, side), self._folder.geometry
        if own is None:
            return False
        stored, rows = blocks(path, lambda each: bare_name(each, geometry) == name), 0
        for ours, theirs in zip(own, stored, strict=False):
            both = min(len(ours), len(theirs))
            if not _same(ours[:both], theirs[:both]):
                return False
            rows += len(theirs) - both
        rows += sum(len(more) for more in stored)
        if rows:
            self.grown = f"; {rows} rows of tokens that the host does not have likewise"
        return True

    def _weight(self, name: str, side: str | None) -> Iterator[Tensor] | None:
        """The rows of a weight, some at a time, as stored; None where the host has no such."""
        prefix = self._folder.geometry.prefix
        names = [name]
        if side is not None:
            paths = embedding_paths(self._folder.geometry)
            tied = [paths[INPUT]] if side == f"{OUTPUT}.weight" else []  # its files have one
            names = [f"{p}.weight" for p in (paths[side.removesuffix(".weight")], *tied)]
        for each in map(without_towers, names):
            for spelt in (each, f"{prefix}.{each}", each.removeprefix(f"{prefix}.")):
                for file in self._files:
                    for stored in read_header(file)[0]:
                        if without_towers(stored) == spelt:
                            return _rows(file, stored)
        return None


def _rows(file: Path, name: str) -> Iterator[Tensor]:
    with safe_open(file, framework="pt") as opened:
        part = opened.get_slice(name)
        for start in range(0, part.get_shape()[0], BLOCK):
            yield part[start : start + BLOCK]


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same values, as far as the coarser type tells."""
    return torch.equal(one.to(other.dtype), other) or torch.equal(other.to(one.dtype), one)


def _listed(names: list[str]) -> str:
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:3])}{', ...' * (len(names) > 3)} {verb}"

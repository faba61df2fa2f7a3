"""A LoRA module merged into its host: a plain model folder, whole shards at a time.

W' = W + scale * B A (Hu et al. 2021, arXiv 2106.09685), added in single precision and rounded once
to the type that the weight is stored in. peft rounds the change first and adds then, which in half
precision may differ in the last bit.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from peftport.errors import BadInput
from peftport.files import new_folder, write_atomic, write_json
from peftport.hosts.fingerprint import read_header, weight_files
from peftport.hosts.geometry import Geometry
from peftport.hosts.weights import Weights
from peftport.modules.card import merged_card
from peftport.modules.module import Module
from peftport.techniques import technique
from peftport.techniques.base import WeightChange
from peftport.techniques.head import BIAS, WEIGHT

SHARD = 2 << 30
"""Bytes of weights in a file, at most, unless one tensor alone is larger."""
_NAME, _INDEX = "model.safetensors", "model.safetensors.index.json"
_COPIED = (".json", ".txt", ".model", ".jinja")


@dataclass(frozen=True)
class MergedFiles:
    """What was written: how many weights the module changed, the bytes and files of all, and the
    types that they are stored in."""

    changed: int
    bytes: int
    shards: int
    types: tuple[str, ...]


def merge(
    module: Module,
    host: Path,
    geometry: Geometry,
    out: Path,
    *,
    name: str,
    shard: int = SHARD,
) -> MergedFiles:
    """Add a module to the weights of its host and write the sum as a model's folder.

    No more than one shard is in memory.

    Args:
        module: LoRA. host: folder of the host's files. name: of the host, for the card.
        out: a new folder. shard: bytes of weights in a file, at most.

    Raises:
        BadInput: the module is not LoRA, is made for another geometry, has a head, or `out`
            exists already.
    """
    changes = _require_mergeable(module, geometry)
    weights = Weights(host)
    points = {
        weights.stored_name(f"{geometry.linears[point].path}.weight"): point for point in changes
    }
    places, types = _places(host)
    sizes = {stored: size for stored, (_, size) in places.items()}
    shards = _planned(sizes, shard)
    with new_folder(out) as folder:
        _copy_rest(host, folder)
        for file, names in shards.items():
            tensors = {n: _read(places[n][0], n) for n in names}
            for stored in points.keys() & tensors.keys():
                linear = geometry.linears[points[stored]]
                change = changes[points[stored]].of(module.tensors)
                tensors[stored] = _merged(
                    stored, tensors[stored], change.mT if linear.transposed else change
                )
            save_file(tensors, folder / file, metadata={"format": "pt"})
        if len(shards) > 1:
            index = {n: file for file, names in shards.items() for n in names}
            total = {"total_size": sum(sizes.values())}
            write_json(folder / _INDEX, {"metadata": total, "weight_map": index})
        write_atomic(folder / "README.md", merged_card(module.record, name).encode())
    return MergedFiles(len(points), sum(sizes.values()), len(shards), types)


def _require_mergeable(module: Module, geometry: Geometry) -> dict[str, WeightChange]:
    """What a module changes of the host's weights; BadInput where that is not all it is."""
    changes = technique(module.technique).changes(module.config, module.geometry)
    if not changes:
        raise BadInput(
            f"{module.technique} cannot be merged: it acts beside the host's weights. Only LoRA "
            "can; others are loaded with the host."
        )
    if module.geometry != geometry:
        raise BadInput(
            f"the module is made for {module.record.host.name}, and the host is of another "
            "geometry: port it first."
        )
    if WEIGHT in module.tensors:
        raise BadInput(
            "the module has a head, for which a plain model has no place: load the two together, "
            "as the module's README says."
        )
    factors = {name for change in changes.values() for name in change.tensors}
    others = sorted(module.tensors.keys() - factors - {BIAS})
    if others:
        raise BadInput(
            f"the module holds {others[0]!r} beside its factors ({len(others)} such tensors), "
            "which is not merged: load the module with its host."
        )
    return changes


def _merged(name: str, weight: Tensor, change: Tensor) -> Tensor:
    """A weight with a change of it, in the type that it came in; BadInput where that type does not
    hold the sum."""
    made = (weight.float() + change).to(weight.dtype)
    if not made.isfinite().all() and weight.isfinite().all():
        raise BadInput(
            f"{name}: with the module's change it has values that {weight.dtype}, the type of the "
            "host's weights, does not hold. Merge into a host stored in bfloat16 or float32."
        )
    return made.contiguous()


def _read(file: Path, name: str) -> Tensor:
    """One tensor of a file, of whatever type."""
    with safe_open(file, framework="pt") as opened:
        found: Tensor = opened.get_tensor(name)
    return found


def _places(host: Path) -> tuple[dict[str, tuple[Path, int]], tuple[str, ...]]:
    """File and bytes of each of the host's tensors, and the types that they are stored in."""
    places, types = {}, set()
    for file in weight_files(host):
        header, _ = read_header(file)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            places[name] = (file, end - begin)
            types.add(entry["dtype"])
    return places, tuple(sorted(types))


def _planned(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
    """File -> names of its tensors, in the order of the host's files."""
    groups: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if groups[-1] and filled + size > limit:
            groups.append([])
            filled = 0
        groups[-1].append(name)
        filled += size
    if len(groups) == 1:
        return {_NAME: groups[0]}
    count = len(groups)
    return {f"model-{n:05d}-of-{count:05d}.safetensors": g for n, g in enumerate(groups, 1)}


def _copy_rest(host: Path, folder: Path) -> None:
    """Configuration and tokenizer, and nothing that speaks of the host's own weights."""
    for file in sorted(host.iterdir()):
        speaks_of_weights = file.name.endswith(".index.json") or _is_record(file)
        if file.is_file() and file.suffix in _COPIED and not speaks_of_weights:
            shutil.copyfile(file, folder / file.name)


def _is_record(file: Path) -> bool:
    from peftport.hosts.genealogy import RECORD

    return file.name == RECORD

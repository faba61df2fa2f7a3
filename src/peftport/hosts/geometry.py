"""The shape of a host: its layers, widths and insertion points.

A family (`families/*.json`) names the roles of layers: under which module paths the linear layers,
attentions and blocks lie. Their sizes are read off the host's own skeleton (`skeleton.py`), so that
what a configuration leaves out is what the model class makes of it. Insertion points get names that
all families share: `encoder.0.self.q`, `decoder.2.cross.o`, `decoder.1.ffn.down`. A host of no
known family has the names of its own layers: `decoder.0.self_attn.q_proj`.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

from peftport.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

LARGEST, LAYERS = 2**31 - 1, 2000
"""More than any host has, of any size and of layers in a stack: what claims more is no host."""
SIZES = ("width", "vocabulary", "heads", "kv_heads", "head_dim", "ffn")


@dataclass(frozen=True)
class Linear:
    """A frozen linear layer of a host.

    `transposed`: the weight is stored (inputs, outputs), as GPT-2's Conv1D does.
    `fused`: the order of the outputs of a layer that is several in one. "blocks": all queries, then
    all keys, then all values (gates, then what they are multiplied with). "groups": for each key
    head its queries, its key, its value. `rows`: spans of the layer's outputs where this is a part
    of it alone, whose `outputs` they are.
    """

    path: str
    inputs: int
    outputs: int
    transposed: bool = False
    fused: str | None = None
    rows: tuple[tuple[int, int], ...] | None = None

    def part(self, outputs: Tensor) -> Tensor:
        """The part of a layer's outputs, or of its weight's rows, that this is: along the first
        axis."""
        if self.rows is None:
            return outputs
        import torch

        return torch.cat([outputs[start:stop] for start, stop in self.rows])


@dataclass(frozen=True)
class Attention:
    """An attention of a host, where prefixes of keys and values can stand.

    `bias`: path of the attention that owns the relative position bias (T5), if there is one.
    """

    path: str
    kv_heads: int
    head_dim: int
    bias: str | None = None


@dataclass(frozen=True)
class Block:
    """The end of a layer, where the residual stream leaves it.

    `norm`: the path is a norm that closes the layer (post-norm, BERT).
    """

    path: str
    norm: bool = False


@dataclass(frozen=True)
class Geometry:
    """Sizes and insertion points of one host; equal geometries can take each other's modules.

    `stacks` is the number of layers by stack: {"encoder": 12, "decoder": 12}. `roots` is where the
    layers of a stack lie when that is not where the family has them. `prefix` is what stands before
    the paths of an encoder in a model with a head. `refuses` says which techniques cannot be made
    for the family, and why. `known` is whether the host is of a known family. `embeddings`: paths
    of the token embeddings by which the host reads ("input") and scores ("output"). `split`: roles
    of fused layers whose parts are seen as layers of their own; see `split_at`. `head`: what the
    host's configuration says of classifiers otherwise than its family, which makes no module unfit.
    """

    family: str
    kind: str
    positions: str
    gated: bool
    width: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    stacks: dict[str, int]
    lora_targets: tuple[str, ...] = field(repr=False)
    linears: dict[str, Linear] = field(repr=False)
    attentions: dict[str, Attention] = field(repr=False)
    blocks: dict[str, Block] = field(repr=False)
    roots: dict[str, str] = field(default_factory=dict, repr=False)
    prefix: str = field(default="", repr=False)
    refuses: dict[str, str] = field(default_factory=dict, repr=False)
    embeddings: dict[str, str] = field(default_factory=dict, repr=False)
    split: tuple[str, ...] = ()
    head: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def known(self) -> bool:
        """Whether the host's family is one with a data file."""
        return self.family in families()

    @property
    def in_larger(self) -> bool:
        """Whether the host is the language model of a larger one, of images and text."""
        return self.known and bool(self.roots)

    def trait(self, name: str) -> Any:
        """What the family's data file says under `name`; None where it says nothing."""
        return families().get(self.family, {}).get(name)

    def record(self) -> dict[str, Any]:
        """What a module's file says of its host; `geometry_from_record` is the way back."""
        sizes = {name: getattr(self, name) for name in SIZES}
        made = {"family": self.family, "gated": self.gated, **sizes, "stacks": dict(self.stacks)}
        if self.roots:
            made["roots"] = dict(self.roots)
        if self.split:
            made["split"] = list(self.split)
        if self.head:
            made["head"] = dict(self.head)
        if not self.known:
            made |= {"kind": self.kind, "prefix": self.prefix}
            made["lora_targets"] = list(self.lora_targets)
            made["linears"] = {
                point: [linear.inputs, linear.outputs, linear.transposed]
                for point, linear in self.linears.items()
            }
        return made


_NOT_SHARED = ("adapterhub",)
"""What another library knows a family by is that family's alone."""


@cache
def families() -> dict[str, dict[str, Any]]:
    """All known families by name, as their data files say them; what a file leaves out is that of
    the family that it calls itself `like`, but for `_NOT_SHARED`."""
    folder = resources.files("peftport.hosts") / "families"
    read = [json.loads(f.read_text()) for f in folder.iterdir() if f.name.endswith(".json")]
    files = {entry["family"]: entry for entry in read}
    shared = {
        name: {key: value for key, value in entry.items() if key not in _NOT_SHARED}
        for name, entry in files.items()
    }
    whole = {name: shared.get(entry.get("like"), {}) | entry for name, entry in files.items()}
    return dict(sorted(whole.items()))


def geometry_of(config: Mapping[str, Any], host: str) -> Geometry:
    """Derive the geometry from a transformers configuration given as a mapping.

    Args:
        config: the configuration, whole or as its file has it.
        host: the host's name, for messages.

    Raises:
        BadInput: transformers has no such model, the configuration cannot be read, or the host has
            what its family is not known to have.
    """
    from peftport.hosts.discovery import discovered

    return discovered(config, host)


def geometry_from_record(record: Mapping[str, Any]) -> Geometry:
    """Rebuild a geometry from `Geometry.record()`; BadInput names a field that is missing."""
    try:
        stacks = record["stacks"].items()
        counts = {str(name): _size(count, f"stacks.{name}", LAYERS) for name, count in stacks}
        sizes = {name: _size(record[name], name) for name in SIZES}
        roots = {str(name): str(root) for name, root in record.get("roots", {}).items()}
        family = families().get(record["family"])
        if family is None:
            return _own(record, sizes, counts, roots)
        counts = {s["name"]: counts[s["name"]] for s in family["stacks"]}
        found = laid_out(family, sizes, counts, bool(record["gated"]), roots)
        found = replace(found, head=dict(record.get("head", {})))
        return split_at(found, tuple(map(str, record.get("split", ()))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        raise BadInput(f"the geometry cannot be read: {said}.") from error


def _size(value: Any, name: str, most: int = LARGEST) -> int:
    """A size that a file says; ValueError for what no host has."""
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"{name} is {value!r}, expected a whole number from 1 to {most:,}")
    return value


def laid_out(
    family: Mapping[str, Any],
    sizes: Mapping[str, int],
    counts: dict[str, int],
    gated: bool,
    roots: dict[str, str],
) -> Geometry:
    """The geometry of a host of a known family, by its sizes.

    roots: by stack, where its layers lie, when that is not where the family has them.
    """
    linears: dict[str, Linear] = {}
    attentions: dict[str, Attention] = {}
    blocks: dict[str, Block] = {}
    for stack in family["stacks"]:
        template = roots.get(stack["name"], stack["path"])
        for layer in range(counts[stack["name"]]):
            name, root = f"{stack['name']}.{layer}", template.format(layer=layer)
            for entry in entries_of(stack, gated):
                shape = _shape(entry["name"], sizes)
                linears[f"{name}.{entry['name']}"] = Linear(
                    f"{root}.{entry['path']}",
                    *shape,
                    entry.get("transposed", False),
                    entry.get("fused"),
                )
            for entry in stack["attentions"]:
                attentions[f"{name}.{entry['name']}"] = Attention(
                    f"{root}.{entry['path']}",
                    sizes["kv_heads"],
                    sizes["head_dim"],
                    entry["bias"].format(layer=layer) if "bias" in entry else None,
                )
            block = stack["block"]
            path = f"{root}.{block['path']}" if block["path"] else root
            blocks[name] = Block(path, block.get("norm", False))
    return Geometry(
        family=family["family"],
        kind=family["kind"],
        positions=family["positions"],
        gated=gated,
        stacks=counts,
        lora_targets=tuple(family["lora_targets"]),
        linears=linears,
        attentions=attentions,
        blocks=blocks,
        roots=roots,
        prefix=family["prefix"],
        refuses=family.get("refuses", {}),
        embeddings=_embeddings(family, roots),
        **cast("dict[str, Any]", sizes),
    )


def _embeddings(family: Mapping[str, Any], roots: Mapping[str, str]) -> dict[str, str]:
    """Where a host's embeddings lie: in a larger model beside the layers, as in the family."""
    found: dict[str, str] = dict(family.get("embeddings", {}))
    for stack in family["stacks"]:
        if root := roots.get(stack["name"]):
            here, there = (_around_layers(path) for path in (root, stack["path"]))
            moved = {side: path for side, path in found.items() if path.startswith(there)}
            found |= {side: here + path.removeprefix(there) for side, path in moved.items()}
    return found


def _around_layers(path: str) -> str:
    """What stands before a stack of layers: "model.layers.{layer}" -> "model."."""
    return path.partition("{layer}")[0].removesuffix(".").rpartition(".")[0] + "."


def entries_of(stack: Mapping[str, Any], gated: bool) -> list[dict[str, Any]]:
    """The linear layers of a stack's layer, as the family's data name them."""
    found = "gated" if gated else "plain"
    return [entry for entry in stack["linears"] if entry.get("when", found) == found]


def _shape(role: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    """(inputs, outputs) of the layer with a role."""
    width, ffn = sizes["width"], sizes["ffn"]
    queries, keys = (sizes[heads] * sizes["head_dim"] for heads in ("heads", "kv_heads"))
    shapes = {
        "q": (width, queries),
        "k": (width, keys),
        "v": (width, keys),
        "qkv": (width, queries + 2 * keys),
        "o": (queries, width),
        "gate": (width, ffn),
        "up": (width, ffn),
        "gate_up": (width, 2 * ffn),
        "down": (ffn, width),
    }
    return shapes[role.rpartition(".")[2]]


PARTS = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}
"""What a fused layer is made of, by the last part of its role."""


def split_at(geometry: Geometry, roles: Collection[str]) -> Geometry:
    """A host with some of its fused layers seen as layers of their own, each of some of the rows:
    "self.qkv" as "self.q", "self.k" and "self.v"."""
    linears: dict[str, Linear] = {}
    for point, linear in geometry.linears.items():
        layer, role = _apart(point)
        if role not in roles or linear.fused is None:
            linears[point] = linear
            continue
        for name, rows in _spans(role, linear.fused, geometry).items():
            outputs = sum(stop - start for start, stop in rows)
            linears[f"{layer}.{name}"] = replace(linear, outputs=outputs, fused=None, rows=rows)
    made = {_apart(point)[1] for point in geometry.linears if _apart(point)[1] in roles}
    return replace(geometry, linears=linears, split=tuple(sorted({*geometry.split, *made})))


def parts_of(role: str) -> tuple[str, ...]:
    """The roles that a fused layer is made of: "self.qkv" -> ("self.q", "self.k", "self.v")."""
    before, _, last = role.rpartition(".")
    return tuple(f"{before}.{part}" if before else part for part in PARTS.get(last, ()))


def _apart(point: str) -> tuple[str, str]:
    """ "decoder.3.self.q" -> ("decoder.3", "self.q")."""
    stack, layer, role = point.split(".", 2)
    return f"{stack}.{layer}", role


def _spans(role: str, fused: str, geometry: Geometry) -> dict[str, tuple[tuple[int, int], ...]]:
    """The rows of each part of a fused layer."""
    queries, keys = (count * geometry.head_dim for count in (geometry.heads, geometry.kv_heads))
    of_attention = role.rpartition(".")[2] == "qkv"
    sizes = (queries, keys, keys) if of_attention else (geometry.ffn, geometry.ffn)
    groups = geometry.kv_heads if fused == "groups" else 1
    each = [size // groups for size in sizes]
    starts = [sum(each[:place]) for place in range(len(each))]
    return {
        part: tuple(
            (group * sum(each) + start, group * sum(each) + start + size) for group in range(groups)
        )
        for part, start, size in zip(parts_of(role), starts, each, strict=True)
    }


def of_own_names(
    family: str,
    kind: str,
    sizes: Mapping[str, int],
    roots: dict[str, str],
    counts: dict[str, int],
    linears: dict[str, Linear],
    lora_targets: tuple[str, ...],
    prefix: str,
) -> Geometry:
    """The geometry of a host of no known family: linear layers by their own names, and layers."""
    blocks = {
        f"{stack}.{layer}": Block(roots[stack].format(layer=layer))
        for stack, count in counts.items()
        for layer in range(count)
    }
    return Geometry(
        family=family,
        kind=kind,
        positions="unknown",
        gated=False,
        stacks=counts,
        lora_targets=lora_targets,
        linears=linears,
        attentions={},
        blocks=blocks,
        roots=roots,
        prefix=prefix,
        **cast("dict[str, Any]", sizes),
    )


def _own(
    record: Mapping[str, Any],
    sizes: Mapping[str, int],
    counts: dict[str, int],
    roots: dict[str, str],
) -> Geometry:
    linears = {}
    for point, (inputs, outputs, transposed) in record["linears"].items():
        stack, layer, role = point.split(".", 2)
        path = f"{roots[stack].format(layer=int(layer))}.{role}"
        sizes_of = (_size(inputs, point), _size(outputs, point))
        linears[point] = Linear(path, *sizes_of, bool(transposed))
    targets = tuple(str(target) for target in record["lora_targets"])
    family, kind, prefix = (str(record[key]) for key in ("family", "kind", "prefix"))
    return of_own_names(family, kind, sizes, roots, counts, linears, targets, prefix)

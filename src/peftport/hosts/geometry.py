"""The shape of a host: its layers, widths and insertion points, read from its configuration alone.

A family (`families/*.json`) says how the sizes are called in a transformers configuration and
under which module paths the linear layers, attentions and blocks lie. Insertion points get names
that all families share: `encoder.0.self.q`, `decoder.2.cross.o`, `decoder.1.ffn.down`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from peftport.errors import BadInput
from peftport.registry import did_you_mean

LARGEST, LAYERS = 2**31 - 1, 2000
"""More than any host has, of any size and of layers in a stack: what claims more is no host."""
SIZES = ("width", "vocabulary", "heads", "kv_heads", "head_dim", "ffn")


@dataclass(frozen=True)
class Linear:
    """A frozen linear layer of a host.

    `transposed`: the weight is stored (inputs, outputs), as GPT-2's Conv1D does.
    """

    path: str
    inputs: int
    outputs: int
    transposed: bool = False


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

    `norm`: the path is a LayerNorm that closes the layer (post-norm, BERT).
    """

    path: str
    norm: bool = False


@dataclass(frozen=True)
class Geometry:
    """Sizes and insertion points of one host; equal geometries can take each other's modules.

    `stacks` is the number of layers by stack: {"encoder": 12, "decoder": 12}.
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

    def record(self) -> dict[str, Any]:
        """What a module's file says of its host; `geometry_from_record` is the way back."""
        sizes = {name: getattr(self, name) for name in SIZES}
        return {"family": self.family, "gated": self.gated, **sizes, "stacks": dict(self.stacks)}


@cache
def families() -> dict[str, dict[str, Any]]:
    """All known families by name, as they stand in their data files."""
    folder = resources.files("peftport.hosts") / "families"
    entries = [json.loads(f.read_text()) for f in folder.iterdir() if f.name.endswith(".json")]
    return {entry["family"]: entry for entry in sorted(entries, key=lambda e: e["family"])}


def geometry_of(config: Mapping[str, Any], host: str) -> Geometry:
    """Derive the geometry from a transformers configuration given as a mapping.

    Args:
        config: the complete configuration (`AutoConfig.from_pretrained(...).to_dict()`).
        host: the host's name, for messages.

    Raises:
        BadInput: the model type belongs to no known family, a size is missing, or the host has what
            its family is not known to have.
    """
    family = _family_of(str(config.get("model_type", "")), host)
    for key, why in family.get("refused", {}).items():
        if config.get(key):
            raise BadInput(f"host {host}: {key} is {config[key]!r} in its configuration: {why}.")
    try:
        sizes = {name: _evaluate(rule, config, host) for name, rule in family["sizes"].items()}
        counts = {
            s["name"]: _size(_evaluate(s["layers"], config, host), s["layers"], LAYERS)
            for s in family["stacks"]
        }
    except ValueError as error:
        raise BadInput(
            f"host {host}: its configuration has a size that is no number: {error}."
        ) from error
    return _build(family, sizes, counts, _is_gated(family, config))


def geometry_from_record(record: Mapping[str, Any]) -> Geometry:
    """Rebuild a geometry from `Geometry.record()`; BadInput names a field that is missing."""
    try:
        family = families()[record["family"]]
        sizes = {name: _size(record[name], name) for name in SIZES}
        counts = {
            s["name"]: _size(record["stacks"][s["name"]], s["name"], LAYERS)
            for s in family["stacks"]
        }
        return _build(family, sizes, counts, bool(record["gated"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"the geometry of this module cannot be read: {error!r}.") from error


def _family_of(model_type: str, host: str) -> dict[str, Any]:
    known = {t: entry for entry in families().values() for t in entry["model_types"]}
    if model_type not in known:
        listed = "; ".join(f"{e['family']} ({e['models']})" for e in families().values())
        raise BadInput(
            f"host {host}: unknown model family {model_type!r}."
            f"{did_you_mean(model_type, known)} Known families: {listed}."
        )
    return known[model_type]


def _evaluate(rule: str, values: Mapping[str, Any], host: str) -> int:
    """Compute a size rule: names and numbers joined by `*` or `/`; `|` gives alternatives."""
    for alternative in rule.split("|"):
        result: int | None = None
        for index, term in enumerate(alternative.replace("/", " / ").replace("*", " * ").split()):
            if index % 2:
                operator = term
                continue
            value = int(term) if term.isdigit() else values.get(term)
            if value is None:
                result = None
                break
            value = _size(value, term)
            if result is None:
                result = value
            else:
                result = result * value if operator == "*" else result // value
        if result is not None:
            return _size(result, rule)
    raise BadInput(f"host {host}: its configuration has none of {rule!r}.")


def _size(value: Any, name: str, most: int = LARGEST) -> int:
    """A size that a file says; ValueError for what no host has."""
    if type(value) is not int or not 0 < value <= most:
        raise ValueError(f"{name} is {value!r}, expected a whole number from 1 to {most:,}")
    return value


def _is_gated(family: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Whether the feed-forward layers are gated, by a rule `key=prefix*` of the family."""
    if "gated" not in family:
        return False
    key, prefix = family["gated"].split("=")
    return str(config.get(key, "")).startswith(prefix.rstrip("*"))


def _build(
    family: Mapping[str, Any], sizes: dict[str, int], counts: dict[str, int], gated: bool
) -> Geometry:
    linears: dict[str, Linear] = {}
    attentions: dict[str, Attention] = {}
    blocks: dict[str, Block] = {}
    for stack in family["stacks"]:
        for layer in range(counts[stack["name"]]):
            name = f"{stack['name']}.{layer}"
            root = stack["path"].format(layer=layer)
            for entry in stack["linears"]:
                if entry.get("when", "gated" if gated else "plain") == (
                    "gated" if gated else "plain"
                ):
                    linears[f"{name}.{entry['name']}"] = Linear(
                        path=f"{root}.{entry['path']}",
                        inputs=_evaluate(entry["inputs"], sizes, family["family"]),
                        outputs=_evaluate(entry["outputs"], sizes, family["family"]),
                        transposed=entry.get("transposed", False),
                    )
            for entry in stack["attentions"]:
                attentions[f"{name}.{entry['name']}"] = Attention(
                    f"{root}.{entry['path']}",
                    sizes["kv_heads"],
                    sizes["head_dim"],
                    entry.get("bias"),
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
        **sizes,
    )

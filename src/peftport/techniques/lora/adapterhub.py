"""LoRA in AdapterHub folders.

Keys: `<path>.loras.<name>.lora_A` (r, inputs) and `.lora_B` (outputs, r), scale alpha / r. GPT-2's
one layer for queries, keys and values has factors for each of those that are adapted, stacked:
`lora_A` (n * r, inputs), `lora_B` (n * outputs / 3, r). As a change of the whole layer they are of
rank n * r, with blocks of zeros in `lora_B`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.adapterhub_layout import NAME, Hub, layout_of, path_in_model
from peftport.modules.formats.base import Draft
from peftport.modules.formats.keeping import InAdapterHub
from peftport.modules.formats.places import Places
from peftport.modules.formats.stored import require_matrix
from peftport.modules.module import Module
from peftport.techniques.base import Parameters
from peftport.techniques.lora import LoraConfig, targets
from peftport.techniques.lora.factors import Factors, as_options_and_tensors, require_shapes

MERGED = "qkv"
_FLAGS = ("intermediate_lora", "output_lora")
_WITHOUT: dict[str, tuple[Any, ...]] = {
    "composition_mode": ("add",),
    "use_gating": (False,),
    "use_dora": (False,),
    "vera_d": (None,),
    "vera_b": (None,),
    "selfattn_lora": (True, False),
    "intermediate_lora": (False, True),
    "output_lora": (False, True),
}
# Of how a module starts and trains.
_NEUTRAL = {"dropout": 0.0, "dtype": None, "init_weights": "lora", "init_weights_seed": None}


def read(hub: Hub) -> Draft:
    """Read LoRA's factors."""
    hub.require(_WITHOUT)
    hub.require_known(
        _WITHOUT.keys()
        | _NEUTRAL.keys()
        | {"architecture", "r", "alpha", "attn_matrices", "leave_out"}
    )
    rank = hub.number("r")
    options = {"rank": rank, "alpha": _alpha(hub, rank), "rslora": False}
    found = _factors(hub, rank, options["alpha"] / rank)
    options, tensors = as_options_and_tensors(found, options, hub.geometry, hub.path)
    return Draft("lora", options, tensors, hub.path)


def holds(config: LoraConfig, geometry: Geometry, names: Collection[str]) -> None:
    """Raise BadInput for a target that adapters cannot change."""
    if not geometry.split:  # parts of fused layers, which are joined before they are written
        _switches(targets(config, geometry), geometry)


def written(module: Module) -> tuple[dict[str, Any], Parameters]:
    """Configuration and tensors."""
    geometry, config = module.geometry, module.config
    points = targets(config, geometry)
    switches = _switches(points, geometry)
    options = {key: values[0] for key, values in _WITHOUT.items()} | _NEUTRAL
    options |= {
        "architecture": "lora",
        "r": config.rank,
        "alpha": config.scale * config.rank,
        "attn_matrices": [m for m in "qkv" if m in "".join(switches - set(_FLAGS))],
        "selfattn_lora": bool(switches - set(_FLAGS)),
        "leave_out": [],
        **{flag: flag in switches for flag in _FLAGS},
    }
    if options["alpha"] == int(options["alpha"]):
        options["alpha"] = int(options["alpha"])
    tensors: Parameters = {}
    for point, linear in points.items():
        down, up = module.tensors[f"{point}.lora_A"], module.tensors[f"{point}.lora_B"]
        if layout_of(geometry)["lora"][_role(point)] == MERGED:
            down = down.repeat(3, 1)  # each of q, k and v with the same A and its part of B
        where = f"{path_in_model(linear.path, geometry)}.loras.{NAME}"
        tensors |= {f"{where}.lora_A": down, f"{where}.lora_B": up}
    return options, tensors


def _alpha(hub: Hub, rank: int) -> float:
    """alpha, but for versions before 1.1, which multiplied with 1 whatever alpha was."""
    alpha = hub.number("alpha", float)
    version = str(hub.folder.config.get("version", ""))
    return rank if version.startswith(("adapters.0.", "adapters.1.0.")) else alpha


def _factors(hub: Hub, rank: int, scale: float) -> dict[str, Factors]:
    """Factors by place; BadInput names a tensor that is missing or surplus."""
    geometry, layout = hub.geometry, layout_of(hub.geometry)["lora"]
    where = Places({point: linear.path for point, linear in geometry.linears.items()})
    pairs: dict[str, dict[str, str]] = {}
    for key in hub.tensors:
        path, factor = hub.split(key, "loras")
        point = where.find(path)
        if factor not in ("lora_A", "lora_B") or point is None or not _adapted(hub, point, layout):
            raise BadInput(
                f"{hub.path}: tensor {key!r} belongs to no place that the configuration has on a "
                f"{geometry.family} host."
            )
        pair = pairs.setdefault(point, {})
        if factor in pair:
            raise BadInput(f"{hub.path}: {key!r} and {pair[factor]!r} are one place.")
        pair[factor] = key
    _require_complete(hub, pairs, layout)
    found = {}
    for point, pair in pairs.items():
        down, up = hub.tensors[pair["lora_A"]], hub.tensors[pair["lora_B"]]
        for factor in pair.values():
            require_matrix(hub.path, factor, hub.tensors[factor])
        factors, wanted = Factors(down, up, scale), rank
        if layout[_role(point)] == MERGED:
            factors = _unmerged(hub, pair, factors, rank, geometry.linears[point].outputs)
            wanted = factors.rank
        require_shapes(hub.path, (pair["lora_A"], pair["lora_B"]), factors, point, wanted, geometry)
        found[point] = factors
    return found


def _require_complete(hub: Hub, pairs: dict[str, dict[str, str]], layout: dict[str, str]) -> None:
    wanted = [p for p in hub.geometry.linears if _adapted(hub, p, layout)]
    for point in pairs if hub.config.get("leave_out") else wanted:
        for factor in ("lora_A", "lora_B"):
            if factor not in pairs.get(point, {}):
                path = path_in_model(hub.geometry.linears[point].path, hub.geometry)
                raise BadInput(f"{hub.path} lacks tensor '{path}.loras.{hub.name}.{factor}'.")
    if not pairs:
        raise BadInput(f"{hub.path} has no LoRA tensor of adapter {hub.name!r}.")


def _adapted(hub: Hub, point: str, layout: dict[str, str]) -> bool:
    """Whether the configuration has LoRA at a place."""
    switch = layout.get(_role(point))
    if switch in _FLAGS:
        return bool(hub.config.get(switch))
    return switch is not None and any(matrix in switch for matrix in _matrices(hub))


def _matrices(hub: Hub) -> list[str]:
    """Which of q, k and v are adapted, in this order."""
    named = hub.config.get("attn_matrices", ["q", "v"])
    if not isinstance(named, list) or not set(map(str, named)) <= set("qkv"):
        hub.refuse("attn_matrices", f"{named!r}, expected some of q, k and v")
    return [m for m in "qkv" if m in named and hub.config.get("selfattn_lora", True)]


def _unmerged(hub: Hub, pair: dict[str, str], factors: Factors, rank: int, outputs: int) -> Factors:
    """The stacked factors of q, k and v as one change of the layer that makes all three.

    What peftport wrote has the same A for each; it comes back as it was.
    """
    matrices = _matrices(hub)
    each = outputs // 3
    for name, found, expected in (
        (pair["lora_A"], factors.down, (len(matrices) * rank, factors.down.shape[-1])),
        (pair["lora_B"], factors.up, (len(matrices) * each, rank)),
    ):
        if tuple(found.shape) != expected:
            raise BadInput(
                f"{hub.path}: tensor {name!r} has shape {tuple(found.shape)}, expected {expected}."
            )
    kept = hub.folder.kept
    if len(matrices) == 3 and kept is not None and kept.config.get("rank") == rank:
        return Factors(factors.down[:rank], factors.up, factors.scale)
    up = _block(factors.up, matrices, each)
    return Factors(factors.down, up, factors.scale)


def _block(up: Tensor, matrices: list[str], each: int) -> Tensor:
    """(n * each, rank) of the adapted ones of q, k, v -> (3 * each, n * rank), zeros between."""
    rank = up.shape[1]
    result = up.new_zeros(3 * each, len(matrices) * rank)
    for place, matrix in enumerate(matrices):
        row = "qkv".index(matrix) * each
        part = up[place * each : (place + 1) * each]
        result[row : row + each, place * rank : (place + 1) * rank] = part
    return result


def _switches(points: Any, geometry: Geometry) -> set[str]:
    """The options of adapters that stand for these places; BadInput where none does."""
    layout = layout_of(geometry)["lora"]
    roles = {_role(point) for point in points}
    for role in roles:
        if role not in layout:
            raise BadInput(
                f"adapters has no LoRA at {role} of a {geometry.family} host, only at "
                f"{', '.join(layout)}; write it with --format peft or peftport."
            )
    switches = {layout[role] for role in roles}
    beside = {role for role, switch in layout.items() if switch in switches} - roles
    if beside:
        raise BadInput(
            f"adapters has LoRA at {', '.join(sorted(beside))} wherever it has it at "
            f"{', '.join(sorted(roles))}; write it with --format peft or peftport."
        )
    return switches


def _role(point: str) -> str:
    """ "decoder.3.self.q" -> "self.q"."""
    return point.split(".", 2)[2]


ADAPTERHUB = InAdapterHub("lora", read, written, holds)

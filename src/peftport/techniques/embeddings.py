"""Embeddings that a module brings along: rows of its own for a host's tokens, all or some, or a
low-rank change of the host's rows.

Tensors, `input` being what the host reads tokens by and `output` what it scores them by:
`embedding.<side>.weight` (tokens, width) are rows in place of the host's. `embedding.<side>.rows`
(count, width) are rows of the tokens whose numbers `embedding.<side>.tokens` (count,) holds, as
integers; of `input` alone, on a host that scores by the rows that it reads by, they are in its
scores, too, as peft has it, below what factors of `output` change. `embedding.input.lora_A`
(rank, tokens) and `.lora_B` (width, rank), `embedding.output.lora_A` (rank, width) and `.lora_B`
(tokens, rank) are factors as peft has them, with the scale of the module's LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peftport.errors import BadInput
from peftport.techniques.base import Parameters, Shapes, Technique, lanes_of

if TYPE_CHECKING:
    from peftport.hosts.geometry import Geometry
    from peftport.hosts.host import Host

INPUT, OUTPUT = "embedding.input", "embedding.output"
SIDES = (INPUT, OUTPUT)


def brought(tensors: Parameters) -> Shapes:
    """Shapes of the embeddings among a module's tensors."""
    return {name: tuple(t.shape) for name, t in tensors.items() if is_embedding(name)}


def is_embedding(name: str) -> bool:
    """Whether a tensor's name is that of an embedding which a module brings along."""
    return name.startswith("embedding.")


def is_of_numbers(name: str) -> bool:
    """Whether a tensor, by its name, holds the numbers of tokens, and no floats."""
    return is_embedding(name) and name.endswith(".tokens")


def brings_rows(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a module has rows of its own, of all tokens or of some."""
    return any(is_embedding(name) and name.endswith((".weight", ".rows")) for name in tensors)


def embedding_problem(tensors: Mapping[str, Tensor], vocabulary: int) -> str | None:
    """What is wrong with the embeddings among a module's tensors; None where nothing is.

    Args:
        vocabulary: how many tokens the host has.
    """
    for name, tensor in embeddings_among(dict(tensors)).items():
        of_numbers, shape = is_of_numbers(name), tuple(tensor.shape)
        side, _, kind = name.rpartition(".")
        if tensor.ndim != (1 if of_numbers else 2):
            expected = "the numbers of tokens" if of_numbers else "tokens, widths"
            return f"tensor {name!r} has shape {shape}, expected {expected}"
        if kind in ("rows", "tokens"):
            rows, tokens = (tensors.get(f"{side}.{each}") for each in ("rows", "tokens"))
            if rows is None or tokens is None or len(rows) != len(tokens):
                return f"tensors '{side}.rows' and '{side}.tokens' are not of as many tokens"
        if not of_numbers or tensor.is_meta:
            continue
        numbers = set(tensor.tolist())
        if len(numbers) < len(tensor) or min(numbers) < 0 or max(numbers) >= vocabulary:
            return f"tensor {name!r}: expected different tokens of the host's {vocabulary}"
    return None


def require_width(side: str, tensors: Mapping[str, Tensor], width: int) -> None:
    """Raise BadInput, which names the tensor, for a module's embedding that is not of its host's
    width."""
    across = {"weight": 1, "rows": 1, "lora_A": 1, "lora_B": 0}
    across.pop("lora_A" if side == INPUT else "lora_B")  # it has a side of tokens and one of ranks
    for kind, axis in across.items():
        name = f"{side}.{kind}"
        if name in tensors and tensors[name].shape[axis] != width:
            raise BadInput(
                f"the module's tensor {name!r} has shape {tuple(tensors[name].shape)}, and its "
                f"host's embeddings are {width} wide: it was made for another host."
            )


def shape_there(name: str, shape: tuple[int, ...], host: Geometry) -> tuple[int, ...]:
    """The shape that one of these tensors has on another host."""
    side, _, kind = name.rpartition(".")
    if kind == "weight":
        return host.vocabulary, host.width
    if kind in ("rows", "tokens"):
        return (shape[0], host.width)[: len(shape)]
    rank = shape[0 if kind == "lora_A" else 1]
    by_token = kind == ("lora_A" if side == INPUT else "lora_B")
    size = host.vocabulary if by_token else host.width
    return (rank, size) if kind == "lora_A" else (size, rank)


def without_embeddings(tensors: Parameters) -> Parameters:
    """A module's tensors but for its embeddings."""
    return {name: tensor for name, tensor in tensors.items() if not is_embedding(name)}


def embeddings_among(tensors: Parameters) -> Parameters:
    """The embeddings among a module's tensors."""
    return {name: tensor for name, tensor in tensors.items() if is_embedding(name)}


def ties(geometry: Geometry, config: Any) -> bool:
    """Whether a host of that configuration scores tokens by the rows that it reads them by."""
    tied = bool(getattr(config, "tie_word_embeddings", False))
    return tied and "output" in geometry.embeddings


def on_both_sides(tensors: Parameters) -> Parameters:
    """A module's tensors on a tied host: with rows of some tokens of the input on the output's
    side, too, unless it has others there."""
    others = (f"{OUTPUT}.rows", f"{OUTPUT}.weight")
    if f"{INPUT}.rows" not in tensors or any(name in tensors for name in others):
        return tensors
    return tensors | {f"{OUTPUT}.{each}": tensors[f"{INPUT}.{each}"] for each in ("rows", "tokens")}


def changed(side: str, own: Tensor, tensors: Parameters, scale: float) -> Tensor:
    """The rows (tokens, width) that a host with `own` rows has under a module.

    Args:
        side: `INPUT` or `OUTPUT`.
        scale: of the module's LoRA.
    """
    require_width(side, tensors, own.shape[1])
    # A host that is read a layer at a time has its rows as they are stored; the module's stay
    # as precise as they are.
    rows = _on(own, tensors.get(f"{side}.weight", own))
    if f"{side}.rows" in tensors:
        some, tokens = _on(own, tensors[f"{side}.rows"]), tensors[f"{side}.tokens"]
        rows = rows.to(some.dtype).index_copy(0, tokens.to(own.device), some)
    if f"{side}.lora_A" not in tensors:
        return rows
    up, down = (_on(own, tensors[f"{side}.lora_{factor}"]) for factor in "BA")
    product = up @ down
    return rows + scale * (product.mT if side == INPUT else product)


def _on(own: Tensor, tensor: Tensor) -> Tensor:
    """A tensor where a host's rows are, in the wider type of both."""
    return tensor.to(own.device, torch.promote_types(own.dtype, tensor.dtype))


@contextmanager
def attached(host: Host, made: Technique, config: Any, parameters: Parameters) -> Iterator[None]:
    """Let a host act with modules, and with the embeddings that one brings along, for a while.

    Args:
        config: the technique's. parameters: with the lane axis. Embeddings are of one lane alone:
            lanes share the host's.
    """
    mine = embeddings_among(parameters)
    if mine and lanes_of(parameters) > 1:
        raise ValueError("modules that bring embeddings along cannot act side by side")
    rows = {name: tensor[0] for name, tensor in mine.items()}
    with replaced(host, config, rows), made.attach(host, config, without_embeddings(parameters)):
        yield


@contextmanager
def replaced(host: Host, config: Any, tensors: Parameters) -> Iterator[None]:
    """Let a host have the embeddings that a module brings along, if it does, for a while.

    Args:
        config: the technique's. tensors: the module's, without lane axis.
    """
    if ties(host.geometry, host.model.config):
        tensors = on_both_sides(tensors)
    before: list[tuple[nn.Module, nn.Parameter]] = []
    sides = [side for side in SIDES if any(name.startswith(f"{side}.") for name in tensors)]
    wanted = {side: _modules(host, side) for side in sides}
    try:
        for side, modules in wanted.items():
            own: Any = modules[0].weight
            made = changed(side, own.detach(), tensors, getattr(config, "scale", 1.0))
            rows = nn.Parameter(made, requires_grad=False)
            for module in modules:
                before.append((module, own))
                module.weight = rows
        yield
    finally:
        for module, own in before:
            module.weight = own


def _modules(host: Host, side: str) -> list[nn.Module]:
    """The submodules that hold one embedding; T5's two stacks share one."""
    if side == OUTPUT:
        return [host.model.get_output_embeddings()]
    shared = host.model.get_input_embeddings().weight
    return [
        module
        for module in host.model.modules()
        if isinstance(module, nn.Embedding) and module.weight is shared
    ]

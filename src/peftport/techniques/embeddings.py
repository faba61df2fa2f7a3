"""Embeddings that a module brings along: rows of its own for a host's tokens, or a low-rank change
of the host's rows.

Tensors, `input` being what the host reads tokens by and `output` what it scores them by:
`embedding.<side>.weight` (tokens, width) are rows in place of the host's. `embedding.input.lora_A`
(rank, tokens) and `.lora_B` (width, rank), `embedding.output.lora_A` (rank, width) and `.lora_B`
(tokens, rank) are factors as peft has them, with the scale of the module's LoRA.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from peftport.techniques.base import Parameters, Shapes

if TYPE_CHECKING:
    from peftport.hosts.host import Host

INPUT, OUTPUT = "embedding.input", "embedding.output"
SIDES = (INPUT, OUTPUT)


def brought(tensors: Parameters) -> Shapes:
    """Shapes of the embeddings among a module's tensors."""
    return {name: tuple(t.shape) for name, t in tensors.items() if is_embedding(name)}


def is_embedding(name: str) -> bool:
    """Whether a tensor's name is that of an embedding which a module brings along."""
    return name.startswith("embedding.")


def without_embeddings(tensors: Parameters) -> Parameters:
    """A module's tensors but for its embeddings."""
    return {name: tensor for name, tensor in tensors.items() if not is_embedding(name)}


def changed(side: str, own: Tensor, tensors: Parameters, scale: float) -> Tensor:
    """The rows (tokens, width) that a host with `own` rows has under a module.

    Args:
        side: `INPUT` or `OUTPUT`.
        scale: of the module's LoRA.
    """
    rows = tensors.get(f"{side}.weight", own).to(own)
    if f"{side}.lora_A" not in tensors:
        return rows
    product = tensors[f"{side}.lora_B"].to(own) @ tensors[f"{side}.lora_A"].to(own)
    return rows + scale * (product.mT if side == INPUT else product)


@contextmanager
def replaced(host: Host, config: Any, tensors: Parameters) -> Iterator[None]:
    """Let a host have the embeddings that a module brings along, if it does, for a while.

    Args:
        config: the technique's. tensors: the module's, without lane axis.
    """
    before: list[tuple[nn.Module, nn.Parameter]] = []
    sides = [side for side in SIDES if any(name.startswith(f"{side}.") for name in tensors)]
    wanted = {side: _modules(host, side) for side in sides}
    try:
        for side, modules in wanted.items():
            for module in modules:
                own: Any = module.weight
                before.append((module, own))
                rows = changed(side, own.detach(), tensors, getattr(config, "scale", 1.0))
                module.weight = nn.Parameter(rows, requires_grad=False)
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

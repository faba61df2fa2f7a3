"""Where a prefix of real words begins: at the keys and values that the host itself has of them.

Keys and values that are drawn may drown a language model's text, and a training of some dozens of
steps does not find back; those of words leave the host what it is. Li & Liang 2021
(arXiv 2101.00190) begin so where there is little data.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Attention
from peftport.techniques.base import Parameters

if TYPE_CHECKING:
    from peftport.hosts.attention import Attended
    from peftport.hosts.host import Host


def keys_and_values(
    host: Host, attentions: Mapping[str, Attention], text: str, length: int
) -> Parameters:
    """What some attentions of the bare host make of a text's first tokens, over and over where it
    has fewer than `length`: `<attention>.keys`, `.values`, (length, kv_heads * head_dim).

    Raises:
        BadInput: the text has no token, or the host no room for so many.
    """
    from peftport.hosts.attention import watch_attention

    found = host.tokenizer(text, verbose=False).input_ids
    if not found:
        raise BadInput(f"initial_text: {text!r} has no token on host {host.name}; give words.")
    ids = torch.tensor([(found * length)[:length]], device=host.device)  # (1, length)
    made: Parameters = {}
    with torch.no_grad(), ExitStack() as stack:
        for point, attention in attentions.items():

            def see(attended: Attended, point: str = point) -> None:
                made[f"{point}.keys"] = _flat(attended.key)
                made[f"{point}.values"] = _flat(attended.value)

            stack.enter_context(watch_attention(host.part(attention.path), see))
        host.run(ids, torch.ones_like(ids), ids)
    return made


def _flat(by_head: Tensor) -> Tensor:
    """(1, kv_heads, length, head_dim) -> (length, kv_heads * head_dim), on the CPU."""
    return by_head[0].transpose(0, 1).flatten(1).float().cpu().clone()

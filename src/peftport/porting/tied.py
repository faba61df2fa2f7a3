"""Rows of some tokens on hosts that score tokens by the rows that they read them by.

There rows of the input's side alone are the scores' too, as peft has it; and peft takes both sides
for one where they are of the same tokens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.porting.account import Entry
from peftport.techniques.embeddings import INPUT, OUTPUT

if TYPE_CHECKING:
    from peftport.porting.embeddings import Carried

_ROWS, _TOKENS = f"{OUTPUT}.rows", f"{OUTPUT}.tokens"
_FURTHER = "the host's own row of a further token, which keeps the scores apart from what is read"


def as_on_tied(carried: Carried, own: Tensor) -> Carried:
    """Embeddings as a tied host has them: rows of the input alone where the output's are the same,
    and otherwise rows of other tokens on the output's side.

    Args:
        own: the host's rows, (tokens, width).
    """
    made = carried.tensors
    if f"{INPUT}.rows" not in made or f"{OUTPUT}.weight" in made:
        return carried
    rows, tokens = made[f"{INPUT}.rows"], made[f"{INPUT}.tokens"]
    scored, of = made.get(_ROWS, rows[:0]), made.get(_TOKENS, tokens[:0])
    if torch.equal(tokens, of) and torch.equal(rows, scored):
        return _without(carried, (_ROWS, _TOKENS))
    if len(of) and not torch.equal(tokens, of):
        return carried
    changed = set(tokens.tolist())
    further = next((token for token in range(len(own)) if token not in changed), None)
    if further is None:
        raise BadInput(
            "the module changes the row of every token, and the receiving host's embeddings are "
            "its head as well: save whole embeddings with the module in place of rows."
        )
    more = {
        _ROWS: torch.cat([scored, own[further : further + 1].to(scored)]),
        _TOKENS: torch.cat([of, of.new_tensor([further])]),
    }
    entries = [
        replace(entry, shape=tuple(more[entry.target].shape)) if entry.target in more else entry
        for entry in carried.entries
    ]
    if not len(of):
        entries += [_new(name, tensor) for name, tensor in more.items()]
    return replace(carried, tensors=made | more, entries=tuple(entries))


def _new(name: str, tensor: Tensor) -> Entry:
    shape = tuple(tensor.shape)
    return Entry(None, name, "initialised", shape, why=_FURTHER, intended=True)


def _without(carried: Carried, names: tuple[str, ...]) -> Carried:
    """Embeddings without some, of which the account then says nothing."""
    kept = {name: tensor for name, tensor in carried.tensors.items() if name not in names}
    entries = tuple(each for each in carried.entries if each.source not in names)
    return replace(carried, tensors=kept, entries=entries)

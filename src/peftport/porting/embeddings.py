"""Embeddings that a module brings along, for another host: token by token.

A row belongs to a token and not to its number, so it goes where the receiving host has a token of
the same text. Rows that the module never changed are left to the receiving host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.weights import Weights
from peftport.porting.account import Entry
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import INPUT, OUTPUT, SIDES, require_width

if TYPE_CHECKING:
    from peftport.porting.means import Means, Side


@dataclass(frozen=True)
class Carried:
    """Embeddings on the receiving host, and what became of them."""

    tensors: Parameters
    entries: tuple[Entry, ...]


def carry(tensors: Mapping[str, Tensor], means: Means) -> Carried:
    """Carry a module's embeddings over, as far as both vocabularies have the tokens.

    Args:
        tensors: the module's; others than embeddings are passed over.
        means: both hosts, of one width.

    Raises:
        BadInput: one of the hosts has no tokenizer, or an embedding is not as wide as its host.
    """
    sides = [side for side in SIDES if any(name.startswith(f"{side}.") for name in tensors)]
    if not sides:
        return Carried({}, ())
    here, there = means.receiver, means.origin
    partners = _partners(there, here)
    made: Parameters = {}
    entries: list[Entry] = []
    for side in sides:
        require_width(side, tensors, embedding(there, side).shape[1])
        if f"{side}.weight" in tensors:
            found, entry = _rows(side, tensors[f"{side}.weight"], there, here, partners)
            made[f"{side}.weight"] = found
            entries += entry
        if f"{side}.lora_A" in tensors:
            found_factors, entry = _factors(side, tensors, here, partners)
            made |= found_factors
            entries += entry
    return Carried(made, tuple(entries))


def _rows(
    side: str, trained: Tensor, there: Side, here: Side, partners: Mapping[int, int]
) -> tuple[Tensor, list[Entry]]:
    """The receiving host's rows with those that the module changed, and what became of them."""
    before, own = (embedding(host, side).float() for host in (there, here))
    both = min(len(before), len(trained))
    changed = torch.ones(len(trained), dtype=torch.bool)
    changed[:both] = (trained[:both] != before[:both].to(trained)).any(1)
    rows = torch.nonzero(changed).flatten().tolist()
    result = own.clone()
    kept = [(row, partners[row]) for row in rows if partners.get(row, len(own)) < len(own)]
    for row, place in kept:
        result[place] = trained[row]
    name, width = f"{side}.weight", trained.shape[1]
    return result, _told(name, len(kept), len(rows), (len(own), width), width)


def _factors(
    side: str, tensors: Mapping[str, Tensor], here: Side, partners: Mapping[int, int]
) -> tuple[Parameters, list[Entry]]:
    """Factors with the receiving host's tokens; those that the module does not know get zeros."""
    by_token, other = ("A", "B") if side == INPUT else ("B", "A")
    factor = tensors[f"{side}.lora_{by_token}"]
    along = factor.mT if side == INPUT else factor  # (tokens, rank)
    size = embedding(here, side).shape[0]
    made = torch.zeros(size, along.shape[1], dtype=along.dtype)
    rows = torch.nonzero(along.abs().sum(1)).flatten().tolist()
    kept = [(row, partners[row]) for row in rows if partners.get(row, size) < size]
    for row, place in kept:
        made[place] = along[row]
    name, unchanged = f"{side}.lora_{by_token}", f"{side}.lora_{other}"
    placed = (made.mT if side == INPUT else made).contiguous()
    shape = tuple(tensors[unchanged].shape)
    entries = _told(name, len(kept), len(rows), tuple(placed.shape), along.shape[1])
    entries.append(Entry(unchanged, unchanged, "copied", shape, scale=1.0))
    return {name: placed, unchanged: tensors[unchanged].clone()}, entries


def _told(name: str, kept: int, rows: int, shape: tuple[int, ...], width: int) -> list[Entry]:
    """What became of one tensor whose rows belong to tokens."""
    why = f"rows of {kept} of {rows} tokens, by their text"
    entries = [Entry(name, name, "copied", shape, scale=1.0, why=why)] if kept else []
    if kept < rows:
        lost = f"{rows - kept} of {rows} tokens are not in the receiving host's vocabulary"
        entries.append(Entry(name, None, "dropped", (rows - kept, width), why=lost))
    return entries


def embedding(host: Side, side: str) -> Tensor:
    """One of a host's embeddings, (tokens, width); scores of a tied host come from its input's."""
    paths = host.geometry.embeddings
    names = [paths["output"]] * (side == OUTPUT) + [paths["input"]]
    weights: Weights = host.weights
    for name in names:
        if f"{name}.weight" in weights:
            return weights[f"{name}.weight"]
    raise BadInput(f"host {host.name} has no weight {names[0]}.weight: its embeddings are missing.")


def _partners(there: Side, here: Side) -> dict[int, int]:
    """Token of the originating host -> that of the receiving one which has the same text."""
    from peftport.hosts.host import load_tokenizer

    origin, receiver = (load_tokenizer(side.folder, side.name) for side in (there, here))
    theirs, ours = origin.get_vocab(), receiver.get_vocab()
    if theirs == ours:
        return {number: number for number in theirs.values()}
    written = _written(receiver)
    known = {text: number for number, text in sorted(written.items(), reverse=True)}
    return {n: known[text] for n, text in _written(origin).items() if text in known}


def _written(tokenizer: Any) -> dict[int, str]:
    """The text of every token, whatever marks its vocabulary writes it with; special ones as they
    are called."""
    special = set(tokenizer.all_special_ids)
    pieces = tokenizer.get_vocab()
    continued = any(piece.startswith("##") for piece in pieces)
    to_bytes = _byte_letters() if any("\u0120" in piece for piece in pieces) else None
    return {
        number: piece if number in special else _text(piece, continued, to_bytes)
        for piece, number in pieces.items()
    }


def _text(piece: str, continued: bool, to_bytes: Mapping[str, int] | None) -> str:
    """A piece of a vocabulary as text, with a space where a word begins."""
    if to_bytes is not None and all(letter in to_bytes for letter in piece):
        return bytes(to_bytes[letter] for letter in piece).decode("utf-8", "backslashreplace")
    if continued:
        return piece.removeprefix("##") if piece.startswith("##") else f" {piece}"
    return piece.replace("\u2581", " ")


def _byte_letters() -> dict[str, int]:
    """The letters by which byte-level vocabularies write bytes (Radford et al. 2019)."""
    plain: Sequence[int] = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if byte not in plain]
    return letters | {chr(256 + place): byte for place, byte in enumerate(rest)}

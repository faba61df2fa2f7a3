"""Embeddings that a module brings along, for another host: token by token.

A row belongs to a token and not to its number, so it goes where the receiving host has a token of
the same text. A copy brings the row itself. Any other method maps its change, the row less the
originating host's own, which is added to the receiving host's own row. Rows that the module never
changed are left to the receiving host. What came as rows of some tokens goes as rows of some.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.configuration import host_config
from peftport.hosts.fingerprint import fingerprint
from peftport.hosts.weights import Weights
from peftport.porting.account import Action, Entry
from peftport.porting.base import PortMethod, Request, RowMap
from peftport.porting.tied import as_on_tied
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import (
    INPUT,
    OUTPUT,
    SIDES,
    on_both_sides,
    require_width,
    ties,
)

if TYPE_CHECKING:
    from peftport.porting.means import Means, Side


@dataclass(frozen=True)
class Carried:
    """Embeddings on the receiving host, and what became of them."""

    tensors: Parameters
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class EmbeddingPair:
    """One embedding of both hosts.

    side: `INPUT` or `OUTPUT`. there, here: of the originating and the receiving host, (tokens,
    width). tokens: those that both have, a token of the one and of the other in each row, those
    that the module changes first, and then as they stand in the vocabulary: (tokens, 2).
    """

    side: str
    there: Tensor = field(repr=False)
    here: Tensor = field(repr=False)
    tokens: Tensor = field(repr=False)

    def samples(self, most: int) -> tuple[Tensor, Tensor]:
        """Rows of the same tokens on both hosts, (tokens, width), of the first `most` of them."""
        there, here = self.tokens[:most].T
        return self.there[there].float(), self.here[here].float()


def carry(
    tensors: Parameters, means: Means, method: PortMethod, request: Request, seed: int = 0
) -> Carried:
    """Carry a module's embeddings over, as far as both vocabularies have the tokens.

    Args:
        tensors: the module's; others than embeddings are passed over.
        means: both hosts, of one width where the method maps no rows.
        seed: of what the method draws.

    Raises:
        BadInput: one of the hosts has no tokenizer, or an embedding is not as wide as its host.
    """
    here, there = means.receiver, means.origin
    scores = request.donor.head != "last"  # else they are a head's, and no embedding's
    if scores and _ties(there):
        tensors = on_both_sides(tensors)
    parts = [(name, part) for name in SIDES for part in _parts(name, tensors)]
    if not parts:
        return Carried({}, ())
    partners = _partners(there, here)
    mapped = method.rows == "mapped" and fingerprint(there.folder) != fingerprint(here.folder)
    made: Parameters = {}
    entries: list[Entry] = []
    for side, part in parts:
        own = embedding(there, side), embedding(here, side)
        require_width(side, part, own[0].shape[1])
        changed, row_map = _changed(side, part, own[0], request.donor.dtype), None
        if mapped:
            means.progress(0.0, "the embeddings")
            pair = EmbeddingPair(side, *own, _both(partners, changed, *own))
            draw = torch.Generator().manual_seed(seed)
            row_map = method.row_map(request, pair, means, draw)
        found = _Way(side, changed, partners, *own, row_map).carried(part)
        made |= found.tensors
        entries += found.entries
    carried = Carried(made, tuple(entries))
    return as_on_tied(carried, own[1]) if scores and _ties(here) else carried


def _ties(host: Side) -> bool:
    return ties(host.geometry, host_config(host.folder, host.name))


def _parts(side: str, tensors: Parameters) -> list[Parameters]:
    """Rows and factors of one side, each of which has tokens of its own; those that there are."""
    mine = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{side}.")}
    factors = {name: tensor for name, tensor in mine.items() if ".lora_" in name}
    rows = {name: tensor for name, tensor in mine.items() if name not in factors}
    return [part for part in (rows, factors) if part]


def _changed(side: str, tensors: Parameters, own: Tensor, dtype: str) -> list[int]:
    """The tokens whose rows a module changes, as far as the type tells that it is stored in.

    Args:
        own: the rows of its host, (tokens, width).
    """
    if f"{side}.tokens" in tensors:
        listed: list[int] = tensors[f"{side}.tokens"].tolist()
        return listed
    trained = tensors.get(f"{side}.weight")
    if trained is None:
        changed = _along_tokens(side, tensors).any(1)
    else:
        both = min(len(own), len(trained))
        stored = own[:both].to(getattr(torch, dtype)).to(trained)
        changed = torch.ones(len(trained), dtype=torch.bool)
        changed[:both] = (trained[:both] != stored).any(1)
    found: list[int] = torch.nonzero(changed).flatten().tolist()
    return found


def _along_tokens(side: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The factor that has a side of tokens: (tokens, rank)."""
    return tensors[f"{side}.lora_A"].mT if side == INPUT else tensors[f"{side}.lora_B"]


def _both(
    partners: Mapping[int, int], changed: Sequence[int], there: Tensor, here: Tensor
) -> Tensor:
    """The tokens that both hosts have rows of, those that are changed first: (tokens, 2)."""
    found = [
        (token, partners[token])
        for token in dict.fromkeys([*changed, *sorted(partners)])
        if token < len(there) and partners.get(token, len(here)) < len(here)
    ]
    return torch.tensor(found, dtype=torch.long).reshape(-1, 2)


@dataclass(frozen=True)
class _Way:
    """The way of one embedding: which rows a module changes, their tokens' partners, both hosts'
    own rows (tokens, width), and how changes are mapped; None where rows go as they are."""

    side: str
    changed: Sequence[int]
    partners: Mapping[int, int]
    there: Tensor
    here: Tensor
    row_map: RowMap | None

    @property
    def kept(self) -> list[tuple[int, int]]:
        """The changed tokens that the receiving host has a row of, and their partners."""
        size = len(self.here)
        pairs = [(row, self.partners.get(row, size)) for row in self.changed]
        return [(row, place) for row, place in pairs if place < size]

    def carried(self, tensors: Mapping[str, Tensor]) -> Carried:
        """The embedding, in the form that the module has it in."""
        if f"{self.side}.rows" in tensors:
            return self._some(tensors[f"{self.side}.rows"])
        if f"{self.side}.weight" in tensors:
            return self._all(tensors[f"{self.side}.weight"])
        return self._factors(tensors)

    def _all(self, trained: Tensor) -> Carried:
        """The receiving host's rows with those that the module changes."""
        name, result = f"{self.side}.weight", self.here.float().clone()
        places, rows = self._placed(trained[torch.tensor(self.changed, dtype=torch.long)])
        result[places] = rows
        return Carried({name: result}, self._told(name, tuple(result.shape), len(places)))

    def _some(self, trained: Tensor) -> Carried:
        """The rows that the module changes, (tokens, width), and their tokens on the receiving
        host; nothing where it has none of them."""
        name, numbers = f"{self.side}.rows", f"{self.side}.tokens"
        places, rows = self._placed(trained)
        told = self._told(name, tuple(rows.shape), len(places))
        if not len(places):
            return Carried({}, told)
        entry = Entry(numbers, numbers, "copied", tuple(places.shape), 1.0, "as they are here")
        return Carried({name: rows, numbers: places}, (*told, entry))

    def _placed(self, trained: Tensor) -> tuple[Tensor, Tensor]:
        """The receiving host's tokens that get rows, (kept,), and these, (kept, width).

        Args:
            trained: the rows of the tokens that the module changes, in their order.
        """
        order = {token: place for place, token in enumerate(self.changed)}
        kept = {place: token for token, place in self.kept}
        if self.row_map is not None:
            kept = {place: token for place, token in kept.items() if token < len(self.there)}
        sources = torch.tensor(list(kept.values()), dtype=torch.long)
        places = torch.tensor(list(kept), dtype=torch.long)
        rows = trained[[order[token] for token in kept.values()]].float()
        if self.row_map is None or not kept:
            return places, rows
        changes = _mapped(self.row_map, rows - self.there[sources].float())
        return places, self.here[places].float() + changes

    def _factors(self, tensors: Mapping[str, Tensor]) -> Carried:
        """Factors with the receiving host's tokens; those that the module does not know get
        zeros."""
        by_token, across = (f"{self.side}.lora_{f}" for f in ("AB" if self.side == INPUT else "BA"))
        along, kept = _along_tokens(self.side, tensors), self.kept
        placed = torch.zeros(len(self.here), along.shape[1], dtype=along.dtype)
        for row, place in kept:
            placed[place] = along[row]
        found = tensors[across].clone()
        if self.row_map is not None:
            ranks = found.mT if self.side == INPUT else found  # (rank, width)
            found = _mapped(self.row_map, ranks.float())
            found = found.mT.contiguous() if self.side == INPUT else found
        made = {by_token: (placed.mT if self.side == INPUT else placed).contiguous(), across: found}
        entries = self._told(by_token, tuple(made[by_token].shape), len(kept))
        action: Action = "copied" if self.row_map is None else "mapped"
        entries += (Entry(across, across, action, tuple(found.shape), scale=1.0),)
        return Carried(made, entries)

    def _told(self, name: str, shape: tuple[int, ...], carried: int) -> tuple[Entry, ...]:
        """What became of one tensor whose rows belong to tokens, so many of which are carried."""
        whole, kept, entries = len(self.changed), len(self.kept), list[Entry]()
        mapped = self.row_map is not None and not name.rpartition(".")[2].startswith("lora_")
        if carried:
            why = f"rows of {carried} of {whole} tokens, by their text"
            why = f"changes of {why}, added to the host's own" if mapped else why
            action: Action = "mapped" if mapped else "copied"
            entries.append(Entry(name, name, action, shape, scale=1.0, why=why))
        for lost, why in (
            (whole - kept, "are not in the receiving host's vocabulary"),
            (kept - carried, "have no row on the originating host, so that no change is known"),
        ):
            if lost:
                told = f"{lost} of {whole} tokens {why}"
                entries.append(Entry(name, None, "dropped", (lost, *shape[1:]), why=told))
        return tuple(entries)


def _mapped(row_map: RowMap, changes: Tensor) -> Tensor:
    """Changes (rows, origin) on the receiving host: (rows, receiver). Of many rows the map's matrix
    is made first, which takes as many rows as the originating host is wide."""
    width = changes.shape[1]
    if len(changes) <= width:
        return row_map(changes)
    return changes @ row_map(torch.eye(width))


def embedding(host: Side, side: str) -> Tensor:
    """One of a host's embeddings, (tokens, width); scores of a tied host come from its input's."""
    paths = host.geometry.embeddings
    names = [paths["output"], paths["input"]] if side == OUTPUT else [paths["input"]]
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
    written = token_texts(receiver)
    known = {text: number for number, text in sorted(written.items(), reverse=True)}
    return {n: known[text] for n, text in token_texts(origin).items() if text in known}


_MARKS = ("\u2581", "\u0120", "##")
"""With what vocabularies mark words: SentencePiece and byte-level ones their beginning, WordPiece
what goes on with one."""


def token_texts(tokenizer: Any) -> dict[int, str]:
    """The text of every token, whatever marks its vocabulary writes it with; special ones as they
    are called."""
    special = set(tokenizer.all_special_ids)
    pieces = tokenizer.get_vocab()
    # Large vocabularies have each mark somewhere; the one that most pieces begin with is theirs.
    begun = {mark: sum(piece.startswith(mark) for piece in pieces) for mark in _MARKS}
    most = max(begun, key=lambda mark: begun[mark])
    continued = most == "##" and begun[most] > 0
    to_bytes = _byte_letters() if most == "\u0120" and begun[most] else None
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

"""How unlabelled texts are put before the two hosts of a port, and which of their tokens stand
for the same characters.

Every text is read as the donor's task reads it. On encoder-decoder hosts it is also cut in two:
the encoder reads the first half and the decoder the second, because a task shows the decoder one
token alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import gt
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.kind import USUAL, kind_named
from peftport.kinds.sequences import turns_text
from peftport.memory import give_freed_memory_back
from peftport.porting.estimate import is_large
from peftport.porting.layers import layer_of
from peftport.porting.texts import require_enough
from peftport.tasks import encode_texts
from peftport.tasks.batches import padded
from peftport.tasks.task import TEMPLATES, Task
from peftport.tasks.verbalizer import continue_with

if TYPE_CHECKING:
    from peftport.hosts.host import Host

WORDS = 64
"""Longer texts are cut: a port needs many contexts and not long ones."""
_CHARACTERS = 1 << 14
"""A text whose words have more is none of words, and too long for any host."""
_SHORTER = 0.95
"""Of the length at which a text's share of tokens would fit: how long it is tried next."""
_AT_ONCE = 64
_TOKENS = 512
"""Tokens of a part at least, where a host's layers are narrow."""

Spans = list[tuple[int, int]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenRows:
    """Texts as the tokens of one host, padded on the right.

    Attributes:
        input_ids, attention_mask: (rows, tokens).
        decoder_ids: (rows, answer tokens) of an encoder-decoder, else None.
        labels: of rows with an answer, the token that follows each place of the decoder within it,
            and below 0 elsewhere: (rows, tokens), or (rows, answer tokens) of an encoder-decoder.
        places: stack -> places of the tokens that the other host has too, flat in
            (rows * tokens), in the same order for both hosts: (places,).
    """

    input_ids: Tensor
    attention_mask: Tensor
    decoder_ids: Tensor | None
    places: Mapping[str, Tensor]
    labels: Tensor | None = None

    def parts(self, most: int = _AT_ONCE, tokens: int | None = None) -> Iterator[TokenRows]:
        """The rows, at most so many at a time and as wide as they need, with their places.

        Args:
            tokens: of a part at most, padding among them, if it has more than one row.
        """
        lengths: list[int] = self.attention_mask.sum(1).tolist()
        start = 0
        while start < len(lengths):
            end = start + 1
            while end < min(start + most, len(lengths)) and (
                tokens is None or (end + 1 - start) * max(lengths[start : end + 1]) <= tokens
            ):
                end += 1
            yield self._part(start, end)
            start = end

    def _part(self, start: int, end: int) -> TokenRows:
        mask = self.attention_mask[start:end]
        longest = int(mask.sum(1).max())
        decoder = None if self.decoder_ids is None else self.decoder_ids[start:end]
        labels = None if self.labels is None else self.labels[start:end]
        if labels is not None and decoder is None:
            labels = labels[:, :longest]
        part = TokenRows(
            self.input_ids[start:end, :longest], mask[:, :longest], decoder, {}, labels
        )
        places = {}
        for stack, flat in self.places.items():
            row, column = flat // self._width(stack), flat % self._width(stack)
            inside = (row >= start) & (row < end)
            places[stack] = ((row - start) * part._width(stack) + column)[inside]
        return replace(part, places=places)

    def _width(self, stack: str) -> int:
        of_decoder = stack == "decoder" and self.decoder_ids is not None
        return (self.decoder_ids if of_decoder else self.input_ids).shape[1]  # type: ignore[union-attr]


def parts_for(geometry: Geometry, rows: TokenRows) -> Iterator[TokenRows]:
    """The rows, as many at a time as suit a host.

    What a large host takes for one part is given back before the next, which has buffers of other
    sizes: they fit into no place that is free.
    """
    for part in rows.parts(tokens=tokens_at_once(geometry)):
        if is_large(geometry):
            give_freed_memory_back()
        yield part


def tokens_at_once(geometry: Geometry) -> int:
    """How many tokens, padding among them, are read at a time: so many that what a layer makes of
    them weighs what the layer does.

    A large host's weights are read from its files for every part, and with few tokens the reading
    would take longer than the multiplying.
    """
    first = layer_of(next(iter(geometry.linears)))
    layer = [each for point, each in geometry.linears.items() if layer_of(point) == first]
    weights = 2 * sum(each.inputs * each.outputs for each in layer)  # bytes, in half precision
    activations = 4 * sum(each.inputs + each.outputs for each in layer)
    return max(_TOKENS, weights // activations)


def task_of(record: Mapping[str, Any]) -> Task:
    """The donor's task as it is read, without its data, from a module's record."""
    words, kind = record.get("label_words"), kind_named(record.get("kind", USUAL))
    return Task(
        name=str(record.get("name", "unknown")),
        source="",
        labels=tuple(record.get("labels", ())),
        label_words=tuple(words) if words else None,
        templates={**TEMPLATES, **(record.get("templates") or {})},
        max_tokens=int(record.get("max_tokens") or kind.max_tokens),
        splits={},
        limits={},
        kind=kind.name,
        form=record.get("form", "labelled"),
        flat=bool(record.get("flat")),
        system=record.get("system"),
        max_answer=record.get("max_answer"),
    )


def rows_of_task(host: Host, task: Task, texts: Sequence[str]) -> TokenRows:
    """Texts as a task reads them on one host, with the place at which classes are read."""
    from peftport.hosts.host import start_token

    kind = host.geometry.kind
    encoded = encode_texts(host.tokenizer, task, texts, np.zeros(len(texts)), kind)
    batch = encoded.batch(np.arange(len(texts)))
    rows, width = batch.input_ids.shape
    decoder, places = None, torch.arange(rows)
    if kind == "encoder-decoder":
        decoder = torch.full((rows, 1), start_token(host.model.config))
    else:
        places = places * width + batch.attention_mask.sum(1) - 1
    return TokenRows(batch.input_ids, batch.attention_mask, decoder, {"decoder": places})


def without_template(task: Task, text: str) -> str:
    """A text as both hosts can read it alike: a chat without what a host's template adds."""
    return turns_text(text) if task.form == "messages" else text


def read_pair(
    tokenizers: tuple[Any, Any],
    starts: tuple[int | None, int | None],
    task: Task,
    kind: str,
    texts: Sequence[str],
    most: int,
    generator: torch.Generator,
    answers: Sequence[str] | None = None,
    spoken: bool = False,
) -> tuple[list[TokenRows], list[TokenRows]]:
    """Texts as passes of the originating and of the receiving host.

    Texts that are longer than the task reads on one of the hosts are cut; with an answer, which
    cannot be cut, they are left out with a notice.

    Args:
        tokenizers: of the two hosts, fast ones.
        starts: the token with which each host's decoder starts; None where there is none.
        kind: of both hosts.
        most: places that are kept of each pass and stack, drawn by `generator`.
        answers: to each text, of tasks that ask for text; the decoders read them, too.
        spoken: whether a decoder's texts are themselves what is to be said.

    Returns:
        For each host its passes: the texts as the task is read, and on encoder-decoders the
        texts cut in two; short texts before long ones, so that little of them is padding.

    Raises:
        BadInput: too few texts, or no token of one host ends where one of the other does.
    """
    texts = [" ".join(without_template(task, text).split()[:WORDS]) for text in texts]
    texts = [text if len(text) <= _CHARACTERS else "" for text in texts]
    kept = [row for row, text in enumerate(texts) if text and (not answers or answers[row])]
    said = [answers[row].strip() for row in kept] if answers else None
    require_enough(len(kept), "texts are too few to fit maps on")
    whole = [_Side(t, s, kind, task.max_tokens) for t, s in zip(tokenizers, starts, strict=True)]
    template = task.templates[kind]
    texts = _shortened(texts, template, whole)
    written = [template.replace("{text}", texts[row]) for row in kept]
    ends: list[int] | None = [0] * len(written) if said is not None or spoken else None
    if said is not None and kind == "decoder":
        ends = [len(text) for text in written]
        both = [continue_with(t, answer) for t, answer in zip(written, said, strict=True)]
        passes = [_paired(whole, both, None, most, generator, ends)]
    else:
        passes = [_paired(whole, written, said, most, generator, ends)]
    if kind == "encoder-decoder":
        halves = [_halves(text) for text in texts if len(text.split()) > 1]
        # Not every language has spaces between its words.
        halves = halves or [(t[: len(t) // 2], t[len(t) // 2 :]) for t in texts if len(t) > 1]
        if halves:
            first, second = [h for h, _ in halves], [h for _, h in halves]
            passes.append(_paired(whole, first, second, most, generator))
    return [origin for origin, _ in passes], [receiver for _, receiver in passes]


def _shortened(texts: Sequence[str], template: str, sides: Sequence[_Side]) -> list[str]:
    """Texts, each cut so that both hosts read it whole within the template."""
    written = [template.replace("{text}", text) for text in texts]
    fits = [[len(ids) <= side.limit for ids, _ in side.read(written)] for side in sides]
    return [
        text if all(both) else _cut(text, template, sides)
        for text, *both in zip(texts, *fits, strict=True)
    ]


def _cut(text: str, template: str, sides: Sequence[_Side]) -> str:
    while True:
        written = template.replace("{text}", text)
        over = max(len(side.read([written])[0][0]) / side.limit for side in sides)
        if over <= 1 or not text:
            return text
        text = text[: int(_SHORTER * len(text) / over)].rstrip()


@dataclass(frozen=True)
class _Side:
    """One host's way to read: tokenizer, first token of the decoder, and limit."""

    tokenizer: Any
    start: int | None
    kind: str
    limit: int

    def read(self, texts: list[str]) -> list[tuple[list[int], Spans]]:
        """Ids and character spans of each text; special tokens have the span (0, 0)."""
        found = self.tokenizer(
            texts, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False
        )
        rows = []
        for row, ids in enumerate(found["input_ids"]):
            spans = found["offset_mapping"][row]
            special = found["special_tokens_mask"][row]
            end = len(ids)
            # On a decoder the label word follows the template, and no special token does.
            while self.kind == "decoder" and end and special[end - 1]:
                end -= 1
            marked = [
                (0, 0) if s else (int(a), int(b)) for (a, b), s in zip(spans, special, strict=True)
            ]
            rows.append((list(ids[:end]), marked[:end]))
        return rows

    def answer(self, texts: list[str] | None, rows: int) -> list[tuple[list[int], Spans]]:
        """What the decoder reads: its first token, and after it `texts` if there are any."""
        assert self.start is not None
        if texts is None:
            return [([self.start], [(0, 0)])] * rows
        found = self.tokenizer(
            texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            ([self.start, *ids], [(0, 0), *((int(a), int(b)) for a, b in spans)])
            for ids, spans in zip(found["input_ids"], found["offset_mapping"], strict=True)
        ]


def _paired(
    sides: list[_Side],
    texts: list[str],
    answers: list[str] | None,
    most: int,
    generator: torch.Generator,
    ends: list[int] | None = None,
) -> tuple[TokenRows, TokenRows]:
    """One pass of both hosts over the texts that fit into both.

    Args:
        ends: where in what a decoder reads its answer begins, for rows that have one.
    """
    stack = "decoder" if sides[0].kind == "decoder" else "encoder"
    streams = {stack: [side.read(texts) for side in sides]}
    if sides[0].kind == "encoder-decoder":
        streams["decoder"] = [side.answer(answers, len(texts)) for side in sides]
    most_of = [side.limit for side in sides]
    lengths = list(zip(*([len(ids) for ids, _ in read] for read in streams[stack]), strict=True))
    long = [any(map(gt, each, most_of)) for each in lengths]
    if any(long):
        limit = min(most_of)
        fitting = len(texts) - sum(long)
        few = f"of {len(texts)} texts fit into max_tokens {limit}, too few to fit maps on"
        require_enough(fitting, few)
        _log.warning(
            "notice: %d of %d texts do not fit into max_tokens %d and are left out",
            *(sum(long), len(texts), limit),
        )
    fits = [row for row, each in enumerate(lengths) if all(each) and not long[row]]
    fits.sort(key=lambda row: sum(len(read[row][0]) for read in streams[stack]))
    streams = {s: [[read[r] for r in fits] for read in both] for s, both in streams.items()}
    begins = None if ends is None else [ends[row] for row in fits]
    places = {s: _places(both, most, generator) for s, both in streams.items()}
    made = []
    for index, side in enumerate(sides):
        pad = side.tokenizer.pad_token_id or 0
        ids, mask = _padded([ids for ids, _ in streams[stack][index]], pad)
        decoder = None
        if stack == "encoder" and "decoder" in streams:
            decoder, _ = _padded([ids for ids, _ in streams["decoder"][index]], pad)
        labels = None if begins is None else _labels(streams["decoder"][index], begins)
        of_side = {s: both[index] for s, both in places.items()}
        made.append(TokenRows(ids, mask, decoder, of_side, labels))
    return made[0], made[1]


def _labels(read: list[tuple[list[int], Spans]], begins: list[int]) -> Tensor:
    """The token that follows each place, where it is one of the answer, else -1: (rows, tokens)."""
    width = max(len(ids) for ids, _ in read)
    labels = torch.full((len(read), width), -1)
    for row, ((ids, spans), begin) in enumerate(zip(read, begins, strict=True)):
        for place in range(len(ids) - 1):
            if spans[place + 1][1] > begin:
                labels[row, place] = ids[place + 1]
    return labels


def _places(
    both: list[list[tuple[list[int], Spans]]], most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Flat places of the tokens that end at the same character on both hosts, `most` of them."""
    widths = [max((len(ids) for ids, _ in side), default=0) for side in both]
    pairs, of_text = [], False
    for row, ((_, origin), (_, receiver)) in enumerate(zip(*both, strict=True)):
        for i, j in aligned(origin, receiver):
            pairs.append((row * widths[0] + i, row * widths[1] + j))
            of_text = of_text or origin[i][1] > 0
    read = any(end for side in both for _, spans in side for _, end in spans)
    if not pairs or (read and not of_text):  # special tokens alone say nothing of a text
        raise BadInput(
            "the two hosts' tokenizers have nothing in common on these texts: no token of one "
            "ends where a token of the other does."
        )
    chosen = torch.randperm(len(pairs), generator=generator)[:most].sort().values
    flat = torch.tensor(pairs)[chosen]  # (places, 2)
    return flat[:, 0], flat[:, 1]


def aligned(origin: Spans, receiver: Spans) -> list[tuple[int, int]]:
    """Pairs of tokens that end at the same character of one text.

    Special tokens, of span (0, 0), are paired with each other at the text's beginning and end.
    """
    if origin == receiver:
        return [(i, i) for i in range(len(origin))]
    ends = {end: j for j, (_, end) in enumerate(receiver) if end}
    pairs = [(i, ends[end]) for i, (_, end) in enumerate(origin) if end in ends]
    if origin and receiver:
        if origin[0] == receiver[0] == (0, 0):
            pairs.insert(0, (0, 0))
        if origin[-1] == receiver[-1] == (0, 0) and min(len(origin), len(receiver)) > 1:
            pairs.append((len(origin) - 1, len(receiver) - 1))
    return pairs


def _halves(text: str) -> tuple[str, str]:
    words = text.split()
    middle = len(words) // 2
    return " ".join(words[:middle]), " ".join(words[middle:])


def _padded(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    """(rows, tokens) of ids and of the mask that is 1 where there is a token."""
    return padded(rows, pad), padded([[1] * len(row) for row in rows], 0)

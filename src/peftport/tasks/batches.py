"""Rows tokenised once, and the batches that training and testing draw from them.

A training step takes its rows from one length bucket. Which bucket each step takes depends only on
the data and the batch size, the rows in it only on the lane's seed, and a batch is as long as its
bucket: a lane sees the same batches, in the same shape, whether it runs alone or with others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.tasks.task import Task
from peftport.tasks.tokens import WORTH_KEEPING, Tokens, kept_tokens, tokens_hash

Integers = npt.NDArray[np.integer[Any]]

MULTIPLE = 8
"""Training batches are padded to a multiple of this; which rows they hold follows from it."""

TEST_MULTIPLE = 2
TEST_TOKENS = 3072
"""What a test batch is padded to and how large it is: the fastest of what was tried on a CPU."""

_CHUNK = 4096
_CHARACTERS, _MOST = 8, 1 << 10
_BUCKET_BATCHES = 4


@dataclass(frozen=True)
class Batch:
    """Rows padded on the right; `attention_mask` is 1 where there is a token.

    Shapes: input_ids and attention_mask (rows, tokens), labels (rows,); all int64. Labels may also
    be probabilities (rows, classes), float32. With several lanes the rows are lane-major: lane 0's
    rows first.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        moved = (t.to(device) for t in (self.input_ids, self.attention_mask, self.labels))
        return Batch(*moved)


@dataclass(frozen=True)
class Encoded:
    """The tokenised rows of a split, one after the other in `tokens`.

    Shapes: tokens (all tokens,) int32, offsets (rows + 1,) int64, labels (rows,) int64, or
    probabilities (rows, classes) float32. Row i is `tokens[offsets[i]:offsets[i + 1]]`. `pad` fills
    what `attention_mask` hides.
    """

    tokens: Integers
    offsets: Integers
    labels: npt.NDArray[Any]
    pad: int

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Integers:
        """Tokens of each row, (rows,)."""
        return np.diff(self.offsets)

    @property
    def width_beside(self) -> int:
        """Tokens that a row's labels take beside its input; 0 where they stand at the input's."""
        return 0

    def batch(self, rows: Integers, length: int | None = None) -> Batch:
        """Return `rows` in the given order, padded to `length` or to their longest, in eights."""
        lengths = self.lengths[rows]
        longest = length or int(rounded_up(lengths.max()))
        columns = np.arange(longest)
        mask = columns < lengths[:, None]  # (rows, tokens)
        places = np.where(mask, self.offsets[rows][:, None] + columns, 0)  # (rows, tokens)
        ids = np.where(mask, self.tokens[places], self.pad)  # (rows, tokens)
        return Batch(
            torch.from_numpy(ids.astype(np.int64)),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(self.labels[rows]),
        )

    def training_batches(
        self, batch_size: int, steps: int, seeds: Sequence[int]
    ) -> Iterator[Batch]:
        """Yield `steps` batches of (lanes * batch_size, tokens), lane-major, one seed a lane.

        Each lane draws without replacement: every row once an epoch, but for the last batch of a
        bucket, which goes on into the bucket's next epoch. A bucket with fewer rows than a batch
        gives some of them more than once.
        """
        buckets = _buckets(self.lengths, batch_size)
        lanes = [_Lane(seed, buckets, batch_size) for seed in seeds]
        order = _bucket_order([len(rows) for rows, _ in buckets], batch_size)
        for _, bucket in zip(range(steps), order, strict=False):
            rows = np.concatenate([lane.draw(bucket) for lane in lanes])  # (lanes * batch_size,)
            yield self.batch(rows, buckets[bucket][1])

    def longest_batch(self, batch_size: int, steps: int) -> int:
        """Tokens of a row of the longest of so many batches that a training draws, whatever its
        lanes' seeds."""
        buckets = _buckets(self.lengths, batch_size)
        drawn = islice(_bucket_order([len(rows) for rows, _ in buckets], batch_size), steps)
        return max((buckets[bucket][1] for bucket in drawn), default=0)

    def evaluation_batches(
        self, tokens_per_batch: int = TEST_TOKENS, lanes: int = 1
    ) -> Iterator[tuple[Integers, Batch]]:
        """Yield every row once, longest first, as many at a time as fit into `tokens_per_batch`.

        A batch ends early before rows that are a tenth shorter than its longest. What is asked for
        beside the input counts as tokens do where it is longer.
        Returns pairs of row numbers (rows,) and their batch. With several lanes the batch holds
        the rows once for each lane, lane-major: (lanes * rows, tokens).
        """
        order = np.argsort(-self.lengths, kind="stable")
        padded = rounded_up(self.lengths[order], TEST_MULTIPLE)  # (all rows,)
        start = 0
        while start < len(order):
            longest = int(padded[start])
            fitting = max(1, tokens_per_batch // (max(longest, self.width_beside) * lanes))
            alike = int(np.count_nonzero(10 * padded[start : start + fitting] > 9 * longest))
            rows = order[start : start + alike]
            yield rows, self.batch(np.tile(rows, lanes), longest)
            start += alike


def encode(tokenizer: Any, task: Task, split: str, kind: str) -> Encoded:
    """Tokenise a split for a kind of host, as what the task asks for has it put before one.

    Args:
        tokenizer: a fast transformers tokenizer.
        split: "train", "validation" or "test".
        kind: "encoder", "encoder-decoder" or "decoder".

    Raises:
        BadInput: a template that leaves no room for text, a row that gives no token, or a
            tokenizer that does not tell where its tokens stand in the text.
    """
    return task.asks.encode(tokenizer, task, split, kind)


def encode_texts(
    tokenizer: Any,
    task: Task,
    texts: Sequence[str],
    labels: npt.ArrayLike,
    kind: str,
    called: str = "unlabelled",
) -> Encoded:
    """Tokenise texts as the rows of a task with classes, with the host's special tokens.

    A row that would be longer than `task.max_tokens` (or than the tokenizer says its host takes)
    loses the end of its text; the template around the text always stays whole. On a decoder no
    special token follows the template, because the label word does. Errors as for `encode`.

    Args:
        labels: a class for each text, or probabilities (texts, classes).
        called: what the texts are called in messages.
    """
    if not tokenizer.is_fast:
        raise BadInput(
            f"the tokenizer {type(tokenizer).__name__} is not a fast one (no tokenizer.json), "
            "which peftport needs to cut long texts."
        )
    make = partial(_tokenised, tokenizer, task, texts, kind)
    if len(texts) < WORTH_KEEPING:
        lengths, tokens = make()
    else:
        lengths, tokens = kept_tokens(tokens_hash(tokenizer, task, texts, kind), make)
    if not lengths.all():
        text = texts[int(lengths.argmin())]
        raise BadInput(f"task {task.name}: the {called} text {text!r} gives no token on this host.")
    known = np.asarray(labels)
    return Encoded(
        tokens=tokens,
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        labels=known.astype(np.int64 if known.ndim == 1 else np.float32),
        pad=pad_of(tokenizer),
    )


def _tokenised(tokenizer: Any, task: Task, texts: Sequence[str], kind: str) -> Tokens:
    """Tokens of each text, (texts,), and all tokens, within the template."""
    writer = _Writer(tokenizer, task, kind)
    pieces: list[npt.NDArray[np.int32]] = []
    for start in range(0, len(texts), _CHUNK):
        written = writer.rows(list(texts[start : start + _CHUNK]))
        pieces += [np.asarray(ids, dtype=np.int32) for ids in written]
    lengths = np.fromiter((len(piece) for piece in pieces), dtype=np.int32, count=len(pieces))
    return lengths, np.concatenate(pieces)


class _Writer:
    """Writes texts into a task's template and tokenises them, none longer than the limit."""

    def __init__(self, tokenizer: Any, task: Task, kind: str) -> None:
        self.tokenizer = tokenizer
        self.template = task.templates[kind]
        self.limit = min(task.max_tokens, tokenizer.model_max_length)
        self.closing = closing_tokens(tokenizer) if kind == "decoder" else 0
        (empty,), _ = self._read([""])
        if len(empty) >= self.limit:
            raise BadInput(
                f"task {task.name}: the template {self.template!r} is {len(empty)} tokens long and "
                f"leaves no room for text within max_tokens {self.limit}."
            )

    def rows(self, texts: list[str]) -> list[list[int]]:
        """Return the tokens of each text within the template, cut to the limit."""
        # The beginning of a very long text is enough, unless its tokens are unusually long.
        given = [text[: _MOST * self.limit] for text in texts]
        texts = [text[: _CHARACTERS * self.limit] for text in texts]
        ids, read = self._read(texts)
        for row, tokens in enumerate(ids):
            if len(texts[row]) < len(given[row]) and len(tokens) <= self.limit:
                texts[row] = given[row]
                (ids[row],), (read[row],) = self._read([given[row]])
        long = [row for row, tokens in enumerate(ids) if len(tokens) > self.limit]
        if long:
            ends = [self._ends(texts[row], read[row]) for row in long]
            shortened = self._cut([texts[row] for row in long], ends, [len(ids[r]) for r in long])
            for row, tokens in zip(long, shortened, strict=True):
                ids[row] = tokens
        return ids

    def _read(self, texts: list[str]) -> tuple[list[list[int]], list[Any]]:
        """The tokens of texts within the template, and how the tokenizer found them."""
        result = self.tokenizer(
            [self.template.replace("{text}", text) for text in texts],
            padding=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return [ids[: len(ids) - self.closing] for ids in result["input_ids"]], result.encodings

    def _ends(self, text: str, read: Any) -> list[int]:
        """Where each token of the text ends in it; the template's own tokens are left out."""
        start = self.template.index("{text}")
        return [end - start for _, end in read.offsets if 0 < end - start <= len(text)]

    def _cut(self, texts: list[str], ends: list[list[int]], lengths: list[int]) -> list[list[int]]:
        """Take tokens off the end of each text until all fit.

        What is left of a cut word can be read as more tokens than before, so one pass is not
        always enough.
        """
        kept = [len(row) for row in ends]
        result: list[list[int]] = [[]] * len(texts)
        pending = list(range(len(texts)))
        while pending:
            for row in pending:
                kept[row] = max(0, kept[row] - (lengths[row] - self.limit))
            cut = [texts[row][: ends[row][kept[row] - 1] if kept[row] else 0] for row in pending]
            shorter, _ = self._read([text.rstrip() for text in cut])
            for row, ids in zip(pending, shorter, strict=True):
                result[row], lengths[row] = ids, len(ids)
            pending = [row for row in pending if lengths[row] > self.limit]
        return result


def closing_tokens(tokenizer: Any) -> int:
    """How many special tokens the tokenizer puts after a text."""
    special = tokenizer("it", return_special_tokens_mask=True)["special_tokens_mask"]
    return next((i for i, mark in enumerate(reversed(special)) if not mark), 0)


def rounded_up(length: Any, multiple: int = MULTIPLE) -> Any:
    """A length, or an array of lengths, rounded up to a multiple."""
    return -(-length // multiple) * multiple


def pad_of(tokenizer: Any) -> int:
    """The token that fills rows up; any where the tokenizer has none, for it is masked."""
    found = tokenizer.pad_token_id
    return 0 if found is None else int(found)


def padded(rows: Sequence[Sequence[int]], value: int, left: bool = False) -> torch.Tensor:
    """Rows filled up with a value, on the right or on the left: (rows, tokens)."""
    longest = max(map(len, rows))
    fill = ([value] * (longest - len(row)) for row in rows)
    both = zip(rows, fill, strict=True)
    return torch.tensor([[*more, *row] if left else [*row, *more] for row, more in both])


def _buckets(lengths: Integers, batch_size: int) -> list[tuple[Integers, int]]:
    """Group rows of like length: (row numbers, padded length), longest first.

    A bucket has a few batches of rows at least. The rows that are missing are taken from those
    next in length, so that few rows are padded further than they need; rows of one padded length
    come in a mixed order, so that a file sorted by label is not cut by label.
    """
    padded = rounded_up(lengths)
    mixed = np.random.default_rng(len(lengths)).permutation(len(lengths))
    order = mixed[np.argsort(-padded[mixed], kind="stable")]
    least = _BUCKET_BATCHES * batch_size
    buckets: list[tuple[Integers, int]] = []
    start = 0
    while start < len(order):
        longest = int(padded[order[start]])
        same = int(np.count_nonzero(padded[order[start:]] == longest))
        end = start + max(same, least)
        if len(order) - end < least:
            end = len(order)
        buckets.append((order[start:end], longest))
        start = end
    return buckets


def _bucket_order(sizes: list[int], batch_size: int) -> Iterator[int]:
    """Yield the bucket of each step, without end: in an epoch each in proportion to its rows."""
    total = np.asarray(sizes)
    epoch = 0
    while True:
        steps = -(-total * (epoch + 1) // batch_size) - -(-total * epoch // batch_size)
        drawn = np.repeat(np.arange(len(sizes)), steps)
        yield from np.random.default_rng([epoch, batch_size]).permutation(drawn).tolist()
        epoch += 1


class _Lane:
    """Draws one lane's rows: each bucket is an endless row of shuffles, taken batch by batch."""

    def __init__(self, seed: int, buckets: list[tuple[Integers, int]], batch_size: int) -> None:
        self.seed = seed
        self.buckets = buckets
        self.batch_size = batch_size
        self.left: list[Integers] = [rows[:0] for rows, _ in buckets]
        self.shuffles = [0] * len(buckets)

    def draw(self, bucket: int) -> Integers:
        """The bucket's next batch_size rows."""
        while len(self.left[bucket]) < self.batch_size:
            generator = np.random.default_rng([self.seed, bucket, self.shuffles[bucket]])
            shuffled = generator.permutation(self.buckets[bucket][0])
            self.left[bucket] = np.concatenate([self.left[bucket], shuffled])
            self.shuffles[bucket] += 1
        drawn = self.left[bucket][: self.batch_size]
        self.left[bucket] = self.left[bucket][self.batch_size :]
        return drawn

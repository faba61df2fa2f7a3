"""What a host is pretrained on: span corruption, masked tokens, the next token, or a teacher.

Each objective turns rows of token ids into a batch and a batch into a loss. Sources: span
corruption, Raffel et al. 2020 (arXiv 1910.10683, section 3.1.4); masked tokens with the 80/10/10
rule, Devlin et al. 2019 (arXiv 1810.04805, section 3.1), drawn anew in every epoch as in RoBERTa;
a teacher's hidden states, TinyBERT (Jiao et al. 2020, arXiv 1909.10351, equation 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

IGNORED = -100
"""The target of a position that does not count, as torch's cross entropy has it."""

Ids = np.ndarray
Batch = dict[str, Tensor]


class Objective(Protocol):
    """How rows become a batch, and a batch a loss."""

    name: str

    def batch(self, rows: Sequence[Ids], rng: np.random.Generator) -> Batch:
        """Return the tensors of one step, padded on the right; `rows` hold int64 token ids."""

    def loss(self, model: Any, batch: Batch) -> Tensor:
        """Return the mean loss over the batch's target tokens, a scalar; in nats where tokens are
        named."""


class SpanCorruption:
    """Spans are cut out of the text, a sentinel stands for each, and the decoder writes them.

    Args:
        sentinels: ids of `<extra_id_0>`, `<extra_id_1>`, ...
        eos, pad: ids of `</s>` and `<pad>`; the decoder starts with `<pad>`.
        density: share of tokens that is cut out.
        mean_span: mean length of a span, in tokens.
    """

    name = "span-corruption"

    def __init__(
        self,
        sentinels: Sequence[int],
        eos: int,
        pad: int,
        density: float = 0.15,
        mean_span: float = 3.0,
    ) -> None:
        self.sentinels = np.asarray(sentinels, dtype=np.int64)
        self.eos, self.pad = eos, pad
        self.density, self.mean_span = density, mean_span

    def corrupt(self, row: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """Return (input, target) for one row: every token is in exactly one of the two."""
        noise = min(max(round(len(row) * self.density), 1), len(row))
        spans = min(max(round(noise / self.mean_span), 1), len(self.sentinels) - 1, noise)
        cut = _parts(noise, spans, 1, rng)
        kept = _parts(len(row) - noise, spans + 1, 0, rng)
        source: list[Ids] = []
        target: list[Ids] = []
        at = 0
        for index in range(spans):
            sentinel = self.sentinels[index : index + 1]
            middle, end = at + kept[index], at + kept[index] + cut[index]
            source += [row[at:middle], sentinel]
            target += [sentinel, row[middle:end]]
            at = end
        source += [row[at:], np.asarray([self.eos])]
        target += [self.sentinels[spans : spans + 1], np.asarray([self.eos])]
        return np.concatenate(source), np.concatenate(target)

    def batch(self, rows: Sequence[Ids], rng: np.random.Generator) -> Batch:
        return self.pairs([self.corrupt(row, rng) for row in rows])

    def pairs(self, pairs: Sequence[tuple[Ids, Ids]]) -> Batch:
        """Return the batch of given inputs and targets, both with their final `</s>`."""
        source = _padded([source for source, _ in pairs], self.pad)
        labels = _padded([target for _, target in pairs], IGNORED)
        return {
            "input_ids": source,
            "attention_mask": (source != self.pad).long(),
            "labels": labels,
        }

    def loss(self, model: Any, batch: Batch) -> Tensor:
        loss: Tensor = model(**batch, use_cache=False).loss
        return loss


class MaskedTokens:
    """Some tokens are hidden and named again: 80 % as the mask, 10 % as another, 10 % as they are.

    Args:
        mask, pad: ids of those tokens.
        ordinary: ids from which a replacement is drawn (no special tokens).
        start, end: ids put before and after every row; never hidden.
        density: share of tokens that must be named.
    """

    name = "masked-tokens"

    def __init__(
        self,
        mask: int,
        pad: int,
        ordinary: Sequence[int],
        start: int,
        end: int,
        density: float = 0.15,
    ) -> None:
        self.mask, self.pad, self.start, self.end = mask, pad, start, end
        self.ordinary = np.asarray(ordinary, dtype=np.int64)
        self.density = density

    def hide(self, row: Ids, rng: np.random.Generator) -> tuple[Ids, Ids]:
        """Return (input, target) of one row's length plus two; targets elsewhere are IGNORED."""
        count = max(round(len(row) * self.density), 1)
        chosen = rng.permutation(len(row))[:count]
        seen, target = row.copy(), np.full(len(row), IGNORED, dtype=np.int64)
        target[chosen] = row[chosen]
        kind = rng.random(count)
        seen[chosen[kind < 0.8]] = self.mask
        other = chosen[kind >= 0.9]
        seen[other] = rng.choice(self.ordinary, size=len(other))
        return (
            np.concatenate([[self.start], seen, [self.end]]),
            np.concatenate([[IGNORED], target, [IGNORED]]),
        )

    def batch(self, rows: Sequence[Ids], rng: np.random.Generator) -> Batch:
        hidden = [self.hide(row, rng) for row in rows]
        inputs = _padded([seen for seen, _ in hidden], self.pad)
        labels = _padded([target for _, target in hidden], IGNORED)
        mask = _mask([seen for seen, _ in hidden])
        return {"input_ids": inputs, "attention_mask": mask.long(), "labels": labels}

    def loss(self, model: Any, batch: Batch) -> Tensor:
        states = model.base_model(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
        ).last_hidden_state  # (batch, tokens, width)
        head = getattr(model, "cls", None) or getattr(model, "lm_head", None)
        if head is not None:
            return _loss_at(states, batch["labels"], head)
        given = {name: batch[name] for name in ("input_ids", "attention_mask")}
        return _loss_of(model(**given).logits, batch["labels"])


class NextToken:
    """Every token is predicted from those before it; `end` closes each row.

    Args:
        end, pad: ids of the end of text and of padding (which may be the same token).
        start: id put before every row, or None.
    """

    name = "next-token"

    def __init__(self, end: int, pad: int, start: int | None = None) -> None:
        self.start, self.end, self.pad = start, end, pad

    def batch(self, rows: Sequence[Ids], rng: np.random.Generator) -> Batch:
        first = [] if self.start is None else [self.start]
        whole = [np.concatenate([first, row, [self.end]]).astype(np.int64) for row in rows]
        inputs, mask = _padded(whole, self.pad), _mask(whole)
        labels = inputs.masked_fill(~mask, IGNORED)
        return {"input_ids": inputs, "attention_mask": mask.long(), "labels": labels}

    def loss(self, model: Any, batch: Batch) -> Tensor:
        # A causal host never looks at padding on the right, so that no mask is needed. The logits
        # are the model's own: some families scale or cap what their head gives.
        logits = model(input_ids=batch["input_ids"], use_cache=False).logits
        return _loss_of(logits[:, :-1], batch["labels"][:, 1:])


class Taught(nn.Module):
    """An encoder beside its teacher, and a linear map from its states to the teacher's.

    Neither the teacher nor the map is a part of the host that is made.
    """

    def __init__(self, encoder: nn.Module, teacher: nn.Module) -> None:
        super().__init__()
        self.encoder, self.teacher = encoder, teacher.requires_grad_(False)
        self.map = nn.Linear(_width(encoder), _width(teacher))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mean squared error of the teacher's states, which have variance 1 in every token: 1 when
        nothing is learnt."""
        given = {"input_ids": input_ids, "attention_mask": attention_mask}
        here = attention_mask.bool()  # (batch, tokens)
        with torch.no_grad():
            wanted = self.teacher(**given).last_hidden_state[here]  # (tokens, width)
            wanted = nn.functional.layer_norm(wanted, wanted.shape[-1:])
        found = self.map(self.encoder(**given).last_hidden_state[here])
        return nn.functional.mse_loss(found, wanted)


class TeacherStates:
    """The last hidden state of a teacher is learnt at every token, special ones included.

    Args:
        pad, start, end: ids of padding, and of what is put before and after every row.
    """

    name = "teacher-states"

    def __init__(self, pad: int, start: int, end: int) -> None:
        self.pad, self.start, self.end = pad, start, end

    def batch(self, rows: Sequence[Ids], rng: np.random.Generator) -> Batch:
        whole = [np.concatenate([[self.start], row, [self.end]]) for row in rows]
        return {"input_ids": _padded(whole, self.pad), "attention_mask": _mask(whole).long()}

    def loss(self, model: Any, batch: Batch) -> Tensor:
        loss: Tensor = model(**batch)
        return loss


def _width(encoder: Any) -> int:
    width: int = encoder.config.hidden_size
    return width


def _loss_at(states: Tensor, labels: Tensor, head: nn.Module) -> Tensor:
    """Mean cross entropy where labels count: (batch, tokens, width) against (batch, tokens)."""
    # The vocabulary's logits are the dearest product of a small host: only where needed.
    wanted = labels != IGNORED
    logits = head(states[wanted])  # (targets, vocabulary)
    return nn.functional.cross_entropy(logits.float(), labels[wanted])


def _loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy where labels count: (batch, tokens, vocabulary), (batch, tokens)."""
    wanted = labels != IGNORED
    return nn.functional.cross_entropy(logits[wanted].float(), labels[wanted])


def _parts(total: int, parts: int, least: int, rng: np.random.Generator) -> list[int]:
    """Cut `total` into random whole numbers of at least `least`, all ways equally likely."""
    free = total - parts * least
    bars = np.sort(rng.permutation(free + parts - 1)[: parts - 1])
    edges = np.concatenate([[-1], bars, [free + parts - 1]])
    return [int(width) - 1 + least for width in np.diff(edges)]


def _padded(rows: Sequence[Ids], pad: int) -> Tensor:
    """Stack rows of different lengths, padded on the right: (rows, longest)."""
    out = np.full((len(rows), max(len(row) for row in rows)), pad, dtype=np.int64)
    for index, row in enumerate(rows):
        out[index, : len(row)] = row
    return torch.from_numpy(out)


def _mask(rows: Sequence[Ids]) -> Tensor:
    """Where rows that are padded on the right have a token: (rows, longest)."""
    lengths = torch.tensor([len(row) for row in rows])
    return torch.arange(int(lengths.max())) < lengths[:, None]

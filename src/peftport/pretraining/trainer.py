"""Trains all of a model's weights on rows of tokens: what makes a host."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from peftport.errors import BadInput, RunFailed
from peftport.hosts.precision import Precision
from peftport.pretraining.objectives import Ids, Objective
from peftport.progress import Losses

WARMUP = 0.05
FLOOR = 0.1
CLIP = 1.0
_POOL = 32


def train_model(
    model: nn.Module,
    rows: Sequence[Ids],
    objective: Objective,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    tokens_per_batch: int = 4096,
    precision: Precision = "fp32",
    progress: Losses = lambda step, loss: None,
) -> list[float]:
    """Train a model in place, without dropout, and return the loss of every step in nats.

    AdamW (weight decay 0.01 on matrices), the learning rate rising over the first twentieth of the
    steps and falling to a tenth of it along a cosine, gradients clipped to norm 1.

    Args:
        rows: token ids without special tokens.
        seed: of the order of the rows and of what the objective draws.
        tokens_per_batch: tokens of a step, padding included.
        precision: of the products; the weights and the optimizer stay in single precision.
        progress: called after each step with its number, from 1, and its loss.

    Raises:
        BadInput: the rows are fewer than a batch.
        RunFailed: the loss or its gradient is not finite; the model is then of no use.
    """
    lengths = np.asarray([len(row) for row in rows])
    if lengths.sum() < tokens_per_batch:
        raise BadInput(
            f"the text has {lengths.sum()} tokens, which is less than one batch of "
            f"{tokens_per_batch}. Give more text or fewer tokens per batch."
        )
    model.eval()  # dropout off; gradients do not need training mode
    device = next(model.parameters()).device
    optimizer = _optimizer(model, learning_rate)
    rng = np.random.default_rng(seed)
    drawn = batches(lengths, tokens_per_batch, np.random.default_rng([seed, 1]))
    losses: list[float] = []
    for step in range(steps):
        batch = objective.batch([rows[row] for row in next(drawn)], rng)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * schedule(step, steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = objective.loss(model, {name: t.to(device) for name, t in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        if not torch.isfinite(norm):
            raise RunFailed(
                f"the loss or its gradient was not finite at step {step + 1} (learning rate "
                f"{learning_rate:g}). Lower the learning rate."
            )
        optimizer.step()
        losses.append(loss.item())
        progress(step + 1, losses[-1])
    return losses


def schedule(step: int, steps: int) -> float:
    """The factor of the learning rate at a step, counted from 0."""
    warmup = max(1, round(WARMUP * steps))
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2


def batches(
    lengths: np.ndarray, tokens_per_batch: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield batches of row numbers without end; rows of about one length stand together.

    A batch has at most `tokens_per_batch` tokens when it is padded to its longest row (at least
    one row all the same). Every row comes once before any comes again.
    """
    pool = max(1, _POOL * tokens_per_batch // max(1, int(lengths.mean())))
    while True:
        order = rng.permutation(len(lengths))
        for start in range(0, len(order), pool):
            cut = _cut(order[start : start + pool], lengths, tokens_per_batch)
            for place in rng.permutation(len(cut)):
                yield cut[place]


def _cut(rows: np.ndarray, lengths: np.ndarray, tokens_per_batch: int) -> list[np.ndarray]:
    """Cut rows into batches, longest first; the last may be small."""
    rows = rows[np.argsort(-lengths[rows], kind="stable")]
    parts = []
    while len(rows):
        fitting = max(1, tokens_per_batch // int(lengths[rows[0]]))
        parts.append(rows[:fitting])
        rows = rows[fitting:]
    return parts


def _optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)

"""A host writes: answers to many prompts at a time, under the modules of several lanes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from peftport.hosts.host import Host

AT_ONCE = 2048
"""Tokens of prompts that are answered together, those of all lanes."""


@dataclass(frozen=True)
class Writing:
    """How a host writes.

    most: tokens of an answer. ends: tokens that end one. temperature: 0 takes the most probable
    token each time; else tokens are drawn, by `seed`.
    """

    most: int
    ends: tuple[int, ...]
    temperature: float = 0.0
    seed: int = 0


def ends_of(tokenizer: Any, answers: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Tokens that end an answer: the one that ends a text, and the special tokens with which
    answers end or go on (an end of turn)."""
    special = set(tokenizer.all_special_ids)
    found = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    for answer in answers:
        found |= set(answer[-3:]) & special
    return tuple(sorted(found))


@torch.no_grad()
def write(
    host: Host, prompts: Sequence[Sequence[int]], lanes: int, how: Writing
) -> list[list[list[int]]]:
    """Answers to prompts as tokens, [lane][prompt], without what ends them.

    The prompts are answered in transformers' own loop, with a cache of keys and values. Prompts of
    like length stand together, padded on the left, those of lane 0 first.

    Args:
        prompts: tokens, at least one each. lanes: of the modules that are attached.
    """
    found: list[list[list[int]]] = [[[] for _ in prompts] for _ in range(lanes)]
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
    for rows in _together(order, prompts, lanes):
        longest = max(len(prompts[row]) for row in rows)
        pad = host.tokenizer.pad_token_id or 0
        ids = torch.tensor(
            [[pad] * (longest - len(prompts[row])) + list(prompts[row]) for row in rows]
        )
        mask = torch.tensor(
            [[0] * (longest - len(prompts[row])) + [1] * len(prompts[row]) for row in rows]
        )
        said = _generated(host, ids.repeat(lanes, 1), mask.repeat(lanes, 1), how)
        for place, answer in enumerate(said):
            found[place // len(rows)][rows[place % len(rows)]] = answer
    return found


def _together(
    order: Sequence[int], prompts: Sequence[Sequence[int]], lanes: int
) -> Iterator[list[int]]:
    """Rows that are answered at a time."""
    rows: list[int] = []
    for row in order:
        if rows and (len(rows) + 1) * lanes * len(prompts[row]) > AT_ONCE:
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _generated(host: Host, ids: Tensor, mask: Tensor, how: Writing) -> list[list[int]]:
    """What follows each row, without what ends it."""
    from transformers import GenerationConfig

    apart = host.geometry.kind == "encoder-decoder"
    config = GenerationConfig(
        max_new_tokens=how.most,
        do_sample=how.temperature > 0,
        temperature=how.temperature or None,
        top_k=None,
        top_p=None,
        eos_token_id=list(how.ends) or None,
        pad_token_id=host.tokenizer.pad_token_id or 0,
        bos_token_id=host.tokenizer.bos_token_id,
        decoder_start_token_id=_start(host) if apart else None,
        use_cache=True,
    )
    with _own_settings(host), _shifted(host), torch.random.fork_rng(_devices(host)):
        torch.manual_seed(how.seed)
        whole = host.model.generate(
            ids.to(host.device), attention_mask=mask.to(host.device), generation_config=config
        )
    answers = whole[:, 1 if apart else ids.shape[1] :].tolist()
    return [_until(answer, how.ends) for answer in answers]


def _until(answer: list[int], ends: Sequence[int]) -> list[int]:
    stop = next((place for place, token in enumerate(answer) if token in ends), len(answer))
    return answer[:stop]


def _start(host: Host) -> int:
    from peftport.hosts.host import start_token

    return start_token(host.model.config)


def _devices(host: Host) -> list[torch.device]:
    return [host.device] if host.device.type == "cuda" else []


@contextmanager
def _own_settings(host: Host) -> Iterator[None]:
    """Nothing of the host's own generation settings: what runs is what `Writing` says."""
    from transformers import GenerationConfig

    before = host.model.generation_config
    host.model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        host.model.generation_config = before


@contextmanager
def _shifted(host: Host) -> Iterator[None]:
    """Positions after a prefix, where one stands before the text and shifts it."""

    def moved(_: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if named.get("position_ids") is not None:
            named = {**named, "position_ids": named["position_ids"] + host.position_shift}
        return given, named

    if not host.position_shift or host.geometry.positions in ("none", "relative", "unknown"):
        yield
        return
    hook = host.model.register_forward_pre_hook(moved, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()

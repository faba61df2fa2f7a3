"""A host writes: answers to many prompts at a time, under the modules of several lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.tasks.batches import pad_of, padded

if TYPE_CHECKING:
    from peftport.hosts.host import Host

MOST = 128
"""Tokens of an answer at most, where nobody says it."""
AT_ONCE = 2048
"""Tokens of prompts that are answered together, those of all lanes."""


@dataclass(frozen=True)
class Writing:
    """How a host writes.

    most: tokens of an answer. ends: tokens that end one. temperature: 0 takes the most probable
    token each time; else tokens are drawn, by `seed`. stops: texts at which it need not go on, and
    which an answer then holds.
    """

    most: int
    ends: tuple[int, ...]
    temperature: float = 0.0
    seed: int = 0
    stops: tuple[str, ...] = ()


def ends_of(tokenizer: Any, answers: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Tokens that end an answer: the one that ends a text, and the special tokens with which
    answers end (an end of turn, also before a line break)."""
    added = tokenizer.added_tokens_decoder
    special = {number for number, token in added.items() if token.special}
    special |= set(tokenizer.all_special_ids)
    special -= {tokenizer.unk_token_id, tokenizer.bos_token_id}
    found = {tokenizer.eos_token_id} if tokenizer.eos_token_id is not None else set()
    for answer in answers:
        found |= set(answer[-3:]) & special
    return tuple(sorted(found))


@torch.no_grad()
def write(
    host: Host,
    prompts: Sequence[Sequence[int]],
    lanes: int,
    how: Writing,
    done: Callable[[int], None] = lambda _prompts: None,
) -> list[list[list[int]]]:
    """Answers to prompts as tokens, [lane][prompt], without what ends them.

    The prompts are answered in transformers' own loop, with a cache of keys and values. Prompts of
    like length stand together, those of lane 0 first: padded on the left before a decoder, on the
    right before an encoder. What is drawn depends on which rows stand together, and so on the
    number of lanes.

    Args:
        prompts: tokens, at least one each. lanes: of the modules that are attached. done: called
            now and then with how many prompts more are answered.

    Raises:
        BadInput: a prompt fills the host's last position.
    """
    found: list[list[list[int]]] = [[[] for _ in prompts] for _ in range(lanes)]
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
    for rows in _together(order, prompts, lanes):
        these, left = [prompts[row] for row in rows], host.geometry.kind != "encoder-decoder"
        ids = padded(these, pad_of(host.tokenizer), left)
        mask = padded([[1] * len(prompt) for prompt in these], 0, left)
        said = _generated(host, ids.repeat(lanes, 1), mask.repeat(lanes, 1), how)
        for place, answer in enumerate(said):
            found[place // len(rows)][rows[place % len(rows)]] = answer
        done(len(rows))
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
        max_new_tokens=how.most if apart else min(how.most, host.room_after(ids.shape[1])),
        **_drawn(how.temperature),
        eos_token_id=list(how.ends) or None,
        pad_token_id=pad_of(host.tokenizer),
        bos_token_id=host.tokenizer.bos_token_id,
        decoder_start_token_id=_start(host) if apart else None,
        use_cache=True,
        stop_strings=list(how.stops) or None,
    )
    with _own_settings(host), _shifted(host), torch.random.fork_rng(_devices(host)):
        torch.manual_seed(how.seed)
        whole = host.model.generate(
            ids.to(host.device),
            attention_mask=mask.to(host.device),
            generation_config=config,
            tokenizer=host.tokenizer if how.stops else None,
        )
    answers = whole[:, 1 if apart else ids.shape[1] :].tolist()
    return [_until(answer, how.ends) for answer in answers]


def _drawn(temperature: float) -> dict[str, Any]:
    """How the next token is found: the most probable one, or a draw from the whole vocabulary."""
    if not temperature:
        return {"do_sample": False}
    # Without a number of its own, `top_k` would be transformers' usual 50.
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


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

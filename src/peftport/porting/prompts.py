"""More prompts of the kind of a few: a bare host writes them, as examples in a row go on
(Trans-LoRA, arXiv 2405.17258, makes its texts so)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from peftport.errors import RunFailed
from peftport.kinds.writing import Writing, ends_of, write
from peftport.tasks.pairs import turns_of

if TYPE_CHECKING:
    from peftport.hosts.host import Host

SHOWN = 4
"""Examples that stand before a new prompt."""
MOST = 96
"""Tokens of a prompt that is made."""
_ROUNDS = 4
_MARK = "\n\nNext: "


def made_prompts(host: Host, examples: Sequence[str], count: int, seed: int) -> tuple[str, ...]:
    """Prompts that a bare host makes, each once and none an example.

    Args:
        examples: prompts; of chats the user's last turn is shown, and what is made is such a turn.

    Raises:
        RunFailed: the host makes no prompt in several rounds.
    """
    shown = [_shown(text) for text in examples]
    known, found = set(shown), dict[str, None]()
    random = Random(seed)
    ends = ends_of(host.tokenizer, [])
    for round_ in range(_ROUNDS):
        asked = [random.sample(shown, min(SHOWN, len(shown))) for _ in range(count - len(found))]
        prompts = [
            host.tokenizer("Next: " + _MARK.join(each) + _MARK.rstrip(" "), verbose=False)[
                "input_ids"
            ]
            for each in asked
        ]
        writing = Writing(MOST, ends, temperature=0.8, seed=seed + round_)
        (answers,) = write(host, prompts, 1, writing)
        for answer in host.tokenizer.batch_decode(answers, skip_special_tokens=True):
            made = answer.split("\n\n")[0].strip()
            if made and made not in known:
                found.setdefault(made)
        if len(found) >= count:
            break
    if not found:
        raise RunFailed(f"{host.name} makes no prompts from these texts: give more texts.")
    return tuple(list(found)[:count])


def _shown(text: str) -> str:
    said = [turn["content"] for turn in turns_of(text) if turn["role"] == "user"]
    return said[-1] if said else json.loads(text)[-1]["content"]

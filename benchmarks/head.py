"""What the head of a language model takes in training and in testing: time and memory.

    python benchmarks/head.py [--quick] [--hosts gemma3-270m smollm2-135m]

Random states and a random head of a host's shape; CPU time of one thread. Cross-entropy of tokens
from all logits at a time, as it is written plainly, and as peftport finds it, in single precision
and in bfloat16. Memory is what is taken above the head's weight and the states.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from measuring import arguments, as_table, save, spread, written
from peftport.hosts.lowered import HeadProduct
from peftport.hosts.predictions import Predictions
from peftport.memory import forget_peak, keep_freed_memory, resident_peak

SHAPES = {"gemma3-270m": (262_144, 640), "smollm2-135m": (49_152, 576)}
"""Words of a vocabulary, and how wide the host is."""
PLACES = 256


def main() -> None:
    asked = arguments(__doc__ or "", hosts=list(SHAPES))
    torch.set_num_threads(1)
    keep_freed_memory()
    places, rounds = (16, 1) if asked.quick else (PLACES, 2)
    found = [row for name in asked.hosts for row in measured(name, places, rounds)]
    rows = [
        (
            each["host"],
            each["way"],
            written(each["training_s"]),
            written(each["testing_s"]),
            f"{each['training_mb']:,.0f}",
        )
        for each in found
    ]
    columns = ("host", "head", "training, s", "testing, s", "memory in training, MB")
    save(asked.out, "head", {"places": places, "heads": found}, as_table(columns, rows))


def measured(name: str, places: int, rounds: int) -> list[dict[str, Any]]:
    """Each way's seconds for so many places, and its memory."""
    vocabulary, width = SHAPES[name]
    torch.manual_seed(0)
    head = nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
    states, tokens = torch.randn(places, width), torch.randint(vocabulary, (places,))
    low = HeadProduct(head)

    def plain(given: Tensor) -> Tensor:
        return functional.cross_entropy(head(given), tokens, reduction="none")

    def few(product: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda given: Predictions(given, vocabulary, product).nats(tokens)

    ways = {
        "all logits at a time": plain,
        "few places at a time": few(head),
        "few places at a time, bf16": few(low),
    }
    low(states[:1])  # which makes its copy of the weight
    found = []
    for way, losses in ways.items():
        before = forget_peak()
        trained = [seconds(losses, states, True) for _ in range(rounds)]
        memory = (resident_peak() - before) / 1e6
        tested = [seconds(losses, states, False) for _ in range(rounds)]
        seen = {"training_s": spread(trained), "testing_s": spread(tested), "training_mb": memory}
        found.append({"host": name, "way": way, **seen})
    return found


def seconds(losses: Callable[[Tensor], Tensor], states: Tensor, training: bool) -> float:
    """CPU time of finding losses, and in training their gradient for the states."""
    given = states.clone().requires_grad_(training)
    begun = time.process_time()
    found = losses(given)
    if training:
        found.mean().backward()
    return time.process_time() - begun


if __name__ == "__main__":
    main()

"""Training throughput by the number of lanes, beside the matrix products of the same machine.

    python benchmarks/lanes.py [--quick] [--hosts lab mini minilm t5-base t5-large]

A lane's step is forward, backward and optimizer over a batch of 16. The share is that of the
arithmetic in the host's linear layers (2 operations a weight and token forward, 2 backward) in the
rate of a large matrix product measured in between. The hosts of T5 shape have random weights and
are measured where there is a GPU.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from measuring import SMALL, arguments, as_table, at_hand, places, save, spread, written
from peftport.hosts import Host, load_host
from peftport.memory import keep_freed_memory
from peftport.tasks import Encoded, encode, load_task
from peftport.techniques import technique
from peftport.techniques.base import stack_lanes
from peftport.training import ClassReadout, TrainingSettings, readout_of, trajectory
from peftport.training.module import initial_module

LANES = (1, 2, 4, 8, 16, 32)
BATCH = 16
SHAPES = {"t5-base": (768, 2048, 12, 12), "t5-large": (1024, 2816, 24, 16)}


def main() -> None:
    gpu = torch.cuda.is_available()
    asked = arguments(__doc__ or "", hosts=[*SMALL, *(SHAPES if gpu else ())])
    keep_freed_memory()
    precisions = ("fp32", "bf16")
    found = [
        Bench(name, precision, asked.quick).measure()
        for name in asked.hosts
        if name in SHAPES or at_hand([name])
        for precision in precisions
    ]
    save(asked.out, "lanes", {"batch_size": BATCH, "hosts": found}, table(found))


class Bench:
    """One host in one precision, with LoRA modules."""

    def __init__(self, name: str, precision: str, quick: bool) -> None:
        self.name, self.precision = name, precision
        self.lanes = LANES[:2] if quick else LANES
        self.rounds, self.steps = (1, 1) if quick else (3, 2)
        self.host, self.rows, self.readout = _loaded(name, precision)
        self.made = technique("lora")
        self.config = self.made.configure({})

    def measure(self) -> dict[str, Any]:
        """Take turns over all lane counts, so that all see the same machine."""
        rates: dict[int, list[float]] = {lanes: [] for lanes in self.lanes}
        products: list[float] = []
        for _ in range(self.rounds):
            products.append(product_rate(self.precision, self.host.device))
            for lanes in self.lanes:
                rates[lanes].append(self.rate(lanes))
        flops = 4 * self.weights() * self.tokens()
        peak = statistics.median(products)
        return {
            "host": self.name,
            "precision": self.precision,
            "threads": torch.get_num_threads(),
            "product_gflops": spread(products),
            "lanes": {
                lanes: {
                    "examples_per_second": spread(found),
                    "ratio": spread(a / b for a, b in zip(found, rates[1], strict=True)),
                    "share": flops * statistics.median(found) / 1e9 / peak,
                }
                for lanes, found in rates.items()
            },
        }

    def rate(self, lanes: int) -> float:
        """Examples a second, after a step that is not counted."""
        classes = self.readout.classes
        starts = [
            initial_module(self.made, self.config, self.host, classes, s) for s in range(lanes)
        ]
        first, last = trajectory(
            self.host,
            self.made,
            self.config,
            stack_lanes(starts),
            self.rows,
            self.readout,
            settings=TrainingSettings(batch_size=BATCH, precision=self.precision),
            budgets=[1, 1 + self.steps],
            learning_rates=[1e-3] * lanes,
            seeds=range(lanes),
        )
        return lanes * BATCH * self.steps / (last.seconds - first.seconds)

    def weights(self) -> int:
        """Weights of the linear layers that every token passes."""
        linears = self.host.geometry.linears.items()
        return sum(
            linear.inputs * linear.outputs
            for point, linear in linears
            if not (self.host.geometry.kind == "encoder-decoder" and point.startswith("decoder"))
        )

    def tokens(self) -> float:
        """Mean tokens of a row, padding included, in the steps that are measured."""
        batches = list(self.rows.training_batches(BATCH, 1 + self.steps, [0]))[1:]
        return statistics.mean(batch.input_ids.shape[1] for batch in batches)


def _loaded(name: str, precision: Any) -> tuple[Host, Encoded, ClassReadout]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name in SHAPES:
        return _random_t5(name, precision)
    place = places()[name]
    host = load_host(place["receiver"], device, precision)
    task = load_task(place["task"], limit_train=2048)
    rows = encode(host.tokenizer, task, "train", host.geometry.kind)
    return host, rows, readout_of(host, task)


def _random_t5(name: str, precision: Any) -> tuple[Host, Encoded, ClassReadout]:
    """A T5 v1.1 of some size with random weights, and rows of 64 random tokens."""
    from pathlib import Path

    import numpy as np
    from transformers import T5Config, T5ForConditionalGeneration

    from peftport.hosts import geometry_of
    from peftport.hosts.attention import NAME
    from peftport.hosts.lowered import lower_products

    width, ffn, layers, heads = SHAPES[name]
    config = T5Config(
        d_model=width, d_ff=ffn, num_layers=layers, num_heads=heads, d_kv=64, vocab_size=32128,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, dropout_rate=0.0,
        attn_implementation=NAME,
    )  # fmt: skip
    with torch.device("cuda"):
        model = T5ForConditionalGeneration(config).eval().requires_grad_(False)
    geometry = geometry_of(config.to_dict(), name)
    if precision == "bf16":
        lower_products(model, geometry)
    rng = np.random.default_rng(0)
    count, length = 2048, 64
    rows = Encoded(
        tokens=rng.integers(3, 32000, count * length).astype(np.int32),
        offsets=np.arange(count + 1) * length,
        labels=rng.integers(0, 2, count),
        pad=0,
    )
    host = Host(name, Path(name), model, None, geometry, name, precision)
    return host, rows, ClassReadout(2, (100, 200))


def product_rate(precision: str, device: torch.device) -> float:
    """GFLOP/s of a large matrix product in a type."""
    size = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        _finish(device)
        begun = time.perf_counter()
        one @ other
        _finish(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / min(seconds) / 1e9


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(found: list[dict[str, Any]]) -> str:
    """Lanes down, one host and precision after the other."""
    rows = [
        (
            bench["host"],
            bench["precision"],
            lanes,
            written(values["examples_per_second"], 0),
            written(values["ratio"]),
            f"{100 * values['share']:.0f} %",
        )
        for bench in found
        for lanes, values in bench["lanes"].items()
    ]
    columns = ("host", "precision", "lanes", "examples/s", "ratio to 1 lane", "share of products")
    return as_table(columns, rows)


if __name__ == "__main__":
    main()

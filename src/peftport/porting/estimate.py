"""What a port will take, told from the geometries before anything is loaded.

Seconds come from the multiplications that it needs and from how fast this machine multiplies now;
memory from what is held at once. One estimate was held against a measured port (docs/porting.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from peftport.hosts.geometry import Geometry

if TYPE_CHECKING:
    from peftport.techniques.base import Shapes

_START_SECONDS, _START_BYTES = 6.0, 450e6
"""Of the libraries, which every port imports."""
_TOKENIZER_SECONDS, _TOKENIZER_BYTES = 1e-5, 1300.0
"""For each token of a vocabulary."""
_EFFICIENCY = 0.6
"""Of products within a port beside large ones by themselves."""
_SPREAD = 1.3
"""What memory is held beside what is counted here."""


@dataclass(frozen=True)
class Load:
    """How much text a port looks at: texts, and the mean tokens of one, padding among them."""

    texts: int
    tokens: float = 24.0

    @property
    def all_tokens(self) -> int:
        """Tokens of all texts."""
        return math.ceil(self.texts * self.tokens)


@dataclass(frozen=True)
class Estimate:
    """Seconds, bytes of memory at the highest, and bytes written to the disk."""

    seconds: float
    memory: float
    disk: float

    def text(self) -> str:
        """In words: "about 40 s, 1.2 GB of memory"."""
        seconds = self.seconds
        time_ = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        return (
            f"about {time_}, {gigabytes(self.memory)} of memory, {self.disk / 1e6:.1f} MB written"
        )

    def record(self) -> dict[str, float]:
        """For JSON, in seconds and bytes."""
        return {
            "seconds": round(self.seconds, 1),
            "memory_bytes": round(self.memory),
            "disk_bytes": round(self.disk),
        }


def gigabytes(count: float) -> str:
    """A number of bytes in GB."""
    return f"{count / 1e9:.1f} GB"


def weights_of(geometry: Geometry) -> int:
    """Weights of all linear layers of a host."""
    return sum(linear.inputs * linear.outputs for linear in geometry.linears.values())


def largest_layer(geometry: Geometry) -> float:
    """Weights of one layer of a host, about."""
    return weights_of(geometry) / max(len(geometry.blocks), 1)


def loaded(hosts: Iterable[Geometry]) -> tuple[bool, float]:
    """Whether a host is held whole while it runs, and bytes of the weights that are: decoders are
    read a layer at a time, other hosts are in memory whole."""
    hosts = tuple(hosts)
    whole = [weights_of(g) + g.vocabulary * g.width for g in hosts if g.kind != "decoder"]
    return bool(whole), 4.0 * sum(whole or map(largest_layer, hosts))


def estimated(
    hosts: Iterable[Geometry], products: float, held: float, written: Shapes, reading: float = 0.0
) -> Estimate:
    """The estimate of a port.

    Args:
        hosts: those whose tokenizers are loaded.
        products: floating-point operations, as if all were in single precision.
        held: bytes at the highest, beside libraries and tokenizers.
        written: shapes of the ported module.
        reading: bytes of weights that are read.
    """
    vocabulary = sum(geometry.vocabulary for geometry in hosts)
    seconds = _START_SECONDS + _TOKENIZER_SECONDS * vocabulary
    if products:
        seconds += products / (_EFFICIENCY * products_per_second())
    memory = _SPREAD * (held + _START_BYTES + _TOKENIZER_BYTES * vocabulary)
    disk = 4.0 * sum(math.prod(shape) for shape in written.values())
    return Estimate(seconds + reading / 1e9, memory, disk)


@cache
def products_per_second(side: int = 512) -> float:
    """Floating-point operations a second of a product, while this machine does nothing else."""
    import torch

    one, other = torch.ones(side, side), torch.ones(side, side)
    best = math.inf
    for _ in range(30):
        begun = time.perf_counter()
        one @ other
        best = min(best, time.perf_counter() - begun)
    return 2.0 * side**3 / best


def memory_at_hand() -> float | None:
    """Bytes that this process can still take; None where the system does not tell."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        named = dict(line.split(":") for line in lines)
        found.append(1024.0 * int(named["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text() for name in ("memory.max", "memory.current"))
        found.append(float(int(limit) - int(used)))
    except (OSError, ValueError):
        pass  # no group, or one without a limit
    return min(found)

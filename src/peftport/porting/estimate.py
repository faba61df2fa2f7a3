"""What a port will take, told from the geometries before anything is loaded.

Seconds come from the multiplications that it needs and from how fast this machine multiplies while
it does nothing else; memory from what is held at once. One estimate was held against a measured
port (docs/porting.md).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from peftport.hosts.geometry import Geometry
from peftport.memory import control_groups, left_in_group

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
_LARGE = 1e8
"""Weights of a layer beyond which a host is large."""
_SIDE, _MEASURED_SECONDS = 512, 0.05
"""Of the products by which this machine is measured: their side, and how long they take together,
which is longer than any clock's tick."""


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
class CostEstimate:
    """Seconds, bytes of memory at the highest, bytes of the module that is written, and bytes that
    lie in a temporary file until it is."""

    seconds: float
    memory: float
    disk: float
    temporary: float = 0.0

    def text(self) -> str:
        """In words: "about 40 s, 1.2 GB of memory, 7.6 MB written"."""
        seconds = self.seconds
        time_ = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
        meanwhile = f", {gigabytes(self.temporary)} of disk meanwhile" if self.temporary else ""
        return (
            f"about {time_}, {gigabytes(self.memory)} of memory, {self.disk / 1e6:.1f} MB written"
            f"{meanwhile}"
        )

    def record(self) -> dict[str, float]:
        """For JSON, in seconds and bytes."""
        return {
            "seconds": round(self.seconds, 1),
            "memory_bytes": round(self.memory),
            "disk_bytes": round(self.disk),
            "temporary_bytes": round(self.temporary),
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


def streams(geometry: Geometry, tokens: int) -> int:
    """Bytes of the residual stream behind every layer of a host, in single precision."""
    return 4 * tokens * geometry.width * len(geometry.blocks)


def is_large(geometry: Geometry) -> bool:
    """Whether a layer keeps all cores busy by itself, and memory has to be looked after."""
    return largest_layer(geometry) > _LARGE


def loaded(hosts: Iterable[Geometry]) -> tuple[bool, float]:
    """Whether a host is held whole while it runs, and bytes of the weights that are: decoders are
    read a layer at a time, large ones one after the other; other hosts are in memory whole."""
    hosts = tuple(hosts)
    whole = [weights_of(g) + g.vocabulary * g.width for g in hosts if g.kind != "decoder"]
    layers = list(map(largest_layer, hosts))
    at_once = [max(layers)] if any(map(is_large, hosts)) else layers
    return bool(whole), 4.0 * sum(whole or at_once)


def estimated(
    hosts: Iterable[Geometry], products: float, held: float, written: Shapes, reading: float = 0.0
) -> CostEstimate:
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
    return CostEstimate(seconds + reading / 1e9, memory, disk)


def with_embeddings(
    found: CostEstimate,
    brought: Shapes,
    carried: Shapes,
    hosts: tuple[Geometry, ...],
    tokenizers: bool,
) -> CostEstimate:
    """The estimate of a port with the embeddings that a module brings along.

    Args:
        brought: shapes of the module's own. carried: of those that the ported module has.
        hosts: both; where rows go over, those of both are in memory.
        tokenizers: whether theirs are loaded for this alone.
    """
    own, written = (4.0 * sum(map(math.prod, shapes.values())) for shapes in (brought, carried))
    held, seconds = own + written, found.seconds
    if carried:
        held += 4.0 * sum(geometry.vocabulary * geometry.width for geometry in hosts)
        tokens = sum(geometry.vocabulary for geometry in hosts) if tokenizers else 0
        held += _TOKENIZER_BYTES * tokens
        seconds += _TOKENIZER_SECONDS * tokens
    memory = found.memory + _SPREAD * held
    return replace(found, seconds=seconds, memory=memory, disk=found.disk + written)


@cache
def products_per_second() -> float:
    """Floating-point operations a second of a product, on all threads of a machine that does
    nothing else.

    The clock is of this thread's own work, which stands while other processes have the core; a
    product on several threads would wait for the last of them, and on a busy machine that is most
    of its time.
    """
    import torch

    one, other = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.mm(one, other)  # the first one loads what the others use
        begun, products = time.thread_time(), 0
        while (spent := time.thread_time() - begun) < _MEASURED_SECONDS:
            torch.mm(one, other)
            products += 1
    finally:
        torch.set_num_threads(threads)
    return threads * products * 2.0 * _SIDE**3 / spent


def memory_at_hand() -> float | None:
    """Bytes that this process can still take; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        named = dict(line.split(":") for line in lines)
        free = 1024.0 * int(named["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        return None
    return min(free, *map(left_in_group, control_groups()))

"""What a data-free port costs between large hosts: seconds and peak memory of whole commands.

    python benchmarks/port.py [--quick] [--hosts 1b 8b]

Two hosts of Llama's shape with random weights in bfloat16 (5 and 32 GB for a pair, in the temporary
folder, which TMPDIR names; they are taken away again), and a LoRA of rank 16 on every linear layer.
Every command finds its files on disk and not in memory. Beside them: the time to read the
receiving host's linear weights once, before and after `subspace`, and a plain version of it with a
full singular value decomposition of each of them. Of the plain version one weight of each shape is
done, and the others are taken to last as long; `apart` is how far the two changes of those weights
are from each other at most, relative to the plain one.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llama_shaped import SHAPES, write_host, write_module
from measuring import arguments, as_table, save, spread, written
from peftport.modules import load_module
from peftport.porting.means import Side, side
from watched import command, let_go

RANK = 64
"""Of the subspace, as is the method's default."""


def main() -> None:
    asked = arguments(__doc__ or "", hosts=["1b", "8b"])
    names = ["small"] if asked.quick else asked.hosts
    found = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            found.append(measured(name, Path(folder)))
    rows = [
        (each["hosts"], what, f"{row['seconds']:.1f}", f"{row['peak_mib']:,.0f}")
        for each in found
        for what, row in each["commands"].items()
    ]
    told = [
        (
            each["hosts"],
            written(each["read_seconds"], 1),
            f"{each['port_seconds']:.1f}",
            written(each["reads"], 1),
            f"{each['plain_seconds']:,.0f}",
            f"{each['plain_seconds'] / each['port_seconds']:.0f}",
            f"{each['apart']:.3f}",
        )
        for each in found
    ]
    table = as_table(("hosts", "command", "seconds", "peak memory, MiB"), rows)
    columns = (
        *("hosts", "reading the weights once, s", "`subspace`, the port itself, s"),
        *("times reading", "plain, s", "times as fast as plain", "apart"),
    )
    save(asked.out, "port", {"pairs": found}, f"{table}\n\n{as_table(columns, told)}")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """All figures of a pair."""
    for seed, host in enumerate(("origin", "receiver")):
        write_host(folder / host, SHAPES[name], seed)
    write_module(folder / "module", folder / "origin")
    to = ["--host", str(folder / "receiver")]
    module = str(folder / "module")
    receiver = side(str(folder / "receiver"))
    commands, reads = {"check": command(folder, "check", module, *to)}, []
    for method in ("copy", "subspace", "prolora"):
        out = str(folder / method)
        if method != "copy":
            reads.append(reading(receiver))
        asked = ("--method", method, "--out", out, "--no-verify")
        commands[method] = command(folder, "port", module, *to, *asked)
    plain, port = Plain(receiver, folder), commands["subspace"]["port_seconds"]
    return {
        "hosts": name,
        "bytes": sum(file.stat().st_size for file in (folder / "receiver").iterdir()),
        "commands": commands,
        "port_seconds": port,
        "read_seconds": spread(reads),
        "reads": spread(port / read for read in reads),
        "plain_seconds": plain.seconds,
        "apart": plain.apart,
    }


def reading(host: Side) -> float:
    """Seconds to read every linear weight once."""
    let_go(host.folder)
    begun = time.perf_counter()
    for point in host.geometry.linears:
        host.linear(point)
    return time.perf_counter() - begun


class Plain:
    """The formula of `subspace` with full decompositions, one weight of each shape."""

    def __init__(self, host: Side, folder: Path) -> None:
        before, after = load_module(folder / "module"), load_module(folder / "subspace")
        shapes = Counter(_shape(host, point) for point in host.geometry.linears)
        first = {_shape(host, point): point for point in reversed(host.geometry.linears)}
        self.seconds, apart = 0.0, []
        for shape, point in first.items():
            begun = time.perf_counter()
            weight = host.linear(point).float()
            left, _, right = torch.linalg.svd(weight, full_matrices=False)
            left, right = left[:, :RANK], right[:RANK].mT
            up, down = _factors(before.tensors, point)
            change = left @ ((left.mT @ up) @ (down @ right)) @ right.mT
            self.seconds += shapes[shape] * (time.perf_counter() - begun)
            up, down = _factors(after.tensors, point)
            apart.append(float((up @ down - change).norm() / change.norm()))
        self.apart = max(apart)


def _shape(host: Side, point: str) -> tuple[int, int]:
    linear = host.geometry.linears[point]
    return linear.outputs, linear.inputs


def _factors(tensors: dict[str, Tensor], point: str) -> tuple[Tensor, Tensor]:
    return tensors[f"{point}.lora_B"], tensors[f"{point}.lora_A"]


if __name__ == "__main__":
    main()

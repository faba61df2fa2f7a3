"""What a port by `procrustes` costs between large hosts of two families: seconds and peak memory.

    python benchmarks/port_by_maps.py [--quick] [--hosts 1b 8b-4 8b-8 8b]

A host of Llama's shape and one of Qwen3's, with random weights in bfloat16 (6 and 33 GB for a pair,
in the temporary folder, which TMPDIR names; they are taken away again), and a LoRA of rank 16 on
every linear layer. Both read texts with SmolLM2's tokenizer (`make smollm2`). What such a port
keeps cannot be asked of random weights: this is about time and memory. Every command finds its
files on disk and not in memory. The weights are not pretrained and outliers are missing, but no
step of the method takes longer for them. 8b-4 and 8b-8 are hosts of 8B cut to four and eight
layers, which show how memory goes with the depth.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from llama_shaped import SHAPES, write_host, write_module
from measuring import SHARED, arguments, as_table, at_hand, places, save
from watched import command

TEXTS, PLACES = 100, 1024
"""Texts that both hosts read, and the places of them that maps are fitted on, at most."""


def main() -> None:
    asked = arguments(__doc__ or "", hosts=["1b", "8b-4", "8b-8", "8b"])
    if not at_hand(["smollm2"]):
        return
    names = ["small"] if asked.quick else asked.hosts
    found = []
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            write_pair(name, Path(folder))
            found.append(measured(name, Path(folder)))
        save(asked.out, f"port-by-maps-{name}", found[-1], table(found[-1:]))
    print(table(found))


def write_pair(name: str, folder: Path) -> None:
    """Two hosts, cut to as many layers as follow their size, and a module of the first."""
    size, _, layers = name.partition("-")
    for seed, (host, shape) in enumerate({"origin": size, "receiver": f"{size}-qwen3"}.items()):
        whole = SHAPES[shape]
        cut = replace(whole, layers=int(layers or whole.layers))
        write_host(folder / host, cut, seed)
        write_tokenizer(folder / host)
    write_module(folder / "module", folder / "origin")


def measured(name: str, folder: Path) -> dict[str, Any]:
    """Both commands of a pair."""
    to = [str(folder / "module"), "--host", str(folder / "receiver")]
    texts = ["--texts", str(SHARED / "data" / "sst2"), "--text-count", str(TEXTS)]
    words = ["--label-words", "terrible,great", "--template", "{text} it was"]
    by = ["--method", "procrustes", "--set", f"places={PLACES}", *texts, *words]
    return {
        "hosts": name,
        "texts": TEXTS,
        "places": PLACES,
        "check": command(folder, "check", *to, "--method", "procrustes"),
        "port": command(folder, "port", *to, *by, "--no-verify", "--out", str(folder / "ported")),
    }


def write_tokenizer(folder: Path) -> None:
    """SmolLM2's, from the file that benchmarks read."""
    file = Path(places()["smollm2"]["origin"])
    named = {"gguf_file": file.name} if file.is_file() else {}
    home = file.parent if file.is_file() else file
    AutoTokenizer.from_pretrained(home, **named).save_pretrained(folder)


def table(found: list[dict[str, Any]]) -> str:
    """Commands of all pairs."""
    rows = [
        (each["hosts"], what, f"{each[what]['seconds']:,.0f}", f"{each[what]['peak_mib']:,.0f}")
        for each in found
        for what in ("check", "port")
    ]
    return as_table(("hosts", "command", "seconds", "peak memory, MiB"), rows)


if __name__ == "__main__":
    main()

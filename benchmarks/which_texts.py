"""Which texts a port should look at, and how many.

Modules are ported with texts of several sources and in several numbers, and each port is tested on
the task's validation split: what is chosen by this is not tested on rows that it was chosen by.
What is done is kept in WORK, from where the command goes on when it is called again.

    python benchmarks/which_texts.py --donors donors/all-0 donors/all-1 donors/all-2 \\
        --host gemma3-270m --from-host smollm2-135m --task sst2 --method ridge \\
        --texts sst2:32,64,128,200,500 imdb_unsup.parquet:200 wikipedia_en.parquet:200 --work WORK
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import peftport as pp
from measuring import RESULTS, as_table, save
from peftport.hosts.host import Host
from peftport.modules import Module
from peftport.options import parsed
from peftport.tasks import encode, encode_unlabelled, load_task
from peftport.techniques import technique
from peftport.training import evaluate_one, readout_of

FIGURES = ("corrected_accuracy", "auroc")


def main() -> None:
    asked = arguments()
    asked.work.mkdir(parents=True, exist_ok=True)
    tried = [found for texts in asked.texts for found in ports(asked, texts)]
    made = {"method": asked.method, "options": parsed(asked.set or (), "--set"), "ports": tried}
    save(asked.out, "which-texts", made, table(tried))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--donors", type=Path, nargs="+", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--from-host", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--words", default="terrible,great")
    parser.add_argument("--method", default="ridge")
    parser.add_argument("--set", action="append", help="KEY=VALUE, an option of the method")
    parser.add_argument("--texts", nargs="+", required=True, help="SOURCE:COUNT[,COUNT ...]")
    parser.add_argument("--limit", type=int, default=400, help="validation rows")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def ports(asked: argparse.Namespace, texts: str) -> Iterator[dict[str, Any]]:
    """What ports with texts of one source do, for each number of them."""
    source, _, counts = texts.rpartition(":")
    for count in map(int, counts.split(",")):
        each = [ported(asked, donor, source, count) for donor in asked.donors]
        yield {"texts": Path(source).stem, "count": count, "each": each}


def ported(asked: argparse.Namespace, donor: Path, source: str, count: int) -> dict[str, float]:
    """Figures of one port on the validation split, from WORK if they are there."""
    by = "-".join([asked.method, *(asked.set or ())])
    file = asked.work / f"{by}-{donor.name}-{Path(source).stem}-{count}.json"
    if not file.exists():
        begun = time.process_time()
        made = pp.port(
            pp.load_module(donor, from_host=asked.from_host),
            asked.host,
            method=asked.method,
            options=parsed(asked.set or (), "--set"),
            texts=source,
            text_count=count,
            label_words=asked.words,
        )
        seconds = time.process_time() - begun
        found = {**tested(asked, made.module.module), "cpu_seconds": seconds}
        file.write_text(json.dumps(found))
        print(f"{file.stem}: {found}", flush=True)
    return json.loads(file.read_text())


def tested(asked: argparse.Namespace, module: Module) -> dict[str, float]:
    """A module's figures on the validation split, corrected on training texts without labels."""
    host = receiving(asked.host)
    task = load_task(
        asked.task, label_words=tuple(asked.words.split(",")), limit_validation=asked.limit
    )
    readout = readout_of(host, task, {})
    rows = encode(host.tokenizer, task, "validation", host.geometry.kind)
    apart = encode_unlabelled(host.tokenizer, task, host.geometry.kind)
    made = technique(module.technique)
    figures = evaluate_one(host, made, module.config, module.tensors, rows, readout, apart).figures
    return {name: float(figures[name]) for name in FIGURES}


@cache
def receiving(name: str) -> Host:
    """The receiving host, loaded once for all tests."""
    return pp.load_host(name, precision="bf16").loaded


def table(tried: list[dict[str, Any]]) -> str:
    """Means, and between which ends the donors lie, in Markdown."""
    lines = []
    for found in tried:
        told = []
        for name in FIGURES:
            each = [port[name] for port in found["each"]]
            told.append(f"{fmean(each):.3f} ({min(each):.3f} to {max(each):.3f})")
        seconds = fmean(port["cpu_seconds"] for port in found["each"])
        lines.append((found["texts"], str(found["count"]), *told, f"{seconds:.0f}"))
    return as_table(("texts", "how many", "corrected", "AUROC", "CPU seconds"), lines)


if __name__ == "__main__":
    main()

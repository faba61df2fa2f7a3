"""What rounding a host to fewer bits costs the adapters that were trained on it.

The weights of a GGUF file's linear layers are dequantised, rounded to bfloat16 (the reference), and
from there to other types, each into a GGUF file of its own. Modules that were trained on the
reference are copied to each rounding and tested there, as are the bare hosts and, if asked for,
modules that were trained on the rounding. What is done is kept in WORK, from where the command goes
on when it is called again.

    python benchmarks/roundings.py MODEL.gguf --reference FOLDER --task sst2 --types Q8_0 Q4_0 \\
        --donors donors/all-0 donors/all-1 donors/all-2 --native 60 --work WORK
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

import peftport as pp
from measuring import RESULTS, as_table, save
from peftport.hosts import find_host
from peftport.hosts.kinship import distance
from peftport.metrics import METRICS, Scored, measure
from peftport.modules import formats
from peftport.reports.statistics import Estimate, Series, difference, resample_examples
from peftport.tasks import encode, encode_unlabelled, load_task
from peftport.techniques import technique
from peftport.training import TrainingSettings, readout_of, scores
from peftport.training.module import train_module

FIGURES = ("corrected_accuracy", "accuracy", "auroc")
REFERENCE = "reference"


def main() -> None:
    asked = arguments()
    asked.work.mkdir(parents=True, exist_ok=True)
    hosts = {REFERENCE: asked.reference}
    for kind in asked.types:
        hosts[kind] = asked.work / f"{kind}.gguf"
        if not hosts[kind].exists():
            rounded(asked.model, hosts[kind], gguf.GGMLQuantizationType[kind])
    found = {name: on_host(name, host, asked) for name, host in hosts.items()}
    folders = {name: find_host(str(host)).files() for name, host in hosts.items()}
    data = {
        "limit_test": asked.limit_test,
        "hosts": {
            name: {
                "distance": distance(folders[REFERENCE], folders[name]),
                "rows": rows(found[name], found[REFERENCE], kinds(asked.donors)),
            }
            for name in hosts
        },
    }
    save(asked.out, "roundings", data, table(data["hosts"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="the GGUF file")
    parser.add_argument("--reference", type=Path, required=True, help="its weights in bfloat16")
    parser.add_argument("--task", required=True)
    parser.add_argument("--words", default="terrible,great")
    parser.add_argument("--donors", type=Path, nargs="+", default=[], help="named KIND-SEED")
    parser.add_argument("--types", nargs="+", default=["Q8_0", "Q4_0"])
    parser.add_argument("--native", type=int, default=0, help="steps of native modules, if any")
    parser.add_argument("--limit-test", type=int, default=400)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def rounded(source: Path, file: Path, kind: gguf.GGMLQuantizationType) -> None:
    """Write a GGUF file again with the matrices of its layers in another type.

    Token embeddings keep the type that they have: whoever rounds the layers to 4 bits leaves more
    to them.
    """
    read = gguf.GGUFReader(str(source))
    fields = {name: f for name, f in read.fields.items() if not name.startswith("GGUF.")}
    partly = file.with_suffix(".partly")
    writer = gguf.GGUFWriter(str(partly), fields.pop("general.architecture").contents())
    for name, field in fields.items():
        inner = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in read.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
            plain = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).bfloat16()
            writer.add_tensor(tensor.name, quantize(plain.float().numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partly.rename(file)


def on_host(name: str, host: Path, asked: argparse.Namespace) -> dict[str, Scored]:
    """Test scores on one host: of the host itself, of each donor, of each native module."""
    bench = Bench(name, host, asked)
    found = {"bare": bench.scored("bare", None)}
    for donor in asked.donors:
        found[donor.name] = bench.scored(donor.name, donor)
        if asked.native and name != REFERENCE:
            native = f"native-{donor.name}"
            found[native] = bench.scored(native, bench.native(donor, native))
    return found


class Bench:
    """One host on which modules are tested; loaded when there is something to do."""

    def __init__(self, name: str, path: Path, asked: argparse.Namespace) -> None:
        self.name, self.path, self.asked = name, path, asked
        words, few = tuple(asked.words.split(",")), 16  # validation figures are not looked at
        self.task = load_task(
            asked.task, label_words=words, limit_test=asked.limit_test, limit_validation=few
        )
        self.handle = pp.load_host(str(path), precision="fp32")

    def scored(self, name: str, module: Path | None) -> Scored:
        """Scores of a module, or of the host itself, from WORK if they are there."""
        file = self.asked.work / f"{self.name}-{name}.npz"
        if not file.exists():
            begun = time.perf_counter()
            tested, apart = self.test(module)
            np.savez(file, tested=tested, apart=apart)
            print(f"{file.name}: {time.perf_counter() - begun:.0f} s", flush=True)
        kept = np.load(file)
        labels = np.asarray(self.task.split("test").labels)
        return measure(kept["tested"], labels, kept["apart"]).scored

    def test(self, module: Path | None) -> tuple[np.ndarray, np.ndarray]:
        """Class scores of the test rows and of the texts for the correction."""
        host = self.handle.loaded
        loaded = None if module is None else pp.load_module(module).module
        made = None if loaded is None else technique(loaded.technique)
        config = None if loaded is None else loaded.config
        lane = {} if loaded is None else {n: t[None] for n, t in loaded.tensors.items()}
        readout = readout_of(host, self.task, {})
        rows = encode(host.tokenizer, self.task, "test", host.geometry.kind)
        apart = encode_unlabelled(host.tokenizer, self.task, host.geometry.kind)
        both = [
            scores(host, made, config, lane, each, readout)[0].numpy() for each in (rows, apart)
        ]
        return both[0], both[1]

    def native(self, donor: Path, name: str) -> Path:
        """A module that is trained on this host as the donor was on its own."""
        folder = self.asked.work / f"{self.name}-{name}"
        if not folder.exists():
            record = pp.load_module(donor).module.record
            made = train_module(
                self.handle.loaded,
                self.task,
                record.technique,
                record.config,
                steps=self.asked.native,
                seed=record.seed,
                learning_rate=record.training["learning_rate"],
                settings=TrainingSettings(batch_size=record.training["batch_size"]),
            )
            formats.save(made.module, folder, "peftport")
        return folder


def kinds(donors: Sequence[Path]) -> list[str]:
    """What the donors' names begin with, each once."""
    return list(dict.fromkeys(donor.name.rpartition("-")[0] for donor in donors))


def rows(
    here: Mapping[str, Scored], reference: Mapping[str, Scored], groups: Sequence[str]
) -> dict[str, Any]:
    """Figures of each group of modules with what they lose against the same ones at home."""
    made = {"bare": compared([here["bare"]], [reference["bare"]])}
    for group in groups:
        names = [name for name in reference if name.startswith(f"{group}-")]
        home = [reference[name] for name in names]
        made[group] = compared([here[name] for name in names], home)
        if all(f"native-{name}" in here for name in names):
            made[f"native {group}"] = compared([here[f"native-{name}"] for name in names], home)
    return made


def compared(here: Sequence[Scored], home: Sequence[Scored]) -> dict[str, Any]:
    """Means of figures, and how far they are above those at home, with 95 % intervals; how many of
    the answers are the same."""
    same = [float(np.mean(a.predictions == b.predictions)) for a, b in zip(here, home, strict=True)]
    found: dict[str, Any] = {"same_answers": float(np.mean(same))}
    for figure in FIGURES:
        one, other = series(here, figure), series(home, figure)
        found[figure] = {
            "each": one.values.tolist(),
            "mean": float(one.values.mean()),
            "lead": interval(difference(one, other)),
        }
    return found


def series(scored: Sequence[Scored], figure: str) -> Series:
    parts = np.stack([METRICS[figure].parts(each) for each in scored])
    seeds = tuple(range(len(scored)))
    return Series(seeds, parts.mean(1), resample_examples(parts, "test"), fixed=len(scored) == 1)


def interval(found: Estimate) -> dict[str, float]:
    return {"mean": found.value, "low": found.low, "high": found.high}


def table(hosts: Mapping[str, Any]) -> str:
    """Everything in Markdown: a figure, and in brackets its lead over the same at home."""
    titles = [METRICS[figure].title for figure in FIGURES]
    lines = []
    for host, found in hosts.items():
        for group, figures in found["rows"].items():
            told = [shown(figures[f], host == REFERENCE) for f in FIGURES]
            lines.append((host, group, *told, f"{figures['same_answers']:.3f}"))
    return as_table(("host", "modules", *titles, "answers as at home"), lines)


def shown(figure: Mapping[str, Any], home: bool) -> str:
    if home:
        return f"{figure['mean']:.3f}"
    low, mean, high = (figure["lead"][key] for key in ("low", "mean", "high"))
    return f"{figure['mean']:.3f} ({mean:+.3f}, {low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()

"""How a port by `ridge` should read the receiving host: from where, and what it should aim at.

Nothing is ported. A donor's class scores on unlabelled texts are fitted to what the receiving
host's layers hold at the last token, in several ways, and each reading, added to what the bare host
says, is judged on the task's validation split. Every host is given with a donor of its own; all
directed pairs of them are tried. What hosts hold is kept in WORK, from where the command goes on
when it is called again.

    python benchmarks/readings.py --hosts smollm2-135m gemma3-270m \\
        --donors donors/smollm2-7 donors/gemma3-7 --task sst2 --work WORK
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

import peftport as pp
from measuring import RESULTS, as_table, save
from peftport.hosts.host import Host
from peftport.metrics import measure
from peftport.porting.activations import contrasts_of, observe
from peftport.porting.reading import TokenRows, rows_of_task
from peftport.porting.regression import LinearProbe, fit_reading
from peftport.tasks import Task, encode_texts, load_task
from peftport.techniques import technique
from peftport.training.readout import ClassReadout, class_logits, class_readout
from peftport.training.teacher import Teacher

STATES = ("ffn", "ffn, scaled", "stream")
"""What the feed-forward network's last layer reads (as `ridge` does), the same with each unit
divided by its deviation, and the residual stream at the end of each layer."""
AIMS = ("scores", "bounded scores")
"""What is fitted: the donor's scores, or these bounded at a deviation from their median."""
LAYERS = ("best", "three best", "all at once")
FIGURES = ("corrected_accuracy", "auroc")


@dataclass(frozen=True)
class Held:
    """What a host holds of all texts, those to fit on first.

    ffn, stream: by layer, (texts, width). bare, donor: differences of the two classes' scores,
    (texts,).
    """

    ffn: dict[str, Tensor]
    stream: dict[str, Tensor]
    bare: Tensor
    donor: Tensor


def main() -> None:
    asked = arguments()
    asked.work.mkdir(parents=True, exist_ok=True)
    task = load_task(
        asked.task, label_words=tuple(asked.words.split(",")), limit_validation=asked.limit
    )
    found = {
        Path(name).name: held(asked, task, name, donor)
        for name, donor in zip(asked.hosts, asked.donors, strict=True)
    }
    labels = np.asarray(task.split("validation").labels)
    tried = [
        {"from": origin, "to": receiver, **row}
        for origin, receiver in itertools.permutations(found, 2)
        for row in readings(found[origin], found[receiver], asked.texts, labels)
    ]
    save(asked.out, "readings", {"texts": asked.texts, "readings": tried}, table(tried))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", nargs="+", required=True)
    parser.add_argument("--donors", type=Path, nargs="+", required=True, help="one of each host")
    parser.add_argument("--task", required=True, help="of two classes")
    parser.add_argument("--words", default="terrible,great")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--limit", type=int, default=400, help="validation rows")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def held(asked: argparse.Namespace, task: Task, name: str, donor: Path) -> Held:
    """What one host and its donor make of all texts, from WORK if it is there."""
    file = asked.work / f"{Path(name).name}-{asked.texts}.pt"
    if not file.exists():
        train = list(dict.fromkeys(task.split("train").texts))
        texts = (*Random(5).sample(train, asked.texts), *task.split("validation").texts)
        torch.save(vars(looked_at(name, donor, task, texts)), file)
    return Held(**torch.load(file))


def looked_at(name: str, donor: Path, task: Task, texts: tuple[str, ...]) -> Held:
    """One pass of the bare host over all texts and one with its donor, short texts first."""
    host = pp.load_host(name, precision="bf16").loaded
    readout = class_readout(host, task)
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    ordered = [texts[row] for row in order]
    read = rows_of_task(host, task, ordered)
    blocks = list(host.geometry.blocks)
    said: list[Tensor] = []
    seen = observe(
        host, [read], [f"{b}.ffn.down" for b in blocks], blocks, partial(answer, readout, said)
    )
    module = pp.load_module(donor, from_host=name).module
    taught = Teacher(host, technique(module.technique), module.config, module.tensors)
    encoded = encode_texts(host.tokenizer, task, ordered, np.zeros(len(texts)), "decoder")
    back = torch.argsort(torch.tensor(order))
    return Held(
        {point: states[back] for point, states in seen.inputs.items()},
        {point: states[back] for point, states in seen.outputs.items()},
        _contrast(torch.cat(said))[back],
        _contrast(taught.answers(encoded, readout).cpu())[back],
    )


def answer(readout: ClassReadout, said: list[Tensor], host: Host, part: TokenRows) -> None:
    """Run the host over some rows, and keep what it says."""
    said.append(class_logits(host, part, {}, readout, whole=True).float().cpu())


def _contrast(scores: Tensor) -> Tensor:
    return (scores @ contrasts_of(2).mT)[:, 0]


def readings(
    origin: Held, receiver: Held, texts: int, labels: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Figures of every way to read the donor's scores off the receiving host."""
    for name, scores in (
        ("bare host", receiver.bare),
        ("donor at home", origin.donor),
        ("native", receiver.donor),
    ):
        yield {"way": name, **figures(scores.double(), texts, labels)}
    for what in STATES:
        states = {layer: found.double() for layer, found in _states(receiver, what, texts).items()}
        for aim in AIMS:
            wanted = _aim(origin.donor.double(), aim, texts) - receiver.bare
            fits = {
                layer: fit_reading(found[:texts], wanted[:texts, None])
                for layer, found in states.items()
            }
            for layers in LAYERS:
                added, missed = _read(states, fits, layers, wanted, texts)
                way = f"{what}; {aim}; {layers}"
                yield {
                    "way": way,
                    "missed": missed,
                    **figures(receiver.bare + added, texts, labels),
                }


def _states(host: Held, what: str, texts: int) -> dict[str, Tensor]:
    if what == "stream":
        return host.stream
    if what == "ffn":
        return host.ffn
    return {
        layer: states / states[:texts].std(0).clamp_min(1e-6) for layer, states in host.ffn.items()
    }


def _aim(scores: Tensor, aim: str, texts: int) -> Tensor:
    if aim == "scores":
        return scores
    centre, spread = scores[:texts].median(), scores[:texts].std()
    return centre + spread * torch.tanh((scores - centre) / spread)


def _read(
    states: dict[str, Tensor],
    fits: dict[str, LinearProbe],
    layers: str,
    wanted: Tensor,
    texts: int,
) -> tuple[Tensor, float]:
    """What is read of every text, (texts,), and the share of what is wanted that it misses."""
    if layers == "all at once":
        # Every layer with the same weight, though some states are far longer than others.
        each = [found / found[:texts].norm(dim=1).mean() for found in states.values()]
        whole = torch.cat(each, dim=1)
        fit = fit_reading(whole[:texts], wanted[:texts, None])
        return (whole @ fit.matrix.mT)[:, 0], fit.missed
    order = sorted(fits, key=lambda layer: fits[layer].missed)
    chosen = order[: 1 if layers == "best" else 3]
    added = torch.stack([(states[layer] @ fits[layer].matrix.mT)[:, 0] for layer in chosen])
    return added.mean(0), fits[chosen[0]].missed


def figures(scores: Tensor, texts: int, labels: np.ndarray) -> dict[str, float]:
    """Of differences of scores, corrected on the texts that were fitted on."""
    both = torch.stack([torch.zeros_like(scores), scores], dim=1).numpy()
    found = measure(both[texts:], labels, both[:texts]).figures
    return {name: float(found[name]) for name in FIGURES}


def table(tried: list[dict[str, Any]]) -> str:
    """Corrected accuracy and AUROC, a way a line and a pair a column, in Markdown."""
    pairs = list(dict.fromkeys((row["from"], row["to"]) for row in tried))
    ways = list(dict.fromkeys(row["way"] for row in tried))
    lines = []
    for way in ways:
        rows = [row for row in tried if row["way"] == way]
        mean = [float(np.mean([row[name] for row in rows])) for name in FIGURES]
        cells = [f"{row['corrected_accuracy']:.3f} {row['auroc']:.3f}" for row in rows]
        lines.append((way, *cells, f"{mean[0]:.3f} {mean[1]:.3f}"))
    return as_table(
        ("way", *(f"{origin} to {receiver}" for origin, receiver in pairs), "all"), lines
    )


if __name__ == "__main__":
    main()

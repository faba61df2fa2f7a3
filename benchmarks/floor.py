"""The least time in which a machine can do the study of `study.py`: its matrix products alone.

Counted are the products with the host's weights, forward and, where a module lies below them,
backward, at the rate of a large product on all cores, which is measured here. What is not
counted: attention, norms, activations, modules, optimizer, imports, the report, and what tests look
at for the label-free correction. Beside it what
`study.py` has measured, where its results are in the same folder.

    python benchmarks/floor.py [--quick] [--hosts lab mini minilm smollm2]
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from lanes import product_rate
from measuring import HOSTS, arguments, as_table, at_hand, places, save, spread, written
from peftport.hosts import load_host
from peftport.hosts.geometry import Geometry
from peftport.tasks import Encoded, encode, load_task
from study import CONDITIONS, specification

ROUNDS = 5


def main() -> None:
    asked = arguments(__doc__ or "", hosts=HOSTS)
    found = [measured(name, asked.quick, asked.out) for name in at_hand(asked.hosts)]
    save(asked.out, "floor", {"hosts": found}, table(found))


def measured(name: str, quick: bool, out: Path) -> dict[str, Any]:
    """What the study's products are, and what they take; seconds that were measured elsewhere."""
    place, data = places()[name], specification(name, quick)
    limits = {key: data.get(key) for key in ("limit_train", "limit_test")}
    host, task = load_host(place["receiver"]), load_task(place["task"], **limits)
    train, test = (
        encode(host.tokenizer, task, split, host.geometry.kind) for split in ("train", "test")
    )
    modules = len(data["techniques"]) * len(CONDITIONS)
    trained = modules * training(host.geometry, train, max(data["budgets"]))
    tested = modules * len(data["budgets"]) * testing(host.geometry, test)
    cpu = torch.device("cpu")
    rates = [product_rate("fp32", cpu) for _ in range(1 if quick else ROUNDS)]
    results = out / f"study-{name}.json"
    study = json.loads(results.read_text()) if results.exists() else {}
    return {
        "host": name,
        "training_gflop": trained / 1e9,
        "testing_gflop": tested / 1e9,
        "gflops": spread(rates),
        "seconds": spread((trained + tested) / 1e9 / rate for rate in rates),
        "study_seconds": study["study_seconds"]["median"] if study else None,
        "script_seconds": study["script_seconds"] if study else None,
    }


def training(geometry: Geometry, rows: Encoded, steps: int) -> float:
    """Operations of a module's training, forward and backward."""
    batches = rows.training_batches(16, steps, [0])
    shapes = [tuple(batch.input_ids.shape) for batch in batches]
    return sum(2 * (weights(geometry, *s) + weights(geometry, *s, backward=True)) for s in shapes)


def testing(geometry: Geometry, rows: Encoded) -> float:
    """Operations of a module's test."""
    lanes = len(CONDITIONS)
    shapes = [tuple(batch.input_ids.shape) for _, batch in rows.evaluation_batches(lanes=lanes)]
    return sum(2 * weights(geometry, *shape) for shape in shapes) / lanes


def weights(geometry: Geometry, rows: int, tokens: int, backward: bool = False) -> float:
    """Weights of the linear layers, each as often as a token passes it.

    An encoder-decoder's decoder sees one token, and the text in the keys and values of its
    cross-attention; in the last layer of a decoder one token is read, and passes all but the keys
    and values. Backward nothing has to pass the attention of the first layer that reads the text.
    """
    kind, total = geometry.kind, 0.0
    last = f"decoder.{geometry.stacks.get('decoder', 0) - 1}."
    for point, linear in geometry.linears.items():
        stack, layer, role = point.split(".", 2)
        answers = kind == "encoder-decoder" and stack == "decoder" and role not in _KEYS[1]
        cut = kind == "decoder" and point.startswith(last) and role not in _KEYS[0]
        first = layer == "0" and role.startswith("self.") and not answers
        if not (backward and first):
            total += linear.inputs * linear.outputs * rows * (1 if answers or cut else tokens)
    return total


_KEYS = (("self.k", "self.v"), ("cross.k", "cross.v"))


def table(found: list[dict[str, Any]]) -> str:
    """The floor beside what was measured, in Markdown."""
    rows = []
    for each in found:
        scripts, study, floor = each["script_seconds"], each["study_seconds"], each["seconds"]
        rows.append(
            (
                each["host"],
                f"{each['training_gflop']:,.0f}",
                f"{each['testing_gflop']:,.0f}",
                written(each["gflops"], 0),
                written(floor, 1),
                "-" if study is None else f"{study:.1f}",
                "-" if study is None else f"{scripts:.0f}",
                "-" if study is None else f"{scripts / floor['median']:.1f}",
            )
        )
    columns = (
        *("host", "training, GFLOP", "testing, GFLOP", "GFLOP/s of the machine"),
        *("floor, s", "study, s", "scripts, s", "ratio at the floor"),
    )
    return as_table(columns, rows)


if __name__ == "__main__":
    main()

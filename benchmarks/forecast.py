r"""Calibrate `peftport check --forecast`, and test it on pairs of hosts that it has not seen.

    peftport study run results/forecast/calibration.yaml --set hosts=HOSTS --out runs/forecast
    peftport study export runs/forecast --format csv --out results/forecast/calibration.csv
    python benchmarks/forecast.py calibrate runs/forecast
    python benchmarks/forecast.py test STUDY
    python benchmarks/forecast.py summary

`benchmarks/forecast_hosts.py` makes HOSTS. `test` writes results/forecast/test-STUDY.csv with a row
for every cell of a study: what was measured, the signals, and what is forecast with and without
texts; `summary` says how those rows agree. docs/forecast.md explains.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import load
from scipy.stats import spearmanr

from peftport.files import write_json
from peftport.forecast.calibration import Calibration, MeasuredCopy, calibration
from peftport.forecast.curve import FROM_TEXTS, FROM_WEIGHTS, Calibrated
from peftport.forecast.signals import (
    TEXTS,
    Answers,
    WeightSignals,
    compare_weights,
    layer_ends,
    layers_of,
    mean_cka,
    named_classes,
    read_both,
    shared_answers,
)
from peftport.hosts.fingerprint import fingerprint
from peftport.modules import Module, Record
from peftport.porting.base import Request
from peftport.porting.copy import Copy
from peftport.porting.means import Means, side
from peftport.porting.reading import TokenRows
from peftport.porting.texts import draw
from peftport.reports.measures import Recovery, recovery
from peftport.reports.results import Cell, Results
from peftport.reports.stored import read_results
from peftport.studies.store import read_store
from peftport.tasks import load_task

DONORS = 2
"""Of each cell, so many donors are tried on texts."""
FOLDER = Path("results/forecast")
TARGET = Path("src/peftport/forecast/calibration.json")
ABOUT = (
    "{pairs} directed pairs of {hosts} small T5-shaped hosts (width 64, 2 + 2 layers), most of "
    "them continuations of lab:small by 30 to 1,000 steps; two generated tasks; adapter, "
    "compacter, lora and prefix, {seeds} seeds each"
)


def measured(study: Path) -> Iterator[dict[str, Any]]:
    """Cells of a study in which donors are received on their own task, with the recovery
    of a copy without a step of training. Cells are left out, with a word, where native modules of
    either host learn nothing: there is nothing to keep then."""
    results = read_results(study)
    for cell in results.cells:
        if cell.method != "copy" or cell.origin_task != cell.task or cell.relation == "same":
            continue
        kept = kept_of(results, cell)
        donors = kept_of(results, cell._replace(receiver=cell.origin), "native")
        if kept is None or donors is None or kept.ratio is None or donors.ratio is None:
            why = [each.reason for each in (kept, donors) if each is not None and each.reason]
            print(f"left out: {cell.technique} {cell.pair}, {cell.task}: {' '.join(why)}")
            continue
        words = ("technique", "origin", "receiver", "relation", "task")
        yield {w: getattr(cell, w) for w in words} | {"recovery": round(kept.ratio.value, 4)}


def kept_of(results: Results, cell: Cell, condition: str = "ported") -> Recovery | None:
    """The recovery of a condition at a cell, None where something was not run; for "native" it has
    no ratio where native modules learn nothing."""
    port, host, native = (results.series(cell, c, 0) for c in (condition, "host", "native"))
    return None if port is None or host is None else recovery(port, host, native)


class Signals:
    """The signals of a study's cells, from its hosts and from the donors that it keeps.

    Every host is loaded once and looked at once: the hosts of a study are small, and those of a
    pair have one tokenizer.
    """

    def __init__(self, study: Path) -> None:
        self.store = read_store(study)
        spec = self.store.spec
        self.tasks = cache(lambda task: load_task(spec["tasks"][task]))
        self.side = cache(lambda host: side(spec["hosts"][host]))
        self.host = cache(lambda host: self.side(host).load())
        self.weights = cache(self._weights)
        self.rows = cache(self._rows)
        self.ends = cache(lambda host, task: layer_ends(self.host(host), self.rows(host, task)))
        self.answers = cache(self._answers)

    def of(self, cell: dict[str, Any]) -> dict[str, float]:
        """All signals of a cell, the mean over its donors, rounded."""
        origin, receiver, task = cell["origin"], cell["receiver"], cell["task"]
        donors = self._donors(cell["technique"], origin, task)[:DONORS]
        layers = layers_of(self.modules[donors[0]].tensors, self.side(origin).geometry)
        found = asdict(self.weights(origin, receiver, layers))
        found["cka"] = mean_cka(self.ends(origin, task), self.ends(receiver, task))
        pairs = [[self.answers(d, host, task) for host in (origin, receiver)] for d in donors]
        found["answers"] = sum(shared_answers(*pair) for pair in pairs) / len(pairs)
        return {name: round(value, 4) for name, value in found.items()}

    def _weights(self, origin: str, receiver: str, layers: tuple[str, ...]) -> WeightSignals:
        return compare_weights(self.side(origin), self.side(receiver), layers)

    def _rows(self, host: str, task: str) -> list[TokenRows]:
        here = self.side(host)
        texts = draw(self.tasks(task).split("train").texts, TEXTS, 0, task)
        donor = next(
            d for d, m in enumerate(self.modules) if m.record.task["name"] == self.tasks(task).name
        )
        return read_both(self._request(donor), Means(here, here, texts))[0]

    def _answers(self, donor: int, host: str, task: str) -> Answers:
        rows, tensors = self.rows(host, task)[0], self.modules[donor].tensors
        found = named_classes(self.host(host), self._request(donor), tensors, rows)
        assert found is not None
        return found

    def _request(self, donor: int) -> Request:
        module = self.modules[donor]
        shapes = {name: tuple(tensor.shape) for name, tensor in module.tensors.items()}
        return Copy().request(module.record, shapes, module.geometry)

    def _donors(self, technique: str, host: str, task: str) -> list[int]:
        """Places of a cell's donors among the modules."""
        mark, name = fingerprint(self.side(host).folder), self.tasks(task).name
        return [
            place
            for place, donor in enumerate(self.modules)
            if (donor.technique, donor.record.host.fingerprint) == (technique, mark)
            and donor.record.task["name"] == name
        ]

    @cached_property
    def modules(self) -> list[Module]:
        """Every donor that the study keeps, by seed."""
        kept = [self.store.donor(key)[0] for key in self.store.donor_statuses()]
        modules = [
            Module(Record.model_validate_json(each.record), load(each.tensors))
            for each in kept
            if each is not None
        ]
        return sorted(modules, key=lambda module: module.record.seed)


def calibrate(study: Path) -> None:
    """Write `calibration.json` from the calibration's study."""
    signals = Signals(study)
    cells = tuple(
        MeasuredCopy.model_validate({**cell, **signals.of(cell)}) for cell in measured(study)
    )
    pairs = {(cell.origin, cell.receiver) for cell in cells}
    hosts = {host for pair in pairs for host in pair}
    about = ABOUT.format(pairs=len(pairs), hosts=len(hosts), seeds=DONORS)
    made = Calibration(about=about, source=str(FOLDER / "calibration.csv"), cells=cells)
    write_json(TARGET, made.model_dump(mode="json"))
    print(f"{len(cells)} cells in {TARGET}")


def test(study: Path) -> None:
    """Write what is measured and what is forecast for every cell of a study."""
    signals, cells = Signals(study), calibration().cells
    name = signals.store.spec["name"]
    ways = {"weights": Calibrated(cells, FROM_WEIGHTS), "texts": Calibrated(cells, FROM_TEXTS)}
    rows = []
    for cell in measured(study):
        row = {"study": name, **cell, **signals.of(cell)}
        for way, calibrated in ways.items():
            value = calibrated.curve(row["technique"], row)
            low, high = calibrated.interval(value)
            row |= {
                way: round(value, 4),
                f"{way}_low": round(low, 4),
                f"{way}_high": round(high, 4),
            }
        rows.append(row)
    if not rows:
        raise SystemExit(f"{study} has no cell that can be tested yet.")
    pd.DataFrame(rows).to_csv(FOLDER / f"test-{name}.csv", index=False)


def summary() -> None:
    """How forecasts agree with what was measured: rank correlation, error, coverage of intervals,
    over all test rows and over parts of them. A cell is a pair of hosts and a technique."""
    rows = pd.concat(pd.read_csv(file) for file in sorted(FOLDER.glob("test-*.csv")))
    cells = rows.groupby(["study", "origin", "receiver", "relation", "technique"], as_index=False)
    means = cells.mean(numeric_only=True)
    parts = {"all": means, "continuations": means[means["relation"] == "continuation"]}
    parts |= {str(name): part for name, part in means.groupby("study")}
    parts |= {str(name): part for name, part in means.groupby("technique")}
    print("| cells | number | from | Spearman | mean error | in the interval |")
    print("|---|---|---|---|---|---|")
    for title, part in parts.items():
        for way in ("weights", "texts"):
            alike = part[way].nunique() == 1
            rank = "-" if alike else f"{spearmanr(part[way], part['recovery']).statistic:.2f}"
            error = (part[way] - part["recovery"]).abs().mean()
            inside = part["recovery"].between(part[f"{way}_low"], part[f"{way}_high"]).mean()
            print(f"| {title} | {len(part)} | {way} | {rank} | {error:.2f} | {inside:.0%} |")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("calibrate", "test"):
        added = verbs.add_parser(verb)
        added.add_argument("study", type=Path)
    verbs.add_parser("summary")
    given = parser.parse_args()
    if given.verb == "summary":
        summary()
    else:
        {"calibrate": calibrate, "test": test}[given.verb](given.study)


class _Plain(argparse.RawDescriptionHelpFormatter):
    """Leaves the description as it is written."""


if __name__ == "__main__":
    main()

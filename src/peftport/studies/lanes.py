"""How many lanes a study trains side by side, where its specification leaves that to the machine.

The choice is made once, when a study is begun, and written into its store with the specification:
its packs depend on that alone, whatever machine goes on with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.studies.processes import apart
from peftport.studies.spec import AUTO, Spec
from peftport.studies.store import is_study, read_store

if TYPE_CHECKING:
    from peftport.studies.measure import Bench
    from peftport.studies.resolve import Facts

COUNTS = (1, 2, 4, 8, 16, 32)
"""Those that are tried on a CPU."""

MOST = 128
"""Beyond this many, a GPU gains nothing by more."""

_NEAR_ENOUGH = 0.95
_FREE = 0.8


def with_lanes(spec: Spec, folder: Path, facts: Facts) -> Spec:
    """The specification with its number of lanes: as given, as the study in `folder` was begun
    with, or as is best on this machine."""
    if spec.lanes != AUTO:
        return spec
    if is_study(folder):
        with read_store(folder) as store:
            lanes = int(store.spec["lanes"])
    else:
        lanes = apart(choose, spec, facts)
    return spec.model_copy(update={"lanes": lanes})


def choose(spec: Spec, facts: Facts) -> int:
    """Measure the study's first technique on its largest host.

    On a CPU the fewest lanes that come near to the fastest; on a GPU as many as its free memory
    holds.
    """
    import torch

    from peftport.studies.measure import Bench
    from peftport.studies.plan import Plan
    from peftport.tasks import load_task

    host = max(facts.hosts.values(), key=lambda host: _size(host["geometry"]))
    label, task = next(iter(facts.tasks.items()))
    rows = load_task(task["location"], limit_train=1024, limit_test=64, **dict(spec.asked))
    bench = Bench(Plan(spec), host["location"], {label: rows})
    name, options = next(iter(facts.techniques.items()))
    if torch.cuda.is_available():
        return _on_gpu(bench, name, options)
    return fastest(_rates(bench, name, options))


def _size(geometry: Mapping[str, Any]) -> int:
    """Roughly the weights that a token passes."""
    per_layer = geometry["width"] * (4 * geometry["width"] + 3 * geometry["ffn"])
    return int(per_layer * sum(geometry["stacks"].values()))


def _rates(bench: Bench, name: str, options: Mapping[str, Any]) -> dict[int, float]:
    """Lanes -> steps of one lane a second; no more are tried when a step gets slow."""
    from peftport.studies.measure import SLOW

    rates = {}
    for lanes in COUNTS:
        seconds, _ = bench.train(name, options, lanes)
        rates[lanes] = lanes / max(seconds, 1e-9)
        if seconds > SLOW / 2:
            break
    return rates


def fastest(rates: Mapping[int, float]) -> int:
    """The fewest lanes whose rate is near the best: more would take memory for nothing."""
    best = max(rates.values())
    return min(lanes for lanes, rate in rates.items() if rate >= _NEAR_ENOUGH * best)


def _on_gpu(bench: Bench, name: str, options: Mapping[str, Any]) -> int:
    import torch

    peaks = []
    for lanes in (1, 2):
        torch.cuda.reset_peak_memory_stats()
        bench.train(name, options, lanes)
        peaks.append(torch.cuda.max_memory_allocated())
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    return lanes_that_fit(free + torch.cuda.memory_allocated(), *peaks)


def lanes_that_fit(memory: int, one: int, two: int) -> int:
    """Lanes that fit into so many bytes, when one lane takes `one` and two take `two`."""
    each = max(1, two - one)
    return int(min(MOST, max(1, 1 + (_FREE * memory - one) // each)))

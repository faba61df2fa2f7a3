"""What is installed, what the machine has, where caches are, and what is missing for what."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.result import Result

if TYPE_CHECKING:
    import pandas as pd

_REQUIRED = ("torch", "transformers", "huggingface-hub", "tokenizers", "safetensors", "numpy")
_OPTIONAL = {
    "peft": ("verify folders of peft", "peft"),
    "datasets": ("tasks that are data sets of the hub", "hub"),
    "sacrebleu": ("chrF, of tasks that are written", "completion"),
    "rouge-score": ("ROUGE-L, of tasks that are written", "completion"),
    "lm-eval": ("test --lm-eval", "lm-eval"),
    "ray": ("study run --executor ray", "ray"),
    "gguf": ("hosts in GGUF files", "gguf"),
}
"""Distribution -> what needs it, and the extra of peftport that brings it."""


@dataclass(frozen=True)
class Diagnosis(Result):
    """What is here, and what is missing for what.

    Attributes:
        versions: package -> version, None where it is not installed.
        devices: for each `name`, its `memory` in bytes, and whether it multiplies bfloat16 faster
            than single precision, `fast_bf16`; `threads` of the CPU.
        caches: for each what it holds, its `folder` and its size in `bytes`.
        commands: for each thing that needs more than the package itself: `what`, `ready`, and
            `do`, what is to be done where it is not.
    """

    versions: Mapping[str, str | None]
    devices: tuple[Mapping[str, Any], ...]
    caches: tuple[Mapping[str, Any], ...]
    commands: tuple[Mapping[str, Any], ...]

    def frame(self) -> pd.DataFrame:
        """A row for each thing that needs more than the package itself."""
        import pandas as pd

        return pd.DataFrame([dict(each) for each in self.commands])

    def to_dict(self) -> dict[str, Any]:
        """Everything."""
        rows = {
            name: [dict(each) for each in getattr(self, name)]
            for name in ("devices", "caches", "commands")
        }
        return {"versions": dict(self.versions), **rows}

    def __str__(self) -> str:
        versions = [f"  {name:<16} {found or '-'}" for name, found in self.versions.items()]
        devices = [f"  {_device(each)}" for each in self.devices]
        caches = [
            f"  {each['what']:<12} {each['folder']} ({each['bytes'] / 1e6:,.0f} MB)"
            for each in self.caches
        ]
        ready = [
            f"  {'yes' if each['ready'] else 'no':<4} {each['what']}"
            + ("" if each["ready"] else f": {each['do']}")
            for each in self.commands
        ]
        parts = {"versions": versions, "devices": devices, "caches": caches, "ready": ready}
        return "\n".join(line for title, lines in parts.items() for line in (title, *lines))


def doctor() -> Diagnosis:
    """Look at versions, devices and caches, and say what is missing for which command.

    Nothing is loaded or fetched.

    >>> import peftport as pp
    >>> found = pp.doctor()
    >>> found.versions["torch"] is not None, found.devices[0]["name"]
    (True, 'cpu')
    """
    names = ("peftport", *_REQUIRED, *_OPTIONAL)
    versions = {"python": platform.python_version(), **{name: _version(name) for name in names}}
    return Diagnosis(versions, tuple(_devices()), tuple(_caches()), tuple(_commands(versions)))


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[dict[str, Any]]:
    import torch

    from peftport.hosts.precision import bf16_is_fast

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cpu = {
        "name": "cpu",
        "memory": pages,
        "fast_bf16": bf16_is_fast(),
        "threads": os.cpu_count(),
    }
    gpus = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())]
    found = [
        {
            "name": f"cuda:{n} ({gpu.name})",
            "memory": gpu.total_memory,
            "fast_bf16": bf16_is_fast(f"cuda:{n}"),
        }
        for n, gpu in enumerate(gpus)
    ]
    return [cpu, *found]


def _caches() -> list[dict[str, Any]]:
    from huggingface_hub.constants import HF_HUB_CACHE

    from peftport.tasks.tokens import cache_folder

    places = {"tokens": cache_folder(), "hub": Path(HF_HUB_CACHE)}
    return [
        {"what": what, "folder": str(folder), "bytes": _bytes(folder)}
        for what, folder in places.items()
    ]


def _bytes(folder: Path) -> int:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
    return sum(file.stat().st_size for file in files)


def _commands(versions: Mapping[str, str | None]) -> list[dict[str, Any]]:
    from huggingface_hub import get_token
    from huggingface_hub.constants import HF_HUB_OFFLINE

    from peftport.proof import with_adapters

    offline = "the environment says HF_HUB_OFFLINE; without it they are fetched"
    login = "run `hf auth login`, or set HF_TOKEN"
    adapters = f"name the Python of an environment with adapters in ${with_adapters.VARIABLE}"
    here = {
        "hosts and tasks of the hub": (not HF_HUB_OFFLINE, offline),
        **{
            what: (versions[name] is not None, f"pip install 'peftport[{extra}]'")
            for name, (what, extra) in _OPTIONAL.items()
        },
        "verify folders of AdapterHub": (with_adapters.python() is not None, adapters),
        "--push-to-hub": (get_token() is not None and not HF_HUB_OFFLINE, login),
        "training on a GPU": (_has_gpu(), "no GPU that torch can use; the CPU is taken"),
    }
    return [{"what": w, "ready": r, "do": "" if r else do} for w, (r, do) in here.items()]


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _device(each: Mapping[str, Any]) -> str:
    threads = f", {each['threads']} threads" if "threads" in each else ""
    faster = "bfloat16" if each["fast_bf16"] else "single precision"
    return f"{each['name']}, {each['memory'] / 1e9:,.0f} GB{threads}, faster in {faster}"

"""How formats of other libraries keep the modules of a technique: its folder says it, here stands
what it has to say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.modules.formats.adapterhub_layout import Hub
from peftport.modules.formats.base import Draft, Folder
from peftport.modules.module import Module
from peftport.registry import imported
from peftport.techniques import technique, working_techniques
from peftport.techniques.base import Parameters

Written = Callable[[Module], tuple[dict[str, Any], Parameters]]
Holds = Callable[[Any, Geometry, Collection[str]], None]


def holds_all(config: Any, geometry: Geometry, names: Collection[str]) -> None:
    """For techniques whose every module a format holds."""
    return


@dataclass(frozen=True)
class InPeft:
    """How PEFT keeps a technique's modules.

    kind: their `peft_type`. read: makes a draft of a folder, the file of its tensors, and the
    tensors; BadInput names what cannot be read. written: configuration and tensors of a module.
    keys: of the configuration that `read` takes, beside those of all modules. holds: raises
    BadInput, before there is a module, where peft cannot do what one of such a configuration, on
    such a host and with tensors of such names does.
    """

    kind: str
    read: Callable[[Folder, Path, Mapping[str, Tensor]], Draft]
    written: Written
    keys: frozenset[str] = frozenset()
    holds: Holds = holds_all


@dataclass(frozen=True)
class InAdapterHub:
    """How adapters keeps a technique's modules.

    kind: their `architecture`. read, written, holds: as PEFT's. meant: tells the configurations of
    this technique from others of its kind. host_arguments: what a host must be loaded with, as
    Python.
    """

    kind: str | None
    read: Callable[[Hub], Draft]
    written: Written
    holds: Holds = holds_all
    meant: Callable[[Mapping[str, Any]], bool] = lambda _config: True
    host_arguments: Callable[[Geometry], str] = lambda _geometry: ""


def kept_in(format_name: str) -> dict[str, Any]:
    """How a format keeps modules, by technique, of all techniques that it has."""
    return {
        made.name: imported(made.formats[format_name])
        for made in working_techniques()
        if format_name in made.formats
    }


def how_kept(format_name: str, name: str) -> Any:
    """How a format keeps the modules of a technique; BadInput where it has none."""
    kept = kept_in(format_name).get(name)
    if kept is None:
        others = " or ".join([*technique(name).formats, "peftport"])
        raise BadInput(f"{format_name} has no {name}; write it with --format {others}.")
    return kept

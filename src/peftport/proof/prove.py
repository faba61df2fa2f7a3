"""Whether a module's folder does what it should, found out as a user of it would: by loading it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from peftport.errors import BadInput
from peftport.files import read_json
from peftport.modules import Module, formats, load_module
from peftport.modules.formats.provenance import KEPT
from peftport.proof import with_adapters, with_peft
from peftport.proof.answers import Outputs, our_answers
from peftport.proof.servers import Served, folder_of_peft, served
from peftport.proof.texts import TEXTS, as_batch
from peftport.techniques import technique
from peftport.techniques.head import WEIGHT

if TYPE_CHECKING:
    from peftport.hosts import Geometry
    from peftport.hosts.host import Host

Precision = Literal["fp32", "bf16"]
TOLERANCE = {"fp32": 1e-5, "bf16": 5e-2}
"""How far two ways of computing an answer may be apart, as a share of its largest number. In
bfloat16 the eighteen layers of Gemma 3 270M alone bring them 2e-2 apart."""
_NOTHING = 1e-7
"""A change by less than this share of the largest number is rounding."""
_LISTED = 3


@dataclass(frozen=True)
class Proof:
    """What was found of a folder.

    loaded_by: the library that loaded it, with its version; None where none that could is at hand.
    answers: what it made of the texts. apart: the largest distance to what peftport computes, as a
    share of the largest number; None where one of the two is missing.
    problems: what is wrong with the folder. notes: what could not be looked at.
    """

    loaded_by: str | None
    answers: Outputs | None
    apart: float | None
    tolerance: float
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    servers: tuple[Served, ...]

    @property
    def acts(self) -> bool:
        """Whether the module changes the answers by more than rounding; what is no number does."""
        answers = self.answers
        return answers is not None and not answers.moved <= _NOTHING * answers.size

    @property
    def equal(self) -> bool | None:
        """Whether the library's answers are peftport's; None where they were not compared."""
        return None if self.apart is None else self.apart <= self.tolerance


def prove(
    folder: Path,
    host_folder: Path,
    geometry: Geometry,
    lend: Callable[[], Host],
    *,
    texts: tuple[str, ...] = TEXTS,
    expected: Module | None = None,
    from_host: str | None = None,
    pickles: bool = True,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> Proof:
    """Load a folder by the library that it is meant for, and by peftport, and compare.

    Args:
        folder: of the module, in any format. host_folder: of the host's files.
        lend: gives the host in memory; it is let go before the library loads it.
        texts: to try it on. expected: the module that the folder is to hold; what is in the folder
            if not given.
        precision: in which the library loads the host; "bf16" is compared with a wider tolerance.
    """
    format = formats.format_of(folder)
    problems, notes = list[str](), list[str]()
    module = expected
    if module is None:
        try:
            module = load_module(folder, from_host=from_host, pickles=pickles)
        except BadInput as error:
            problems.append(f"peftport does not read it: {error}")
    inputs, ours = _ours(lend, module, geometry, texts)
    problems += _changed(folder, module)
    if module is not None and ours is None:
        problems.append("it is made for a host of another geometry")
    ask = _Library(format, folder, host_folder, geometry, inputs, device, precision)
    found: Outputs | None = None
    try:
        library, found = ask.answers(module)
    except BadInput as error:
        library = ask.name
        problems.append(str(error))
    if library is None:
        notes.append(ask.missing)
    tolerance, apart = TOLERANCE[precision], _apart(ours, found)
    problems += [*_not_finite(ours, "peftport"), *_not_finite(found, library)]
    problems += [*_unloaded(found, library), *_otherwise(apart, tolerance, library)]
    notes += _not_compared(found)
    taken = served(*folder_of_peft(folder), geometry) if format == "peft" else []
    seen = ours if library is None or format == formats.OWN else found
    return Proof(library, seen, apart, tolerance, tuple(problems), tuple(notes), tuple(taken))


def _ours(
    lend: Callable[[], Host], module: Module | None, geometry: Geometry, texts: tuple[str, ...]
) -> tuple[dict[str, torch.Tensor], Outputs | None]:
    """The texts as the host reads them, and what peftport makes of them; None where the module is
    not for such a host. The host is let go."""
    host = lend()
    inputs = as_batch(host.tokenizer, texts)
    if module is None or module.geometry != geometry:
        return inputs, None
    return inputs, our_answers(host, module, inputs)


@dataclass(frozen=True)
class _Library:
    """The library that a folder is meant for."""

    format: str
    folder: Path
    host: Path
    geometry: Geometry
    inputs: dict[str, torch.Tensor]
    device: str
    precision: Precision

    @property
    def name(self) -> str | None:
        """With its version, None where it is not at hand."""
        if self.format == "peft":
            return with_peft.distribution()
        python = with_adapters.python() if self.format == "adapterhub" else None
        return None if python is None else with_adapters.distribution(python)

    @property
    def missing(self) -> str:
        """What to do where the library is not at hand."""
        if self.format == "peft":
            install = "pip install 'peftport[peft]'"
            return f"peft is not installed, so it was not loaded with it: {install}"
        return (
            "adapters is not at hand, so it was not loaded with it: name the Python of an "
            f"environment with adapters in ${with_adapters.VARIABLE}"
        )

    def answers(self, module: Module | None) -> tuple[str | None, Outputs | None]:
        """The library and what it answers; None and None where it is not at hand."""
        name = self.name
        if name is None or self.format == formats.OWN:
            return (_own(), None) if self.format == formats.OWN else (None, None)
        place = (self.folder, self.host, self.geometry, self.inputs)
        if self.format == "peft":
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            return name, with_peft.answers(*place, self.device, dtype)
        python = with_adapters.python()
        assert python is not None
        head = module is not None and WEIGHT in module.tensors
        return name, with_adapters.answers(python, *place, head)


def _own() -> str:
    from importlib.metadata import version

    return f"peftport {version('peftport')}"


def _unloaded(found: Outputs | None, library: str | None) -> Iterator[str]:
    """What the library leaves out of the folder, and what it does not find there."""
    if found is None:
        return
    for names, what in ((found.unread, "does not load"), (found.missing, "does not find")):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            yield f"{library} {what} {', '.join(map(repr, names[:_LISTED]))}{more}"


def _not_finite(found: Outputs | None, by: str | None) -> Iterator[str]:
    """That answers with the module are not finite, where they are not."""
    if found is not None and not found.module.isfinite().all():
        yield f"with it {by} computes answers that are not finite: its numbers are too large"


def _otherwise(apart: float | None, tolerance: float, library: str | None) -> Iterator[str]:
    """That the library answers otherwise than peftport, where it does."""
    if apart is not None and apart > tolerance:  # what is not finite is told by itself
        yield (
            f"{library} answers otherwise than peftport: {apart:.1e} apart, and {tolerance:.0e} "
            "are allowed (as a share of the largest number)"
        )


def _not_compared(found: Outputs | None) -> Iterator[str]:
    """Why the library's answers are not held against peftport's, where they are not."""
    if found is not None and found.other is not None:
        yield (
            f"it is for {found.other}, and peftport runs such hosts as another class: their "
            "answers are not of one kind and were not compared"
        )


def _apart(ours: Outputs | None, theirs: Outputs | None) -> float | None:
    """The largest distance between two answers as a share of the largest number; None where one is
    missing or they are not of one kind."""
    if ours is None or theirs is None or theirs.other is not None:
        return None
    if ours.module.shape != theirs.module.shape:
        return float("inf")
    return float((ours.module - theirs.module).abs().max()) / theirs.size


def _changed(folder: Path, module: Module | None) -> Iterator[str]:
    """A scale that is no longer the one that peftport wrote: it loads without a word, and answers
    otherwise."""
    if module is None or not (folder / KEPT).is_file():
        return
    try:
        kept = read_json(folder / KEPT)["record"]
        written = technique(kept["technique"]).configure(kept["config"])
    except (OSError, ValueError, KeyError, TypeError, BadInput):
        return
    before, now = (getattr(each, "scale", None) for each in (written, module.config))
    if before is not None and now is not None and not math.isclose(before, now, rel_tol=1e-6):
        yield f"its scale is {now:g} and was {before:g} when peftport wrote the folder"

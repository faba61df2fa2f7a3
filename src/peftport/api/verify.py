"""Whether a module's folder acts, in the library that it is meant for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.hosts import HostHandle, as_host, device_named
from peftport.api.modules import ModuleHandle, as_handle
from peftport.api.reading import require_at_least
from peftport.api.result import Result
from peftport.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from peftport.api.modules import ModuleLike
    from peftport.hosts.precision import Precision
    from peftport.proof.prove import Proof

LARGE = 2 << 30
"""Bytes of a host's files from which `port` leaves verification to those who ask for it."""


@dataclass(frozen=True)
class Verified(Result):
    """What a module's folder does.

    Attributes:
        module: the folder.
        format: of the folder.
        host: name of the host.
        loaded_by: the library that loaded it, with its version; None where none is at hand.
        texts: how many it was tried on.
        acts: whether the module changes the answers by more than rounding.
        nats: the divergence (Kullback-Leibler) of the answers with the module from those without,
            in the mean over texts; None on encoders without a head, whose answers are states.
        moved: the largest change of a logit, or of a number of the states; in no unit.
        equal: whether the library's answers are what peftport computes; None where they could not
            be compared.
        apart: their largest distance as a share of the largest number, of which
            `tolerance` is allowed.
        problems: what is wrong with the folder.
        notes: what could not be looked at.
        servers: for vLLM and SGLang `server`, `taken`, `problems` and `options`; empty where the
            folder is not in peft's format. None where nothing was looked at (see `notes`).
    """

    module: str
    format: str
    host: str
    loaded_by: str | None
    texts: int
    acts: bool | None
    nats: float | None
    moved: float | None
    equal: bool | None
    apart: float | None
    tolerance: float
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    servers: tuple[Mapping[str, Any], ...]

    @property
    def passed(self) -> bool:
        """Whether the module acts and nothing is wrong with its folder."""
        return bool(self.acts) and not self.problems

    def frame(self) -> pd.DataFrame:
        """A row for each server."""
        import pandas as pd

        return pd.DataFrame([dict(each) for each in self.servers])

    def to_dict(self) -> dict[str, Any]:
        """Everything, and `passed`."""
        names = ("module", "format", "host", "loaded_by", "texts", "acts", "nats", "moved", "equal")
        found = {name: getattr(self, name) for name in (*names, "apart", "tolerance")}
        lists = {name: list(getattr(self, name)) for name in ("problems", "notes", "servers")}
        return {**found, **lists, "passed": self.passed}

    def short(self) -> str:
        """One line, for the end of a port."""
        if self.acts is None:
            return f"not verified: {'; '.join(self.notes)}"
        served = ", ".join(
            f"{each['server']} {'would' if each['taken'] else 'would not'} take it"
            for each in self.servers
        )
        wrong = [f"PROBLEM: {problem}" for problem in self.problems]
        told = [*self._effect(), *([served] if served else []), *wrong]
        return f"verified with {self.loaded_by or 'peftport alone'}: {'; '.join(told)}"

    def __str__(self) -> str:
        if self.acts is None:
            return self.short()
        lines = [
            f"{self.module} ({self.format}) on {self.host}, loaded by "
            f"{self.loaded_by or 'peftport alone'}, {self.texts} texts",
            *(f"  {each}" for each in self._effect()),
            *(f"  PROBLEM: {problem}" for problem in self.problems),
            *(f"  note: {note}" for note in self.notes),
        ]
        for each in self.servers:
            can = "would take it" if each["taken"] else "would NOT take it"
            started = f", started with {' '.join(each['options'])}" if each["options"] else ""
            why = f": {'; '.join(each['problems'])}" if each["problems"] else ""
            lines.append(f"  {each['server']} {can}{why or started}")
        return "\n".join(lines)

    def _effect(self) -> list[str]:
        """What it does, and whether that is what peftport computes."""
        told = []
        if self.moved is None:
            told.append("it was not loaded, so that nothing is known of what it does")
        elif not self.acts:
            told.append("it does NOTHING: answers are the same without it")
        elif not isfinite(self.moved):
            told.append("it makes the answers numbers that are not finite")
        elif self.nats is None:
            told.append(f"it moves the answers: a number of the states by up to {self.moved:.3g}")
        else:
            told.append(
                f"it moves the answers: divergence {self.nats:.3g} nats on average, a logit by up "
                f"to {self.moved:.3g}"
            )
        if self.equal:
            told.append(f"equal to what peftport computes (within {self.apart:.0e})")
        return told


def verify(
    module: ModuleLike,
    host: str | Path | HostHandle,
    *,
    texts: str | Path | Sequence[str] | None = None,
    text_count: int = 32,
    text_column: str | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
) -> Verified:
    """Load a folder with the library that it is meant for, and say whether it does anything.

    A folder of peft's is loaded by stock peft on the host that stock transformers loads, one of
    AdapterHub's by adapters in an environment of its own where that is at hand, one of peftport's
    by peftport. The same texts go through peftport, and the two are compared. For folders of peft's
    the documented rules of vLLM and SGLang are applied.

    Args:
        module: a folder, or what `load_module` gave or `port` wrote.
        host: the host to load it on: a name, or what `load_host` gave.
        texts: to try it on, of which at most `text_count` are drawn: a file, a folder, a task's
            name, or a list of texts; eight plain sentences if not given.
        text_column: of them.
        device: where the host goes: "cpu" or "cuda".
        precision: in which the library loads the host; "bf16" is compared with a wider tolerance.

    Raises:
        BadInput: the module has no folder, the host cannot be found, or there are no texts.

    >>> import peftport as pp
    >>> found = pp.verify("modules/films", "lab:small")
    >>> found.acts, found.format, found.nats > 0
    (True, 'peftport', True)
    """
    from peftport.modules.found import find_module

    require_at_least(1, text_count=text_count)
    handle, there = as_handle(module), as_host(host, device)
    if handle.path is None:
        raise BadInput("the module has no folder yet: save it, and verify the folder.")
    handle = replace(handle, path=find_module(handle.path))
    return _verified(handle, there, _texts(texts, text_count, text_column), device, precision)


def verify_written(module: ModuleHandle, host: HostHandle) -> Verified:
    """What `verify` says of a folder that was just written, against the module that was written.

    A host that is large, or has no tokenizer, is not loaded for that: then nothing is claimed.
    """
    size = sum(file.stat().st_size for file in host.folder.glob("*.safetensors"))
    if size > LARGE and "loaded" not in host.__dict__:
        return _unseen(
            module,
            host,
            f"the host is large; see `peftport verify {module.path} --host {host.name}`",
        )
    try:
        return _verified(module, host, None, host.device, "fp32", glimpse=True)
    except BadInput as error:
        return _unseen(module, host, str(error))


def _verified(
    handle: ModuleHandle,
    host: HostHandle,
    texts: tuple[str, ...] | None,
    device: str | None,
    precision: Precision,
    glimpse: bool = False,
) -> Verified:
    """glimpse: the host is run once here, and needs not be in memory whole."""
    from peftport.proof.prove import prove
    from peftport.proof.texts import TEXTS

    assert handle.path is not None
    proof = prove(
        handle.path,
        host.folder,
        host.geometry,
        (lambda: host.lend_layers("fp32")) if glimpse else host.lend,
        texts=texts or TEXTS,
        expected=handle.made,
        from_host=handle.from_host or host.name,
        pickles=handle.pickles,
        device=device_named(device or host.device),
        precision=precision,
    )
    return _told(handle, host, len(texts or TEXTS), proof)


def _told(handle: ModuleHandle, host: HostHandle, texts: int, proof: Proof) -> Verified:
    answers = proof.answers
    return Verified(
        module=handle.called,
        format=handle.format,
        host=host.name,
        loaded_by=proof.loaded_by,
        texts=texts,
        acts=proof.acts,
        nats=None if answers is None else answers.nats,
        moved=None if answers is None else answers.moved,
        equal=proof.equal,
        apart=proof.apart,
        tolerance=proof.tolerance,
        problems=proof.problems,
        notes=proof.notes,
        servers=tuple(each.to_dict() for each in proof.servers),
    )


def _unseen(handle: ModuleHandle, host: HostHandle, why: str) -> Verified:
    """Nothing was looked at."""
    nothing = dict.fromkeys(("loaded_by", "acts", "nats", "moved", "equal", "apart"))
    return Verified(
        module=handle.called,
        format=handle.format,
        host=host.name,
        texts=0,
        tolerance=0.0,
        problems=(),
        notes=(why,),
        servers=(),
        **nothing,
    )


def _texts(
    source: str | Path | Sequence[str] | None, count: int, column: str | None
) -> tuple[str, ...] | None:
    """The texts that were asked for; None where nobody said which."""
    if source is None:
        return None
    if not isinstance(source, str | Path):
        if not source:
            raise BadInput("no texts are given to verify on: give one or more, or None.")
        return tuple(source)[:count]
    from peftport.porting.texts import calibration_texts

    return calibration_texts(str(source), count, 0, column)

"""Hosts by name: found at once, read when something is asked of them, loaded once."""

from __future__ import annotations

import html
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.result import Result
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.hosts import Geometry
    from peftport.hosts.host import Host
    from peftport.hosts.precision import Precision, PrecisionChoice

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class HostHandle(Result):
    """A host that was found and whose weights are read when they are first needed.

    Attributes:
        name: the hub name, folder or `lab:NAME` that it was found by.
        device: where its weights go: "cpu", "cuda" or "cuda:N".
        asked: what was asked for of the precision, "auto", "fp32" or "bf16".
        kept: whether it stays in memory once it was loaded. A host that a function is given by
            name is let go as soon as it is not needed.
    """

    name: str
    device: str | None = None
    asked: PrecisionChoice = "auto"
    kept: bool = True

    @cached_property
    def precision(self) -> Precision:
        """Of the products with its frozen weights, "fp32" or "bf16": as it was asked for, or the
        one that is faster here."""
        from peftport.hosts.precision import chosen_precision, remark_on

        found = chosen_precision(self.asked, self.geometry.width, self.device)
        if remark := remark_on(self.asked, found, self.device):
            _log.warning(
                "notice: host %s multiplies in bfloat16, %s; --precision fp32 has it multiply in "
                "single precision",
                self.name,
                remark,
            )
        return found

    @cached_property
    def geometry(self) -> Geometry:
        """Sizes and insertion points, from the configuration alone."""
        from peftport.hosts import geometry_by_name

        return geometry_by_name(self.name)

    @cached_property
    def folder(self) -> Path:
        """Where its files are; a hub host is fetched first."""
        from peftport.hosts import find_host

        return find_host(self.name).files()

    @cached_property
    def fingerprint(self) -> str:
        """What names its weights and its settings, each a hash in hexadecimal digits."""
        from peftport.hosts.fingerprint import fingerprint

        return fingerprint(self.folder)

    @cached_property
    def loaded(self) -> Host:
        """The host in memory, from now on.

        Raises:
            BadInput: it lacks weights or a tokenizer, or there is no such device.
        """
        from peftport.hosts import load_host

        return load_host(self.name, device_named(self.device), self.precision)

    def let_go(self) -> None:
        """Free the memory of a host that is not to be kept."""
        if not self.kept:
            self.__dict__.pop("loaded", None)

    def lend(self) -> Host:
        """The host in memory for a port method, which wants full precision: this one where it is
        kept, else one that goes when the caller lets it go."""
        if (self.kept or "loaded" in self.__dict__) and self.precision == "fp32":
            return self.loaded
        from peftport.hosts import load_host

        return load_host(self.name, device_named(self.device))

    def lend_layers(self, precision: Precision | None = None) -> Host:
        """The host for those who run it a few times: this one if it is in memory already, else one
        of which one layer's weights are in memory at a time.

        Args:
            precision: of that one's products; as `stream_host` chooses if not given.
        """
        if "loaded" in self.__dict__:
            return self.lend()
        from peftport.hosts.streaming import stream_host

        return stream_host(self.name, device_named(self.device), precision)

    def to_dict(self) -> dict[str, Any]:
        """Geometry, insertion points, fingerprint and provenance, as `describe_host` gives them."""
        from peftport.hosts.genealogy import record_of

        geometry = self.geometry
        return {
            "name": self.name,
            "kind": geometry.kind,
            **geometry.record(),
            "fingerprint": self.fingerprint,
            "linears": {name: [p.outputs, p.inputs] for name, p in geometry.linears.items()},
            "attentions": list(geometry.attentions),
            "provenance": record_of(self.folder) or None,
        }

    def __str__(self) -> str:
        roles: dict[str, str] = {}
        for name, place in self.geometry.linears.items():
            stack, _, role = name.split(".", 2)
            roles.setdefault(f"{stack}.*.{role}", f"{place.outputs} x {place.inputs}")
        return "\n".join(
            [
                *self._sizes(),
                f"fingerprint {self.fingerprint}",
                "linear layers (outputs x inputs):",
                *(f"  {role:<22} {shape}" for role, shape in roles.items()),
            ]
        )

    def _repr_html_(self) -> str:
        """The sizes: a fingerprint would read all weights to be looked at."""
        return f"<pre>{html.escape(chr(10).join(self._sizes()))}</pre>"

    def _sizes(self) -> list[str]:
        this = self.geometry
        stacks = ", ".join(f"{count} {name} layers" for name, count in this.stacks.items())
        return [
            f"{self.name}: {this.family}, {this.kind}, {stacks}",
            f"width {this.width}, {this.heads} heads of {this.head_dim} ({this.kv_heads} for keys "
            f"and values), feed-forward {this.ffn}, vocabulary {this.vocabulary}",
        ]


def load_host(
    name: str | Path, device: str | None = None, precision: PrecisionChoice = "auto"
) -> HostHandle:
    """Find a host. Its configuration is read now, its weights when they are first needed, and then
    they stay in memory as long as the handle lives.

    Args:
        name: a hub name (`Qwen/Qwen3-0.6B`, also `name@revision`), a folder in transformers'
            files, or `lab:NAME`.
        device: where its weights go: "cpu" or "cuda"; the GPU when there is one.
        precision: of the products with its frozen weights: "fp32" or "bf16"; "auto" is bfloat16
            for hosts that are 384 wide or wider, where the machine multiplies it itself.

    Raises:
        BadInput: the host cannot be found, is of a family that peftport does not know, or there is
            no such device.

    >>> import peftport as pp
    >>> host = pp.load_host("lab:small")
    >>> host.geometry.width, host.geometry.stacks
    (64, {'encoder': 2, 'decoder': 2})
    """
    host = HostHandle(str(name), device, precision)
    if device is not None:
        device_named(device)
    _ = host.geometry
    return host


def as_host(
    host: str | Path | HostHandle, device: str | None = None, precision: PrecisionChoice = "fp32"
) -> HostHandle:
    """A handle of what a function was given; a host by name is not kept in memory.

    Raises:
        BadInput: it is neither a handle nor a name.
    """
    if isinstance(host, HostHandle):
        return host
    if not isinstance(host, str | Path):
        raise BadInput(
            f"host: expected a hub name, a folder, lab:NAME or what load_host gives, and not a "
            f"{type(host).__name__}. Save a model with its tokenizer in a folder and name that."
        )
    return HostHandle(str(host), device, precision, kept=False)


def device_named(device: str | None) -> str:
    """The device that is asked for, or the best there is; BadInput when there is no such."""
    import torch

    there = {"cpu": 1, "cuda": torch.cuda.device_count()}
    if device is None:
        return "cuda" if there["cuda"] else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError:  # no name of a device
        asked = None
    if asked is None or (asked.index or 0) >= there.get(asked.type, 0):
        listed = ", ".join(["cpu", *(f"cuda:{number}" for number in range(there["cuda"]))])
        raise BadInput(f"--device {device!r} is not here; there is {listed}.")
    return device


def describe_host(host: str | Path | HostHandle) -> HostHandle:
    """A host's geometry, insertion points and fingerprint, and where it comes from.

    Raises:
        BadInput: the host cannot be found, or lacks weights.

    >>> import peftport as pp
    >>> pp.describe_host("lab:small").to_dict()["kind"]
    'encoder-decoder'
    """
    return as_host(host)


@dataclass(frozen=True)
class HostList(Result):
    """What can be a host: the lab's hosts, which need no download, and the families known."""

    lab: tuple[Mapping[str, str], ...]
    families: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """Two lists of mappings, `lab` and `families`."""
        return {"lab": list(self.lab), "families": list(self.families)}

    def __str__(self) -> str:
        return "\n".join(
            [
                "The lab's hosts, at hand without a download:",
                *(f"  {each['name']:<18} {each['about']}" for each in self.lab),
                "",
                "Model families, by hub name or folder:",
                *(f"  {f['family']:<8} {f['kind']:<16} {f['models']}" for f in self.families),
            ]
        )


def list_hosts() -> HostList:
    """The lab's hosts and the families of models that can be hosts; imports no torch.

    >>> import peftport as pp
    >>> pp.list_hosts().lab[0]["name"]
    'lab:small'
    """
    from peftport import lab
    from peftport.hosts import families

    keys = ("family", "kind", "models")
    return HostList(
        tuple({"name": f"lab:{name}", "about": lab.about(name)} for name in lab.NAMES),
        tuple({key: each[key] for key in keys} for each in families().values()),
    )


@dataclass(frozen=True)
class FamilyList(Result):
    """The families of hosts: for each `family`, `kind`, `models`, `refused`, why a technique cannot
    be made for it, and `in_part`, which of these can be made in part."""

    families: tuple[Mapping[str, Any], ...]

    def to_dict(self) -> dict[str, Any]:
        """The list, under `families`."""
        return {"families": [dict(each) for each in self.families]}

    def page(self) -> str:
        """The page docs/families.md."""
        from peftport.techniques.families import page

        return page([dict(each) for each in self.families])

    def __str__(self) -> str:
        return "\n".join(
            f"{each['family']:<11} {each['kind']:<16} {each['models']}"
            + "".join(f"\n            no {what}: {why}" for what, why in each["refused"].items())
            for each in self.families
        )


def list_families() -> FamilyList:
    """The families of hosts, and what can be made for each.

    >>> import peftport as pp
    >>> "llama" in [each["family"] for each in pp.list_families().families]
    True
    """
    from peftport.techniques.families import family_rows

    return FamilyList(tuple(family_rows()))

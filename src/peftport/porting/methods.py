"""Port methods and controls by name, and which of them could port a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.kind import USUAL, kind_named
from peftport.modules import Record
from peftport.options import parsed
from peftport.porting.account import Account
from peftport.porting.base import Need, PortMethod, Request
from peftport.porting.estimate import CostEstimate, Load
from peftport.registry import Registry
from peftport.techniques.base import Shapes

METHODS = Registry(
    "port method",
    {
        "copy": "peftport.porting.copy:Copy",
        "subspace": "peftport.porting.subspace:Subspace",
        "prolora": "peftport.porting.subspace:ProLora",
        "correlation": "peftport.porting.correlation:Correlation",
        "procrustes": "peftport.porting.procrustes:Procrustes",
        "ridge": "peftport.porting.ridge:Ridge",
        "distill": "peftport.porting.distill:Distill",
        "scratch": "peftport.porting.controls:Scratch",
        "gaussian": "peftport.porting.controls:Gaussian",
        "permuted": "peftport.porting.controls:Permuted",
        "spectrum": "peftport.porting.controls:Spectrum",
        "sampled": "peftport.porting.controls:Gaussian",
    },
    group="peftport.methods",
    kind="peftport.porting.base:PortMethod",
)
_TO_TRY = ("copy", "ridge", "procrustes", "distill", "subspace", "correlation", "prolora")
"""Which method is tried before which, for all that suggests one; docs/porting.md says why."""
SAMPLINGS = ("gaussian", "permuted", "spectrum")


@dataclass(frozen=True)
class Verdict:
    """Whether a method could port a module to a host, told from shapes alone.

    problem: why it cannot, or why the port would be empty or partial; None when nothing is against
    it. requires: what it uses beside the module. account: what it would do, where it can tell.
    estimate: what it would take, where a load was given and it can do it.
    """

    method: str
    problem: str | None
    requires: frozenset[Need]
    account: Account | None = None
    estimate: CostEstimate | None = None


def port_method(name: str) -> PortMethod:
    """The port method called `name`; BadInput with what is known when there is none."""
    made: PortMethod = METHODS.get(name)()
    return made


@dataclass(frozen=True)
class Way:
    """A method with options, as it is written in a list: "distill", or "distill:steps=50:keep=0.5".

    name: the method's. options: those that are written, by name; `settings` has every one.
    """

    written: str
    name: str
    options: Mapping[str, Any]
    settings: Any

    @property
    def method(self) -> PortMethod:
        """The method itself."""
        return port_method(self.name)

    @property
    def requires(self) -> frozenset[Need]:
        """What the method needs with these options."""
        return self.method.requires(self.settings)


def way(written: str) -> Way:
    """Read a method with its options, values as in YAML.

    Raises:
        BadInput: there is no such method, or it has no such options.
    """
    name, *pairs = written.split(":")
    method, options = port_method(name), parsed(pairs, f"method {written}:")
    return Way(written, name, options, method.configure(options))


def judge(
    method: PortMethod, request: Request, unread: str | None = None, load: Load | None = None
) -> Verdict:
    """Whether a method could do what is requested of it (`PortMethod.request`).

    unread: why the weights of one of the hosts cannot be read, where that is so. load: how much
    text it would look at, for an estimate of what it would take.
    """
    requires = method.requires(request.options)
    if unread is not None and "weights" in requires:
        return Verdict(method.name, unread, requires)
    try:
        refusal = method.refusal(request)
        account = None if refusal else method.account(request)
    except BadInput as error:
        return Verdict(method.name, str(error).removesuffix("."), requires)
    if account is not None and method.carries:
        account = account.with_besides(method.besides(request))
    problem = f"does not apply: {refusal}" if account is None else method.problem(account)
    estimate = method.takes(request, load) if load is not None and account is not None else None
    return Verdict(method.name, problem, requires, account, estimate)


def judge_all(
    donor: Record,
    shapes: Shapes,
    receiver: Geometry,
    unread: str | None = None,
    load: Load | None = None,
) -> list[Verdict]:
    """What `judge` says of every method that is no control, with its default options."""
    methods = [port_method(name) for name in METHODS]
    return [
        judge(method, method.request(donor, shapes, receiver), unread, load)
        for method in methods
        if not method.control
    ]


def to_try(
    verdicts: Iterable[Verdict], related: bool | None = None, kind: str = USUAL
) -> list[Verdict]:
    """The methods that can port, in the order in which they are to be tried.

    Args:
        kind: of the module's task. Of what is written maps carry too little: distillation goes
            before them where nothing is told apart.
        related: whether the hosts share their pretraining, as far as it is known; a copy between
            hosts that do not keeps nothing.
    """
    can = [each for each in verdicts if each.problem is None]
    if related is False:
        can = [each for each in can if each.method != "copy"]
    order = _TO_TRY if kind_named(kind).of_classes else ("copy", "distill", *_TO_TRY)
    return sorted(can, key=lambda each: [*order, each.method].index(each.method))


def others(request: Request) -> str:
    """A sentence for a message: the methods that could do what one was refused."""
    verdicts = judge_all(request.donor, request.shapes, request.receiver)
    names = [verdict.method for verdict in to_try(verdicts, kind=request.donor.kind)]
    return f"Methods that can: {', '.join(names)}." if names else "No other method can."

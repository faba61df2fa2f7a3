"""What a port method is: from a donor and the receiving host's geometry to tensors and account."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from peftport.hosts.geometry import Geometry, geometry_from_record
from peftport.modules import Record
from peftport.options import Options, build_options
from peftport.porting.account import Account, Action, Entry, idle, left_over
from peftport.porting.estimate import CostEstimate, Load, estimated, with_embeddings
from peftport.porting.layers import Pairs, partner_of
from peftport.porting.rewriting import Rewriting, rewriting_of
from peftport.techniques import technique, working_techniques
from peftport.techniques.base import Parameters, Shapes
from peftport.techniques.embeddings import is_embedding, is_of_numbers, shape_there
from peftport.techniques.head import WEIGHT, head_shapes, initial_head

if TYPE_CHECKING:
    from peftport.porting.embeddings import EmbeddingPair
    from peftport.porting.means import Means

Need = Literal["weights", "texts"]
RowMap = Callable[[Tensor], Tensor]
"""Changes of an embedding's rows, (rows, origin) -> (rows, receiver). It is linear."""


class MethodOptions(Options):
    """A port method's options; unknown keys are errors. A method without any has just this.

    The option by which the layers of hosts of other depth are paired is called `layers` in every
    method that has it: `--layers` sets it.
    """


@dataclass(frozen=True)
class Request:
    """What is to be ported, and to what, without any tensor; made by `PortMethod.request`.

    donor: the module's record. shapes: its tensors' shapes. receiver: the receiving geometry.
    options: the method's, an instance of its `Options` with every default filled in.
    """

    donor: Record
    shapes: Shapes
    receiver: Geometry
    options: Any = field(default_factory=MethodOptions)

    @property
    def origin(self) -> Geometry:
        """The geometry of the host that the donor is made for."""
        return geometry_from_record(self.donor.geometry)

    @property
    def config(self) -> Any:
        """The donor's configuration, which the ported module keeps unless its method says else."""
        return technique(self.donor.technique).configure(self.donor.config)

    @property
    def rewriting(self) -> Rewriting:
        """How the donor's technique goes to another host."""
        return rewriting_of(self.donor.technique)

    def with_conversion(self, account: Account) -> Account:
        """The account with what was lost before, where the donor was of another kind."""
        lost = self.donor.converted

        def told(entry: Entry) -> Entry:
            point = (entry.source or "").rpartition(".")[0]
            if point not in lost:
                return entry
            said = f"made a LoRA, which lost {lost[point]:.3%} of the change"
            return replace(entry, why="; ".join(filter(None, [entry.why, said])))

        return replace(account, entries=tuple(map(told, account.entries)))

    @property
    def wanted(self) -> Shapes:
        """Shapes of the tensors that the receiving host needs; BadInput when it cannot have any."""
        made = technique(self.donor.technique).shapes(self.config, self.receiver)
        return made | head_shapes(self.receiver, self.classes, self.donor.head)

    @property
    def classes(self) -> int:
        """Number of classes of the donor's task."""
        return len(self.donor.task["labels"])

    def scratch(self, generator: torch.Generator) -> Parameters:
        """The technique's own initialisation on the receiving host, head included."""
        made = technique(self.donor.technique)
        body = made.initial(self.config, self.receiver, generator)
        return body | initial_head(self.receiver, self.classes, generator, self.donor.head)


@dataclass(frozen=True)
class Made:
    """What a method made of a donor.

    tensors: the ported module's, without lane axis. account: what became of every tensor.
    record: fields of the module's record that are no longer the donor's, as `technique` and
        `config` of a module that was made anew.
    details: what the method found out on the way (scales, how well its maps fit), for the record;
        `steps` where it trained on the receiving host, beside which a module from scratch is set
        that was trained for as many.
    """

    tensors: Parameters = field(repr=False)
    account: Account
    record: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)


class PortMethod(ABC):
    """A way to rewrite a module for another host. Instances hold no state.

    about: one sentence for `peftport methods`. limits: what it cannot do, in a sentence or two.
    source: the paper it follows. control: whether the result is a control, which keeps nothing of
    what the donor learnt but its distribution or less. carries: whether the donor's tensors go
    over, with what it has besides; a control's do not, nor those that something is learnt from.
    rows: what becomes of the rows of embeddings that go over: "copied" as they are, "mapped" by
    `row_map`, which the method has then, or nothing where it has no map for them.
    needs: what it uses beside the module and the geometries: both hosts' weights, unlabelled texts;
    `requires` tells it with the options known. techniques: those that it can port;
    None for all. Options: what can be set with `--set KEY=VALUE`, found in `request.options`.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    limits: ClassVar[str] = ""
    source: ClassVar[str] = ""
    control: ClassVar[bool] = False
    carries: ClassVar[bool] = True
    rows: ClassVar[Literal["copied", "mapped"] | None] = None
    needs: ClassVar[frozenset[Need]] = frozenset()
    techniques: ClassVar[frozenset[str] | None] = None
    Options: ClassVar[type[MethodOptions]] = MethodOptions

    def request(
        self,
        donor: Record,
        shapes: Shapes,
        receiver: Geometry,
        options: Mapping[str, Any] | None = None,
    ) -> Request:
        """What is asked of this method; BadInput names an option that is unknown or wrong."""
        shapes = {name: shape for name, shape in shapes.items() if not is_embedding(name)}
        if donor.head == "last" and self.carries and not self.carries_last(donor, receiver):
            lost = donor.left_out | {WEIGHT: shapes.pop(WEIGHT)}
            donor = donor.model_copy(update={"head": "mean", "left_out": lost})
        if self.carries or self.control:
            rewriting = rewriting_of(donor.technique)
            donor, shapes, receiver = rewriting.agreed(donor, shapes, receiver)
        return Request(donor, shapes, receiver, self.configure(options or {}))

    def carries_last(self, donor: Record, receiver: Geometry) -> bool:
        """Whether a decoder's head, which reads the last token, goes over as it is."""
        origin = geometry_from_record(donor.geometry)
        return receiver.kind == origin.kind and receiver.width == origin.width

    def configure(self, options: Mapping[str, Any]) -> Any:
        """Build the method's options; BadInput names one that is unknown or wrong."""
        return build_options(self.Options, options, f"port by {self.name}")

    def requires(self, options: Any) -> frozenset[Need]:
        """What it needs with these options: both hosts and texts where layers go by activations."""
        paired = getattr(options, "layers", None) == "cka"
        return self.needs | {"weights", "texts"} if paired else self.needs

    def besides(self, request: Request) -> tuple[Entry, ...]:
        """What becomes of the embeddings that the donor brings along, as far as shapes tell, and
        of what its files have and cannot be carried."""
        alike = request.origin.width == request.receiver.width
        lost = "" if alike or self.rows == "mapped" else "the receiving host has another width"
        if self.rows is None:
            lost = f"{self.name} has no map for embeddings"
        why = lost or "by the text of each token"
        entries = [
            Entry(name, None, "dropped", shape, why=why)
            if lost or self.rows is None
            else Entry(name, name, self._row_action(name), shape, scale=1.0, why=why)
            for name, shape in request.donor.embeddings.items()
        ]
        why = "peftport cannot carry it"
        left_out = request.donor.left_out
        return (*entries, *(Entry(n, None, "dropped", s, why=why) for n, s in left_out.items()))

    def _row_action(self, name: str) -> Action:
        """What becomes of one tensor of embeddings that go over; numbers of tokens have no map."""
        return "mapped" if self.rows == "mapped" and not is_of_numbers(name) else "copied"

    def row_map(
        self, request: Request, pair: EmbeddingPair, means: Means, generator: torch.Generator
    ) -> RowMap:
        """How changes of rows go from one of the originating host's embeddings to the receiving
        one's, for methods whose `rows` are "mapped"."""
        raise NotImplementedError(f"{self.name} maps no rows")

    @property
    def asks_donor(self) -> bool:
        """Whether the donor's own answers to texts are looked at, which are read on its own host,
        by its label words where it has some."""
        return "texts" in self.needs

    def ports(self, name: str) -> bool:
        """Whether it ports modules of the technique of that name."""
        return self.techniques is None or name in self.techniques

    def refusal(self, request: Request) -> str | None:
        """Why the method does not apply to this technique or these hosts; None when it does.

        A method that asks more than its techniques says so here, and calls this first.
        """
        if self.ports(request.donor.technique):
            return None
        known = sorted(made.name for made in working_techniques() if self.ports(made.name))
        return f"it ports {', '.join(known)}, not {request.donor.technique}"

    @abstractmethod
    def account(self, request: Request) -> Account:
        """What the port will do, told from shapes alone."""

    def problem(self, account: Account) -> str | None:
        """Why such a port is empty or partial and wants --allow-partial; None when it is whole."""
        return account.problem

    def estimate(self, request: Request, load: Load) -> CostEstimate:
        """What the port will take; for a method that looks at no host what every one takes."""
        return estimated((), 0.0, 0.0, self.written(request))

    def samples(self, request: Request, load: Load) -> float:
        """About how many bytes of what hosts say of the texts it keeps at once; none for a method
        that looks at no text."""
        return 0.0

    def loads(self, request: Request) -> bool:
        """Whether it has both hosts loaded whole (`Side.load`), which a worker of a study keeps."""
        return False

    def takes(self, request: Request, load: Load) -> CostEstimate:
        """The estimate, with the embeddings that the donor brings along."""
        entries = self.besides(request) if self.carries else ()
        there = request.receiver
        carried = {e.target: shape_there(e.target, e.shape, there) for e in entries if e.target}
        hosts, alone = (request.origin, there), "texts" not in self.requires(request.options)
        found = self.estimate(request, load)
        return with_embeddings(found, request.donor.embeddings, carried, hosts, alone)

    def makes(self, request: Request) -> str:
        """Name of the technique whose module it writes."""
        return request.donor.technique

    def configuration(self, request: Request) -> Any:
        """The configuration of the module it writes, on hosts as the request has them."""
        return request.config

    def written(self, request: Request) -> Shapes:
        """Shapes of the ported module's tensors, as the account has them: a method may write
        others than the donor's technique would have."""
        entries = self.account(request).entries
        return {entry.target: entry.shape for entry in entries if entry.target}

    @abstractmethod
    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """Rewrite the donor's tensors (without lane axis).

        Args:
            means: both hosts and texts; given to every method that requires any of them.
        """


def matched(request: Request, method: str, pairs: Pairs | None = None) -> Account:
    """Pair the donor's tensors with those that the receiving host needs, by name and shape.

    Args:
        pairs: layers of the receiving host and their partners; each is its own where not given.
    """
    wanted = request.wanted
    sources = {name: partner_of(name, pairs or {}) for name in wanted}
    entries = []
    for name, shape in wanted.items():
        source = sources[name]
        if source is None:
            entries.append(idle(name, shape))
            continue
        found = request.shapes.get(source)
        if found == shape:
            entries.append(Entry(source, name, "copied", shape, scale=1.0))
        elif found is None:
            why = "the module has no such tensor and the receiving host needs it"
            entries.append(Entry(None, name, "initialised", shape, why=why))
        else:
            why = f"shape {found} in the module, {shape} on the receiving host"
            entries.append(Entry(None, name, "initialised", shape, why=why))
            entries.append(Entry(source, None, "dropped", found, why=why))
    used = set(sources.values())
    why = "the receiving host has no place of this name"
    for name, shape in request.shapes.items():
        if name not in used:
            nowhere = Entry(name, None, "dropped", shape, why=why)
            entries.append(left_over(name, shape) if pairs else nowhere)
    return Account(method, tuple(entries))

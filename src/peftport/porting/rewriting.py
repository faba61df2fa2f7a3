"""How port methods rewrite the modules of a technique: its folder says it, here stands what it has
to say."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry, Linear
from peftport.modules import Record
from peftport.registry import imported
from peftport.techniques import TECHNIQUES, technique
from peftport.techniques.base import Parameters, Shapes

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.activations import Spaces
    from peftport.porting.base import Made, Request
    from peftport.porting.fitted import FittedMaps
    from peftport.porting.reading import TokenRows


class Rewriting:
    """How the modules of a technique go to another host. Instances hold no state.

    This one is that of any technique: each tensor goes by its name, as it is or not at all.

    everywhere: tensors that go into all that is made.
    """

    everywhere: ClassVar[frozenset[str]] = frozenset()

    def sources(self, name: str, names: Collection[str]) -> list[str]:
        """Which of the donor's tensors one called `name` is made of."""
        return [name] if name in names else []

    def agreed(
        self, donor: Record, shapes: Shapes, receiver: Geometry
    ) -> tuple[Record, Shapes, Geometry]:
        """A donor and the receiving host by the places that both hosts have: the donor's record,
        its tensors' shapes, and the receiving geometry."""
        return donor, shapes, receiver

    def parted(self, tensors: Mapping[str, Tensor], origin: Geometry) -> Parameters:
        """A donor's tensors on its host as `agreed` has it."""
        return dict(tensors)

    def joined(self, made: Made, request: Request, receiver: Geometry) -> Made:
        """What a method made, on the receiving host as it is."""
        return made

    def cut(self, made: Made, config: Any, rank: int | None, energy: float | None) -> Made | None:
        """What a method made, with a lower rank; None where a technique has no ranks."""
        return None


@dataclass(frozen=True)
class Mapped:
    """A rewritten module: technique, configuration, tensors, and what was found on the way."""

    technique: str
    config: Any
    tensors: Parameters
    details: dict[str, Any]


@dataclass(frozen=True)
class Receiving:
    """The receiving host, the texts as its pass, and what the module has there besides
    (`means.Side`)."""

    host: Host
    rows: TokenRows = field(repr=False)
    besides: Parameters = field(default_factory=dict, repr=False)


class ByMaps(Rewriting, ABC):
    """How maps between two hosts' spaces rewrite the modules of a technique, a layer at a time.

    The options of the methods that do so are in `request.options` (`MappedOptions`). Where a layer
    of the receiving host has no partner, the module is to change nothing there.

    runs_hosts: whether whole hosts are run again on the way.
    """

    runs_hosts: ClassVar[bool] = False

    @abstractmethod
    def spaces(self, config: Any, geometry: Geometry) -> Spaces:
        """What must be known of a host to rewrite such a module, but for its head."""

    def shapes(self, request: Request) -> Shapes:
        """Shapes of what is made, but for the head, as far as they are known before."""
        return technique(request.donor.technique).shapes(request.config, request.receiver)

    def seen(self, request: Request, donor: Parameters, host: Host, rows: TokenRows) -> Any:
        """What is seen of the whole donor on its own host, before both hosts are run."""
        return None

    @abstractmethod
    def layer(self, request: Request, donor: Parameters, maps: FittedMaps, seen: Any) -> Parameters:
        """What is made of the maps of one layer of the receiving host, by names that no other
        layer has.

        Args:
            seen: what `seen` gave.
        """

    @abstractmethod
    def whole(self, request: Request, made: Parameters, receiving: Receiving) -> Mapped:
        """The module for the receiving host, but for its head, from what was made of all layers."""

    def finished(self, made: Mapped, request: Request, donor: Parameters) -> Mapped:
        """The whole module, head included, as it is to be written."""
        return made


class ByFactors(Rewriting, ABC):
    """How the modules of a technique are rewritten whose change of a linear layer's weight is a
    product of two factors, up (outputs, rank) and down (rank, inputs), times a scale that its
    configuration has."""

    @abstractmethod
    def configured(self, rank: int, places: Sequence[str]) -> Any:
        """The configuration of scale 1 for places of these names, as "ffn.down"."""

    @abstractmethod
    def points(self, config: Any, geometry: Geometry) -> dict[str, Linear]:
        """The layers that are changed."""

    @abstractmethod
    def factors(self, tensors: Mapping[str, Tensor], point: str) -> tuple[Tensor, Tensor]:
        """Up and down of a layer that is changed."""

    @abstractmethod
    def of_factors(self, point: str, up: Tensor, down: Tensor) -> Parameters:
        """The tensors of such a layer."""


def rewriting_of(name: str) -> Rewriting:
    """How the modules of a technique are rewritten."""
    place = technique(name).rewriting
    made: Rewriting = imported(place)() if place else Rewriting()
    return made


def by_maps(name: str) -> ByMaps:
    """How maps rewrite the modules of a technique, which can be rewritten so."""
    found = rewriting_of(name)
    assert isinstance(found, ByMaps), f"{name} is not rewritten by maps"
    return found


def by_factors(name: str) -> ByFactors:
    """How the factors of a technique's modules are rewritten, which has them."""
    found = rewriting_of(name)
    assert isinstance(found, ByFactors), f"{name} has no factors"
    return found


def has_factors(name: str) -> bool:
    """Whether a technique's change of a weight is a product of two factors."""
    return isinstance(rewriting_of(name), ByFactors)


def of_low_rank(name: str) -> str:
    """The technique that a change of low rank is written in: that of `name` if it can be, else the
    first one that can."""
    return next(each for each in (name, *TECHNIQUES) if has_factors(each))


def require_one(rank: int | None, energy: float | None) -> None:
    """Raise BadInput unless just one is given, and could be."""
    if (rank is None) == (energy is None):
        raise BadInput("a smaller LoRA: give either a rank or an energy, not both.")
    if rank is not None and rank < 1:
        raise BadInput(f"rank {rank}: expected 1 or more.")
    if energy is not None and not 0 < energy <= 1:
        raise BadInput(f"energy {energy}: expected a share above 0 and at most 1, such as 0.99.")

"""What every technique is: a configuration, the shapes of its tensors, their start, and how they
act on a host.

A module's parameters are a mapping from tensor names to tensors. While they are trained or tested
they carry a leading lane axis, so that many modules of one technique act in one pass of the frozen
host: its rows are then lane-major, (lanes * batch, tokens, width).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from peftport.errors import BadInput
from peftport.hosts.geometry import Geometry
from peftport.options import Options, build_options

if TYPE_CHECKING:
    from peftport.hosts.host import Host

UNKNOWN = "its family is not known here, and of such hosts only the linear layers are found"
Parameters = dict[str, Tensor]
Shapes = dict[str, tuple[int, ...]]


class Configuration(Options):
    """A technique's options; unknown keys are errors."""


@dataclass(frozen=True)
class WeightChange:
    """How the weight of a linear layer changes under a module.

    tensors: of the module, by name, that say it. of: gives it, (outputs, inputs), from the module's
    tensors without lane axis.
    """

    tensors: tuple[str, ...]
    of: Callable[[Parameters], Tensor]


class Technique(ABC):
    """A way of making a module. Instances hold no state.

    learning_rate: what is taken when none is given; a study chooses its own on validation.
    by_family: whether it is made for hosts of known families alone: it acts at places that a
        family's data file has to name.
    gates: sets of tensors, by the last parts of their names: a module changes nothing where all of
        one set are zero.
    formats: of other libraries that its modules can be in -> where that is told, as
        "module:attribute" (`peftport.modules.formats.keeping`).
    rewriting: where it is told how port methods rewrite its modules for another host, as
        "module:class" (`peftport.porting.rewriting`); "" where that is as for any technique.
    """

    name: ClassVar[str]
    learning_rate: ClassVar[float]
    Config: ClassVar[type[Configuration]]
    by_family: ClassVar[bool] = False
    gates: ClassVar[tuple[tuple[str, ...], ...]] = ()
    formats: ClassVar[Mapping[str, str]] = {}
    rewriting: ClassVar[str] = ""

    @abstractmethod
    def shapes(self, config: Any, geometry: Geometry) -> Shapes:
        """Shapes of a module's tensors on a host of this geometry, without the lane axis.

        Raises:
            BadInput: the configuration does not fit the geometry.
        """

    @abstractmethod
    def initial(self, config: Any, geometry: Geometry, generator: torch.Generator) -> Parameters:
        """The technique's own initialisation, without the lane axis: the control `scratch`."""

    def initial_on(self, config: Any, host: Host, generator: torch.Generator) -> Parameters:
        """The same on a host that is loaded, of whose weights some starts are made."""
        return self.initial(config, host.geometry, generator)

    def starts_from_weights(self, config: Any) -> str | None:
        """The option by which it starts from a host's weights, which `initial` does not see; None
        where `initial` is how it starts."""
        return None

    @abstractmethod
    def attach(self, host: Host, config: Any, parameters: Parameters) -> Any:
        """A context in which the host acts with the module; `parameters` with the lane axis."""

    def refusal(self, geometry: Geometry) -> str | None:
        """Why it cannot be made for such hosts, whatever its configuration; None where it can."""
        unknown = UNKNOWN if self.by_family and not geometry.known else None
        return geometry.refuses.get(self.name, unknown)

    def limit(self, geometry: Geometry) -> str | None:
        """Why only some of its configurations can be made for such hosts; None where all can."""
        return None

    def require(self, geometry: Geometry) -> None:
        """Raise BadInput when it cannot be made for such hosts."""
        if why := self.refusal(geometry):
            raise BadInput(f"{self.name} cannot be made for a {geometry.family} host: {why}.")

    def fold(
        self, config: Any, geometry: Geometry, parameters: Parameters
    ) -> tuple[Any, Parameters]:
        """Fold away what only training needs; with or without lane axis. Most have nothing."""
        return config, parameters

    def changes(self, config: Any, geometry: Geometry) -> dict[str, WeightChange]:
        """What a module changes of the host's weights, by linear layer; empty for a technique that
        acts beside them."""
        return {}

    def idle(self, parameters: Parameters) -> str | None:
        """Which of `gates` are zero ("every lora_B"), one of them at each place, so that the module
        changes nothing; None if it does."""
        ends = {end for gate in self.gates for end in gate}
        zero = {
            name: not bool(p.any())
            for name, p in parameters.items()
            if f".{name}".endswith(_endings(ends))
        }
        places = {n.removesuffix(f".{end}") for n in zero for end in ends if n.endswith(f".{end}")}

        def shut(place: str, gate: tuple[str, ...]) -> bool:
            # What all places share has a name without a place.
            found = [zero[n] for end in gate for n in (f"{place}.{end}", end) if n in zero]
            return bool(found) and all(found)

        told = [" and ".join(gate) for gate in self.gates]
        for gate, name in zip(self.gates, told, strict=True):
            if places and all(shut(place, gate) for place in places):
                return f"every {name}"
        if places and all(any(shut(place, gate) for gate in self.gates) for place in places):
            return f"at each place {' or '.join(told)}"
        return None

    def configure(self, options: Mapping[str, Any]) -> Any:
        """Build the configuration from options; BadInput names the option that is wrong."""
        return build_options(self.Config, options, f"technique {self.name}")


def _endings(gate: Collection[str]) -> tuple[str, ...]:
    return tuple(f".{name}" for name in gate)


Rewrite = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def hooked(host: Host, rewrites: Mapping[str, Rewrite]) -> Iterator[None]:
    """Rewrite the outputs of the host's submodules: path -> f(first input, output) -> output.

    Where a submodule gives several things, its states are the first of them.
    """

    def as_hook(rewrite: Rewrite) -> Callable[..., Any]:
        def hook(_module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
            if isinstance(output, tuple):
                return (rewrite(inputs[0], output[0]), *output[1:])
            return rewrite(inputs[0], output)

        return hook

    with ExitStack() as stack:
        for path, rewrite in rewrites.items():
            handle = host.part(path).register_forward_hook(as_hook(rewrite))
            stack.callback(handle.remove)
        yield


def by_lane(states: Tensor, lanes: int) -> Tensor:
    """View lane-major rows by lane: (lanes * batch, tokens, width) -> (lanes, -1, width)."""
    return states.reshape(lanes, -1, states.shape[-1])


def lanes_of(parameters: Parameters) -> int:
    """Number of lanes that the parameters carry."""
    return next(iter(parameters.values())).shape[0]


def stack_lanes(modules: list[Parameters]) -> Parameters:
    """Put modules of equal shapes side by side: a leading lane axis."""
    return {name: torch.stack([module[name] for module in modules]) for name in modules[0]}


def stacking_key(technique: str, config: Configuration, module: Parameters) -> str:
    """What modules must have in common to be stacked: technique, configuration, tensors' shapes."""
    shapes = {name: list(tensor.shape) for name, tensor in sorted(module.items())}
    return json.dumps([technique, config.model_dump(mode="json"), shapes])


def take_lane(parameters: Parameters, lane: int) -> Parameters:
    """One lane's module, detached, without the lane axis."""
    return {name: tensor[lane].detach().clone() for name, tensor in parameters.items()}


def normal(shape: tuple[int, ...], std: float, generator: torch.Generator) -> Tensor:
    """Draw from a centred normal distribution."""
    return torch.randn(shape, generator=generator) * std


def uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator) -> Tensor:
    """Draw uniformly between -bound and bound."""
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound

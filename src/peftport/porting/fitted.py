"""Maps between two hosts' spaces, fitted on what both were seen to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Protocol, TypeVar

from torch import Tensor

from peftport.memory import give_freed_memory_back
from peftport.porting.abreast import abreast
from peftport.porting.activations import Observed, Spaces
from peftport.porting.aside import Aside
from peftport.porting.layers import Pairs, layer_of, partner_of
from peftport.porting.semi_orthogonal import Change, InputMap
from peftport.porting.space_map import SpaceMap

_Gift = TypeVar("_Gift")
_ALONE = 4096
"""Spaces of more dimensions have their maps fitted one after the other."""


class Fit(Protocol):
    """How a map is fitted on samples (samples, width) of the same tokens on both hosts."""

    @property
    def uses_gradients(self) -> bool:
        """Whether `changes` wants the gradients of the label words' scores."""

    def inputs(self, origin: Tensor, receiver: Tensor) -> SpaceMap:
        """The map of what a module reads."""

    def prefixes(self, origin: Tensor, receiver: Tensor) -> InputMap:
        """The map of keys or values, from the originating host to the receiving one."""

    def changes(
        self, origin: Tensor, receiver: Tensor, gradients: tuple[Tensor, Tensor] | None
    ) -> Change:
        """The map of what a module changes: (receiver, origin)."""


@dataclass
class FittedMaps:
    """Maps named by the receiving host's places, each fitted when it is first asked for; None
    where the layer of a place has no partner.

    pairs: layer of the receiving host ("encoder.1") -> that of the originating one, or None.
    gradients: place of the receiving host -> gradients at the outputs of both hosts.
    layer: the one whose maps these are; all where not given.
    asides: where samples lie until a map is fitted on them. Then maps are let go after their use,
        those of inputs when the next ones are fitted.
    """

    fit: Fit
    pairs: Pairs
    origin: Observed
    receiver: Observed
    gradients: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    layer: str | None = None
    asides: tuple[Aside, ...] = ()
    _inputs: dict[tuple[int, int], SpaceMap] = field(default_factory=dict)
    _changes: dict[str, Change] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock, repr=False)

    def covers(self, point: str) -> bool:
        """Whether the maps of this place are among these."""
        return self.layer in (None, layer_of(point))

    def partner(self, point: str) -> str | None:
        """The same place of the originating host; None where the layer has no partner."""
        return partner_of(point, self.pairs)

    def each(self, points: Sequence[str], do: Callable[[str], _Gift]) -> list[_Gift]:
        """What is done with the maps of several linear layers, two at a time; where maps are let go
        after their use, those of wide spaces by themselves, as in `fit_all`."""
        inputs, outputs = self.receiver.inputs, self.receiver.outputs
        wide = {
            point
            for point in points
            if self.asides and max(s[point].shape[1] for s in (inputs, outputs)) > _ALONE
        }
        made = {point: do(point) for point in points if point in wide}
        rest = [point for point in points if point not in wide]
        made |= zip(rest, abreast([partial(do, point) for point in rest]), strict=True)
        return [made[point] for point in points]

    def fit_all(self, spaces: Spaces) -> None:
        """Where many are held, fit the maps of some places' inputs and changes, the widest first.

        Two are fitted at a time, but for those so wide that one keeps all cores busy and two would
        take twice the memory. Before one of those what was freed is given back: its buffers fit
        into no place among it.
        """
        if self.asides:
            return
        inputs, outputs = self.receiver.inputs, self.receiver.outputs
        first = {id(inputs[point]): point for point in spaces.inputs}  # of places that read alike
        wanted: list[tuple[int, Callable[[], object]]] = [
            *((inputs[point].shape[1], partial(self.inputs, point)) for point in first.values()),
            *((outputs[point].shape[1], partial(self.changes, point)) for point in spaces.changes),
        ]
        wanted.sort(key=lambda each: -each[0])
        for width, fitted in wanted:
            if width > _ALONE:
                give_freed_memory_back()
                fitted()
        abreast([fitted for width, fitted in wanted if width <= _ALONE])

    def inputs(self, point: str) -> SpaceMap | None:
        """Of what goes into a linear layer."""
        return self._input("inputs", point)

    def states(self, point: str) -> SpaceMap | None:
        """Of what comes out of a place, where a module reads it."""
        return self._input("outputs", point)

    def changes(self, point: str) -> Change | None:
        """Of a change of what comes out of a place: (receiver, origin)."""
        partner = self.partner(point)
        if partner is None:
            return None
        if point in self._changes:
            return self._changes[point]
        there, here = self.origin.outputs[partner], self.receiver.outputs[point]
        slopes = self.gradients.get(point)
        with self._at_hand(there, here, *(slopes or ())):
            change = self.fit.changes(there, here, slopes)
        if not self.asides:
            self._changes[point] = change
        return change

    def forward(self, point: str, states: Tensor) -> Tensor:
        """States (..., origin) at an output's place, which has a partner, as states of the
        receiving host."""
        partner = self.partner(point)
        assert partner is not None
        both = self.origin.outputs[partner], self.receiver.outputs[point]
        with self._at_hand(*both):
            there = self.fit.prefixes(*both)
        return (states - there.centre) @ there.matrix.mT + there.mean

    def _input(self, side: str, point: str) -> SpaceMap | None:
        partner = self.partner(point)
        if partner is None:
            return None
        there, here = getattr(self.origin, side)[partner], getattr(self.receiver, side)[point]
        both = (id(there), id(here))  # places that read the same states have one map
        with self._lock if self.asides else nullcontext():
            if both in self._inputs:
                return self._inputs[both]
            if self.asides:
                self._inputs.clear()  # places that read the same states follow each other
            with self._at_hand(there, here):
                found = self._inputs[both] = self.fit.inputs(there, here)
            return found

    @contextmanager
    def _at_hand(self, *samples: Tensor) -> Iterator[None]:
        """Samples that a map is fitted on, in memory meanwhile."""
        with ExitStack() as stack:
            if self.asides:
                give_freed_memory_back()  # the next buffers fit into no place among it
            for aside in self.asides:
                stack.enter_context(aside.at_hand(samples))
            yield

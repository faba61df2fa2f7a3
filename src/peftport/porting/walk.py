"""A host's run over texts, seen layer by layer from the last one to the first.

The host is run forward once, and of each layer no more is kept than what went into it. Then each
layer is run again by itself, the last one first: its activations are seen, and the gradients that
come down from the layer above are carried through it. So no more than one layer's graph, and what
is kept of one layer, is in memory at a time, however deep the host is (Chen et al. 2016, arXiv
1604.06174, by whole layers); what went into the others lies on the disk where it is much (`aside`).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from peftport.hosts.streaming import holding, layer_paths
from peftport.memory import give_freed_memory_back
from peftport.porting.activations import (
    Observed,
    Spaces,
    at_places,
    bytes_seen,
    first_readers,
    is_of_text,
    outputs_at,
    require_finite_states,
    run_rows,
    stack_of,
    watched,
    width_at,
)
from peftport.porting.aside import Aside
from peftport.porting.estimate import is_large, streams
from peftport.porting.grades import ClassGrade, Grade
from peftport.porting.reading import TokenRows, parts_for
from peftport.techniques.base import Parameters
from peftport.training.readout import ClassReadout

if TYPE_CHECKING:
    from peftport.hosts.host import Host


@dataclass(frozen=True)
class Layer:
    """What was seen of one layer, on all texts.

    gradients: of the classes' scores at the outputs that were asked for, (contrasts, samples,
    width); empty without a readout. aside: where all of these lie, if they are not at hand.
    """

    name: str
    observed: Observed
    gradients: Mapping[str, Tensor] = field(repr=False)
    aside: Aside | None = None


@dataclass
class _Call:
    """One layer's run over some rows.

    end: the residual stream behind it. slopes: the gradient there, one for each contrast; contrast:
    the one whose gradients are coming down.
    """

    layer: str
    module: nn.Module
    args: list[Any]
    kwargs: dict[str, Any]
    end: Tensor
    slopes: list[Tensor | None] = field(default_factory=list)
    contrast: int = 0

    @property
    def given(self) -> list[Any]:
        """All that goes into the layer, the residual stream first."""
        return [*self.args, *self.kwargs.values()]

    def with_leaves(self) -> list[tuple[Tensor, Tensor]]:
        """Have the layer's run begin a graph of its own, with a leaf for every stream that
        gradients flow to; the streams and their leaves."""
        found = []

        def begun(given: Any) -> Any:
            if not (isinstance(given, Tensor) and given.requires_grad):
                return given
            found.append((given, given.detach().requires_grad_()))
            return found[-1][1]

        self.args = [begun(given) for given in self.args]
        self.kwargs = {name: begun(given) for name, given in self.kwargs.items()}
        return found


class Walk:
    """One host's run over texts.

    Args:
        passes: the first one is read as the task is.
        grade: what the host is run for, whose gradients are wanted; None for none.

    Raises:
        RunFailed: what its last layer gives is not finite.
    """

    def __init__(self, host: Host, passes: Sequence[TokenRows], grade: Grade | None = None) -> None:
        self._host, self._grade = host, grade
        self._parts: list[TokenRows] = []
        self._runs: list[list[_Call]] = []
        self._states: list[Tensor] = []
        self._modules = {layer: host.part(path) for layer, path in layer_paths(host).items()}
        tokens = sum(p.input_ids.numel() for rows in passes for p in parts_for(host.geometry, rows))
        self._aside = Aside(streams(host.geometry, tokens))
        for index, rows in enumerate(passes):
            for part in parts_for(host.geometry, rows):
                self._run(part, grade if index == 0 else None)
        require_finite_states(host, self.end(self.order[0]))

    def _run(self, part: TokenRows, grade: Grade | None) -> None:
        """Run the host over some rows, and keep what goes into every layer."""
        self._parts.append(part)
        self._runs.append([])
        with _recorded(self._modules, self._runs[-1], self._aside, grade is not None):
            if grade is None:
                with torch.no_grad():
                    run_rows(self._host, part)
            else:
                with torch.enable_grad():
                    self._states.append(grade.states(self._host, part))

    def end(self, layer: str) -> Tensor:
        """The residual stream behind a layer, at its last run, at the kept places: (samples,
        width)."""
        kept = []
        for part, calls in zip(self._parts, self._runs, strict=True):
            end = [call.end for call in calls if call.layer == layer][-1]
            with self._aside.at_hand([end]):
                kept.append(at_places(end, part, layer))
        return torch.cat(kept)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names of the layers, the last one first."""
        return tuple(dict.fromkeys(reversed([call.layer for call in self._runs[0]])))

    def layers(
        self, wanted: Spaces, head: Parameters | None = None, sparing: bool = False
    ) -> Iterator[Layer]:
        """Every layer, the last one first. It can be gone through once.

        Args:
            wanted: places whose inputs and outputs are to be seen, and the gradients of changes.
            head: an encoder's, without the lane axis.
            sparing: whether what is seen lies aside.
        """
        if self._grade is not None:
            self._begin({name: tensor[None] for name, tensor in (head or {}).items()})
        for layer in self.order:
            yield self._again(layer, wanted.within((layer,)), sparing)

    def _begin(self, head: Parameters) -> None:
        """Put the gradients behind the layers that what is graded is read from."""
        assert self._grade is not None
        head = {name: tensor.to(self._host.device) for name, tensor in head.items()}
        # Only the parts of the first pass have states.
        for part, calls, states in zip(self._parts, self._runs, self._states, strict=False):
            with torch.enable_grad():
                sums = self._grade.sums(self._host, states, part, head)  # (contrasts,)
            for call in calls:
                call.slopes = [None] * len(sums)
            for index, total in enumerate(sums):
                total.backward(retain_graph=True)
                _collect(calls, index)
        self._states.clear()

    def _again(self, layer: str, wanted: Spaces, sparing: bool) -> Layer:
        """Run one layer again over all parts, as often as the host runs it, and let go of what was
        kept of it."""
        readers = first_readers(wanted.inputs)
        shown = Spaces(tuple(dict.fromkeys(readers.values())), wanted.outputs, wanted.changes)
        times = sum(call.layer == layer for call in self._runs[0])
        kept: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
        parts = list(zip(self._parts, self._runs, strict=True))
        aside = Aside(self._bytes_seen(wanted) if sparing else 0)

        def keep(side: str, point: str, seen: Tensor) -> None:
            aside.put(seen)
            kept[side, point].append(seen)

        with holding(self._modules[layer]):
            for part, calls in parts * times:
                if is_large(self._host.geometry):
                    give_freed_memory_back()  # as between the parts of the first run
                assert calls[-1].layer == layer
                self._see(part, calls, shown, keep)
        found = {key: aside.joined(kept.pop(key)) for key in list(kept)}
        observed = Observed(
            {point: found["in", first] for point, first in readers.items()},
            {point: found["out", point] for point in wanted.outputs},
        )
        gradients = {point: each for (side, point), each in found.items() if side == "slope"}
        return Layer(layer, observed, gradients, aside if sparing else None)

    def _bytes_seen(self, wanted: Spaces) -> int:
        samples = sum(max(map(len, part.places.values())) for part in self._parts)
        contrasts = max(len(calls[-1].slopes) for calls in self._runs)
        return bytes_seen(self._host.geometry, wanted, samples, contrasts)

    def _see(
        self,
        part: TokenRows,
        calls: list[_Call],
        wanted: Spaces,
        keep: Callable[[str, str, Tensor], None],
    ) -> None:
        """Run a layer again over some rows, the last of whose calls it is, and keep what is seen of
        it, by side and place."""
        call, roots = calls.pop(), dict[str, Tensor]()
        slopes: dict[str, dict[int, Tensor]] = {}

        def at(point: str, states: Tensor) -> Tensor:
            return at_places(outputs_at(self._host, point, states), part, point)

        def see(point: str, given: Tensor, made: Tensor) -> None:
            if not is_of_text(made, part, point):
                return
            if point in wanted.inputs:
                keep("in", point, at_places(given, part, point))
            if point in wanted.outputs:
                keep("out", point, at(point, made))
            if point in wanted.changes and call.slopes:
                slopes[point] = {}
                made.register_hook(partial(arrived, point))
                if made.is_leaf:
                    roots[point] = made

        def arrived(point: str, slope: Tensor) -> None:
            slopes[point][call.contrast] = at(point, slope)

        points = {*wanted.inputs, *wanted.outputs, *wanted.changes}
        sight = watched(self._host, points, see, differentiable=bool(call.slopes))
        with self._aside.at_hand(call.given), sight:
            _run_again(call, calls, roots, needed=bool(points))
        for point, each in slopes.items():
            rows = len(part.places[stack_of(point)])
            none = torch.zeros(rows, width_at(self._host.geometry, point, False))
            mine = [each.get(contrast, none) for contrast in range(len(call.slopes))]
            keep("slope", point, torch.stack(mine))


def label_gradients(
    host: Host, rows: TokenRows, points: Iterable[str], readout: ClassReadout, head: Parameters
) -> dict[str, Tensor]:
    """Gradients of the classes' scores at the outputs of some places: (contrasts, samples, width).

    Args:
        rows: the pass that is read as the task is.
        head: of an encoder, without the lane axis; empty for hosts that are read by label words.
    """
    layers = Walk(host, [rows], ClassGrade(readout)).layers(Spaces(changes=tuple(points)), head)
    return {point: found for layer in layers for point, found in layer.gradients.items()}


def _run_again(
    call: _Call, earlier: Sequence[_Call], roots: Mapping[str, Tensor], needed: bool
) -> None:
    """Run a layer, and carry the gradients behind it to the layers before it.

    Args:
        earlier: the layers before it, on the same rows.
        roots: filled, as the layer runs, with those outputs whose gradients are wanted to which
            none flows from before.
        needed: whether anything of the layer itself is to be seen.
    """
    given = call.with_leaves()
    if not needed and not given:
        return
    with torch.set_grad_enabled(bool(call.slopes)):
        end = _stream(call.module(*call.args, **call.kwargs))
    before, leaves = [each for each, _ in given], [leaf for _, leaf in given]
    wanted = [*leaves, *roots.values()]
    for index, slope in enumerate(call.slopes if wanted else ()):
        call.contrast = index
        more = index + 1 < len(call.slopes)
        slope = torch.zeros_like(end) if slope is None else slope
        grads = torch.autograd.grad(end, wanted, slope, retain_graph=more, allow_unused=True)
        for stream, grad in zip(before, grads, strict=False):
            if grad is not None:
                stream.backward(grad, retain_graph=True)
        _collect(earlier, index)


def _collect(calls: Sequence[_Call], contrast: int) -> None:
    """Put the gradients that have come to layers' ends with those that came before."""
    for call in calls:
        if call.end.grad is not None:
            so_far = call.slopes[contrast]
            call.slopes[contrast] = call.end.grad if so_far is None else so_far + call.end.grad
            call.end.grad = None


@contextmanager
def _recorded(
    modules: Mapping[str, nn.Module], calls: list[_Call], aside: Aside, differentiable: bool
) -> Iterator[None]:
    """Keep what goes into every layer, and cut the graph there: within a layer none is made.

    A module that serves several layers is the layers in their order; one that runs more often than
    it has layers (ALBERT) is its last one from then on.
    """
    waiting: dict[nn.Module, deque[str]] = defaultdict(deque)
    for layer, module in modules.items():
        waiting[module].append(layer)

    def recorded(module: nn.Module) -> Callable[..., Any]:
        forward = module.forward

        def run_layer(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad():
                made = forward(*args, **kwargs)
            end = _stream(made).detach().requires_grad_(differentiable)
            layers = waiting[module]
            layer = layers.popleft() if len(layers) > 1 else layers[0]
            call = _Call(layer, module, list(args), dict(kwargs), end)
            if calls and call.given[0] is calls[-1].end:  # nobody else reads it
                aside.put(calls[-1].end)
            calls.append(call)
            return (end, *made[1:]) if isinstance(made, tuple) else end

        return run_layer

    with ExitStack() as stack:
        for module in waiting:
            stack.callback(delattr, module, "forward")
            module.forward = recorded(module)
        yield


def _stream(made: Any) -> Tensor:
    """The residual stream of what a layer gives."""
    stream: Tensor = made[0] if isinstance(made, tuple) else made
    return stream

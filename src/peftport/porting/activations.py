"""What two hosts compute on the same tokens: inputs, outputs, gradients, and attention.

A place of the host is named as everywhere: a linear layer ("encoder.0.self.q"), or a layer whose
end is meant ("encoder.0"). Keys and values of an attention, as they are used, are outputs called
"encoder.0.self.keys" and "encoder.0.self.values": (samples, kv_heads * head_dim).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from peftport.errors import RunFailed
from peftport.hosts.geometry import Geometry
from peftport.porting.layers import layer_of
from peftport.porting.reading import TokenRows

if TYPE_CHECKING:
    from peftport.hosts.host import Host


_READ_TOGETHER = {
    **dict.fromkeys(("self.q", "self.k", "self.v"), "self"),
    **dict.fromkeys(("cross.k", "cross.v"), "encoder"),
    **dict.fromkeys(("ffn.gate", "ffn.up"), "ffn"),
}
"""Linear layers that read the same states, by what these are called here."""


@dataclass(frozen=True)
class Spaces:
    """The places whose inputs and whose outputs a module's port needs, on one host; `changes` are
    those outputs that the module changes."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def within(self, layers: Collection[str]) -> Spaces:
        """Those of some layers."""
        kept = (
            tuple(point for point in points if layer_of(point) in layers)
            for points in (self.inputs, self.outputs, self.changes)
        )
        return Spaces(*kept)


@dataclass(frozen=True)
class Observed:
    """Activations at the kept places of all passes, by place in the host: (samples, width)."""

    inputs: dict[str, Tensor] = field(repr=False)
    outputs: dict[str, Tensor] = field(repr=False)


def observe(
    host: Host,
    passes: Sequence[TokenRows],
    inputs: Iterable[str],
    outputs: Iterable[str],
    read: Callable[[Host, TokenRows], object] | None = None,
) -> Observed:
    """Run the bare host over all passes and keep what goes into and comes out of some places.

    Places that read the same states, as queries, keys and values do, have one tensor of them.

    Args:
        read: runs the host over some rows, every token of them, for those who want to know what it
            says as well.

    Raises:
        RunFailed: what is seen is not finite.
    """
    read = read or run_rows
    readers = first_readers(inputs)
    kept: dict[tuple[str, str], list[Tensor]] = {("in", p): [] for p in readers.values()}
    kept |= {("out", p): [] for p in outputs}
    points = {point for _, point in kept}
    for rows in passes:
        for part in rows.parts():

            def see(point: str, given: Tensor, made: Tensor, part: TokenRows = part) -> None:
                for side, states in (("in", given), ("out", made)):
                    if (side, point) in kept and is_of_text(states, part, point):
                        mine = outputs_at(host, point, states) if side == "out" else states
                        kept[side, point].append(at_places(mine, part, point))

            with torch.no_grad(), watched(host, points, see):
                read(host, part)
    found = {key: torch.cat(parts) for key, parts in kept.items()}
    for states in found.values():
        require_finite_states(host, states)
    return Observed(
        {point: found["in", first] for point, first in readers.items()},
        {point: t for (side, point), t in found.items() if side == "out"},
    )


def require_finite_states(host: Host, states: Tensor) -> None:
    """Raise RunFailed for what no map or reading can be fitted on."""
    if not states.isfinite().all():
        raise RunFailed(
            f"host {host.name}: its states are not finite. A weight of it is no number, or too "
            "large for the type that it was rounded to; take another copy of it."
        )


def width_at(geometry: Geometry, point: str, reads: bool) -> int:
    """Width of what goes into a place, or comes out of it."""
    if point in geometry.linears:
        linear = geometry.linears[point]
        return linear.inputs if reads else linear.outputs
    if point.endswith((".keys", ".values")):
        attention = geometry.attentions[point.rpartition(".")[0]]
        return attention.kv_heads * attention.head_dim
    return geometry.width


def bytes_seen(geometry: Geometry, spaces: Spaces, samples: int, contrasts: int) -> int:
    """Bytes of all that is seen at some places, with so many gradients of each change."""
    read = sum(width_at(geometry, p, True) for p in set(first_readers(spaces.inputs).values()))
    made = sum(width_at(geometry, point, False) for point in spaces.outputs)
    changed = sum(width_at(geometry, point, False) for point in spaces.changes)
    return 4 * samples * (read + made + contrasts * changed)


def observe_scored(host: Host, passes: Sequence[TokenRows]) -> Tensor:
    """Run the bare host, which is no encoder, over all passes and keep what its vocabulary scores:
    (samples, width), at the decoder's kept places."""
    kept = []
    for rows in passes:
        for part in rows.parts():

            def see(_: Any, given: tuple[Tensor], part: TokenRows = part) -> None:
                kept.append(at_places(given[0], part, "decoder"))

            handle = host.model.get_output_embeddings().register_forward_pre_hook(see)
            try:
                with torch.no_grad():
                    run_rows(host, part)
            finally:
                handle.remove()
    return torch.cat(kept)


def first_readers(points: Iterable[str]) -> dict[str, str]:
    """Of every place the first one that reads the same states."""
    first: dict[str, str] = {}
    readers = {}
    for point in points:
        layer, _, role = point.rpartition(".")
        # What `cross.q` reads is the decoder's, what the other two read is the encoder's.
        states = _READ_TOGETHER.get(".".join([layer.rpartition(".")[2], role]), role)
        readers[point] = first.setdefault(f"{layer}.{states}", point)
    return readers


def run_rows(host: Host, rows: TokenRows) -> None:
    """Run the host over rows for what can be seen on the way."""
    host.run(rows.input_ids, rows.attention_mask, rows.decoder_ids)


def stack_of(point: str) -> str:
    """The stack whose tokens a place sees: cross-attention reads keys and values off the
    encoder's."""
    stack, _, role = (*point.split(".", 2), "", "")[:3]
    return "encoder" if role in ("cross.k", "cross.v", "cross.keys", "cross.values") else stack


def at_places(states: Tensor, rows: TokenRows, point: str) -> Tensor:
    """States (rows, tokens, width) at the kept places of the rows: (places, width), on the CPU.

    Rows and tokens may be one axis, as in OPT's feed-forward layers.
    """
    places = rows.places[stack_of(point)].to(states.device)
    return states.detach().reshape(-1, states.shape[-1])[places].float().cpu()


def outputs_at(host: Host, point: str, states: Tensor) -> Tensor:
    """What comes out of a place, of what comes out of the layer that it may be a part of."""
    linear = host.geometry.linears.get(point)
    if linear is None or linear.rows is None:
        return states
    return linear.part(states.movedim(-1, 0)).movedim(0, -1)


def is_of_text(states: Tensor, rows: TokenRows, point: str) -> bool:
    """Whether states are those of the rows' tokens: DeBERTa's layers also read positions."""
    ids = rows.input_ids if stack_of(point) != "decoder" else rows.decoder_ids
    ids = rows.input_ids if ids is None else ids
    return states.numel() == ids.numel() * states.shape[-1]


MOST = 8
"""Contrasts that are looked at, at most: each takes a pass for its gradients."""


def contrasts_of(classes: int) -> Tensor:
    """Differences of class scores that tell the classes apart: (contrasts, classes); of many
    classes `MOST` that are drawn."""
    if classes == 2:
        return torch.tensor([[-1.0, 1.0]])
    if classes <= MOST:
        return torch.eye(classes) - 1 / classes
    generator = torch.Generator().manual_seed(classes)
    signs = torch.randint(0, 2, (MOST, classes), generator=generator) * 2.0 - 1
    return (signs - signs.mean(1, keepdim=True)) / classes**0.5


See = Callable[[str, Tensor, Tensor], None]


@contextmanager
def watched(
    host: Host, points: Iterable[str], see: See, differentiable: bool = False
) -> Iterator[None]:
    """Show `see` (point, input, output) of every place as the host passes it.

    differentiable: outputs from which no gradient would flow become leaves of the graph.
    """

    def hook(point: str) -> Callable[..., Any]:
        def watch(_module: Any, given: Any, made: Any) -> Any:
            states = made[0] if isinstance(made, tuple) else made
            if differentiable and not states.requires_grad:
                states = states.detach().requires_grad_()
                onward = states.clone()  # some hosts add to it in place, which a leaf forbids
                made = (onward, *made[1:]) if isinstance(made, tuple) else onward
            see(point, given[0], states)
            return made

        return watch

    with ExitStack() as stack:
        attentions = set()
        for point in points:
            if point.endswith((".keys", ".values")):
                attentions.add(point.rpartition(".")[0])
                continue
            path = path_of(host.geometry, point)
            handle = host.part(path).register_forward_hook(hook(point))
            stack.callback(handle.remove)
        stack.enter_context(_watched_attentions(host, attentions, set(points), see))
        yield


@contextmanager
def _watched_attentions(
    host: Host, attentions: Iterable[str], points: set[str], see: See
) -> Iterator[None]:
    from peftport.hosts.attention import Attended, watch_attention

    def watcher(attention: str) -> Callable[[Attended], None]:
        def watch(attended: Attended) -> None:
            for what, states in (("keys", attended.key), ("values", attended.value)):
                if f"{attention}.{what}" in points:
                    flat = states.transpose(1, 2).flatten(2)  # (rows, tokens, kv_heads * head_dim)
                    see(f"{attention}.{what}", flat, flat)

        return watch

    with ExitStack() as stack:
        for attention in attentions:
            module = host.part(host.geometry.attentions[attention].path)
            stack.enter_context(watch_attention(module, watcher(attention)))
        yield


def path_of(geometry: Geometry, point: str) -> str:
    """Module path of a linear layer or of a layer's end."""
    found = geometry.linears.get(point) or geometry.blocks[point]
    return found.path

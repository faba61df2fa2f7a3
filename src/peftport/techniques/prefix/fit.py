"""Prefixes for another host: keys and values that do to its attentions what the donor's do to the
originating host's.

A prefix acts through a softmax over the keys of one head, and the heads of two hosts that were
pretrained independently are not the same heads. So the donor's keys and values are only where a
small fit starts from: attention by attention, in the order in which the host runs them, keys and
values are fitted so that the attention's output changes by the mapped change that the donor makes.
Before each fit the receiving host runs with the prefixes that are fitted already. The fit sees
texts and no labels, and no gradient passes through the host.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from peftport.hosts.geometry import Attention
from peftport.porting.activations import run_rows, stack_of
from peftport.porting.reading import TokenRows
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import attached
from peftport.techniques.prefix.core import PrefixConfig, PrefixTuning, prefixed

if TYPE_CHECKING:
    from peftport.hosts.attention import Attended
    from peftport.hosts.host import Host

_UNSEEN = -1e4
"""Added to the score of what is out of sight."""
_SILENCE = 12.0
"""Scores so far below the text's give a prefix next to no weight."""


@dataclass(frozen=True)
class Samples:
    """What an attention does with text alone, at some queries.

    query: (samples, heads, head_dim), scaled. text: its output, (samples, heads, head_dim).
    mass: logarithm of the softmax's denominator, (samples, heads). bias: what is added to the
    scores of the prefix, (samples, heads or 1, length); None for nothing. softcap: of all scores.
    """

    query: Tensor
    text: Tensor
    mass: Tensor
    bias: Tensor | None
    softcap: float | None = None

    def change(self, keys: Tensor, values: Tensor) -> Tensor:
        """Change of the output that a prefix (heads, length, head_dim) makes: (samples, heads *
        head_dim)."""
        from peftport.hosts.attention import capped

        scores = capped(torch.einsum("nhd,hld->nhl", self.query, keys), self.softcap)
        if self.bias is not None:
            scores = scores + self.bias
        prefix = scores.logsumexp(-1)  # (samples, heads)
        share = (prefix - torch.logaddexp(prefix, self.mass)).exp()
        mean = torch.einsum("nhl,hld->nhd", scores.softmax(-1), values)
        return (share[..., None] * (mean - self.text)).flatten(1)


def attended(
    host: Host, rows: TokenRows, attentions: Mapping[str, Attention], length: int
) -> dict[str, Samples]:
    """Samples of some attentions at the kept places of rows, under whatever is attached."""
    from peftport.hosts.attention import in_sight, watch_attention

    kept: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in attentions}
    last: dict[str, Attended] = {}
    for part in rows.parts():
        with torch.no_grad(), ExitStack() as stack:
            for name, attention in attentions.items():

                def see(found: Attended, name: str = name, places: TokenRows = part) -> None:
                    kept[name].append(_sampled(found, places.places[stack_of(name)]))
                    last[name] = found

                module = host.part(attention.path)
                stack.enter_context(watch_attention(module, see))
            run_rows(host, part)
    made = {}
    for name, parts in kept.items():
        query, text, mass, column, seen = (torch.cat(each) for each in zip(*parts, strict=True))
        bias = _bias(host, attentions[name], length, column)
        window = last[name].sliding_window
        if window is not None:
            hidden = _UNSEEN * ~in_sight(length, seen, window)[:, None]  # (samples, 1, length)
            bias = hidden if bias is None else bias + hidden
        made[name] = Samples(query, text, mass, bias, last[name].softcap)
    return made


def _sampled(found: Attended, places: Tensor) -> tuple[Tensor, ...]:
    """Query, output, mass and column of the kept queries, and how many tokens of the text each
    sees, on the CPU."""
    from peftport.hosts.attention import capped

    groups = found.query.shape[1] // found.key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (found.key, found.value))
    # (rows, heads, queries, tokens)
    scores = capped(found.query @ key.mT, found.softcap) + found.scores
    mass = scores.logsumexp(-1)  # (rows, heads, queries)
    if found.s_aux is not None:  # nothing, which a query can look at, too
        mass = torch.logaddexp(mass, found.s_aux.to(mass)[:, None])
    text = (scores - mass[..., None]).exp() @ value  # (rows, heads, queries, head_dim)
    each = (found.query.transpose(1, 2), text.transpose(1, 2), mass.transpose(1, 2))
    columns = torch.arange(scores.shape[2]).repeat(len(scores))  # (rows * queries,)
    kept = [states.flatten(0, 1).float().cpu()[places] for states in each]
    seen = found.scores.isfinite().sum(-1)[:, 0].expand(len(scores), -1)  # (rows, queries)
    return (*kept, columns[places], seen.flatten().cpu()[places])


def _bias(host: Host, attention: Attention, length: int, columns: Tensor) -> Tensor | None:
    """Position bias of a prefix at some queries: (samples, heads, length)."""
    if attention.bias is None:
        return None
    from peftport.hosts.attention import Prefix

    owner = host.part(attention.bias)
    empty = torch.empty(1, 1, length, 1)
    with torch.no_grad():
        bias = Prefix(empty, empty, owner).position_bias(int(columns.max()) + 1)
    assert bias is not None  # (1, heads, queries, length)
    return bias[0].transpose(0, 1).float().cpu()[columns]


def out_weight(host: Host, attention: str) -> Tensor:
    """Weight of the linear layer that follows an attention: (width, heads * head_dim)."""
    linear = host.geometry.linears[f"{attention}.o"]
    weight: Tensor = host.part(linear.path).weight.detach().float().cpu()
    return weight.mT if linear.transposed else weight


def by_head(flat: Tensor, attention: Attention, heads: int) -> Tensor:
    """(length, kv_heads * head_dim) -> (heads, length, head_dim)."""
    split = flat.unflatten(-1, (attention.kv_heads, attention.head_dim)).transpose(0, 1)
    return split.repeat_interleave(heads // attention.kv_heads, dim=0)


def donor_changes(
    host: Host,
    rows: TokenRows,
    config: PrefixConfig,
    donor: Parameters,
    points: Mapping[str, Attention],
) -> dict[str, Tensor]:
    """What the donor's prefixes do to the output of every attention, while all of them act:
    (samples, width)."""
    body = {name: t for name, t in donor.items() if not name.startswith("head.")}
    lanes = {name: tensor[None].to(host.device) for name, tensor in body.items()}
    with attached(host, PrefixTuning(), config, lanes):
        samples = attended(host, rows, points, config.length)
    heads, made = host.geometry.heads, {}
    for name, attention in points.items():
        keys, values = (
            by_head(donor[f"{name}.{what}"], attention, heads) for what in ("keys", "values")
        )
        made[name] = samples[name].change(keys, values) @ out_weight(host, name).mT
    return made


@dataclass(frozen=True)
class Target:
    """What the fit of one attention aims at.

    change: of the attention's output, (samples, width); None where nothing should change.
    gradients: of the classes' scores there, (contrasts, samples, width), or None.
    """

    change: Tensor | None
    gradients: Tensor | None


def fit_prefixes(
    host: Host,
    rows: TokenRows,
    config: PrefixConfig,
    start: Parameters,
    points: Mapping[str, Attention],
    targets: Mapping[str, Target],
    steps: int,
    rate: float,
) -> tuple[Parameters, dict[str, float]]:
    """Fit the prefixes of all attentions, one after the other.

    Args:
        host: the receiving one.
        start: keys and values to begin with, (length, kv_heads * head_dim).
        steps: of Adam for each attention; the best of all steps is kept, the start among them.
        rate: learning rate, in units of the deviation of the keys or values that it is for.

    Returns:
        The prefixes, and for each attention the share of the change that is missed (0 is none).
    """
    made: Parameters = {}
    missed: dict[str, float] = {}
    for name, attention in points.items():
        done = {p: points[p] for p in points if f"{p}.keys" in made}
        lanes = {n: tensor[None].to(host.device) for n, tensor in made.items()}
        with prefixed(host, config, done, lanes):
            samples = attended(host, rows, {name: attention}, config.length)[name]
        target = targets[name]
        if target.change is None:
            found = silent_prefix(samples, attention, config.length)
        else:
            fit = _Fit(samples, out_weight(host, name), attention, host.geometry.heads, target)
            begin = (start[f"{name}.keys"], start[f"{name}.values"])
            found, missed[name] = fit.best(begin, steps, rate)
        made[f"{name}.keys"], made[f"{name}.values"] = found
    return made, missed


def silent_prefix(samples: Samples, attention: Attention, length: int) -> tuple[Tensor, Tensor]:
    """Keys and values (length, kv_heads * head_dim) that next to no query looks at.

    The keys point away from the mean query of their head, as far as the scores of most queries
    fall well below the text's.
    """
    mean = samples.query.mean(0).unflatten(0, (attention.kv_heads, -1)).mean(1)  # (kv_heads, size)
    along = torch.einsum("nhd,hd->nh", samples.query, _repeated(mean, samples.query.shape[1]))
    low = along.quantile(0.05, dim=0).clamp_min(1e-3 * float(along.abs().mean()) + 1e-6)
    need = (_SILENCE - samples.mass.min(0).values).clamp_min(_SILENCE) / low  # (heads,)
    most = need.unflatten(0, (attention.kv_heads, -1)).max(1).values  # (kv_heads,)
    keys = (-most[:, None] * mean).flatten().repeat(length, 1)
    return keys, torch.zeros_like(keys)


def _repeated(by_head: Tensor, heads: int) -> Tensor:
    return by_head.repeat_interleave(heads // len(by_head), dim=0)


@dataclass(frozen=True)
class _Fit:
    """The fit of one attention's keys and values."""

    samples: Samples
    weight: Tensor
    attention: Attention
    heads: int
    target: Target

    def best(
        self, start: tuple[Tensor, Tensor], steps: int, rate: float
    ) -> tuple[tuple[Tensor, Tensor], float]:
        """The best keys and values on the way, and the loss there."""
        free = [tensor.clone().requires_grad_() for tensor in start]
        groups = [{"params": [t], "lr": rate * float(t.detach().std() + 1e-6)} for t in free]
        optimizer = torch.optim.Adam(groups)
        least, kept = float("inf"), start
        for step in range(steps + 1):
            with torch.enable_grad():
                loss = self.loss(free[0], free[1])
            if loss.item() < least:
                least = loss.item()
                kept = (free[0].detach().clone(), free[1].detach().clone())
            if step < steps:
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return kept, least

    def loss(self, keys: Tensor, values: Tensor) -> Tensor:
        """Mean of two shares that are missed: of the change, and of what it does to the scores."""
        heads = (by_head(t, self.attention, self.heads) for t in (keys, values))
        change = self.samples.change(*heads) @ self.weight.mT  # (samples, width)
        wanted, slopes = self.target.change, self.target.gradients
        assert wanted is not None
        error = change - wanted
        missed = _share(error, wanted)
        if slopes is None:
            return missed
        return (missed + _share((error * slopes).sum(-1), (wanted * slopes).sum(-1))) / 2


def _share(error: Tensor, wanted: Tensor) -> Tensor:
    return error.square().sum() / (wanted.square().sum() + 1e-12)

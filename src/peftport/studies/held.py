"""What a worker surely holds in memory while it works a pack off, told before anything is loaded.

It counts what there is at once and nothing else: a host's weights that are not mapped from its
files, what autograd keeps of each token for the way back, the modules and their moments, and hosts
that a port method loads whole. What the libraries take, buffers and freed memory come on top. So a
study is refused only where it cannot fit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

from peftport.hosts.configuration import written_config
from peftport.hosts.fingerprint import read_header, weight_files
from peftport.hosts.geometry import Geometry, geometry_from_record
from peftport.hosts.precision import Precision
from peftport.hosts.source import find_host
from peftport.studies.plan import Arm, Pack, Plan
from peftport.studies.resolve import Facts
from peftport.studies.spec import Spec
from peftport.techniques import technique

if TYPE_CHECKING:
    from peftport.porting.base import Request
    from peftport.porting.methods import Way
    from peftport.techniques.base import Shapes, Technique

HostKey = tuple[str, Precision]
"""A host as a worker loads it: its label, and the precision of its products."""

_MAPPED = "F32"
"""The type of weights that stay in their files, of whose pages none has to be held."""
_OF_A_PORT = 0.5
"""The share of what a port method says it keeps of texts that it surely does: it says so about."""
_NUMBERS = 3
"""What each parameter comes to on the way forward: itself, and two moments of its gradient."""
_READ_TOGETHER = (
    ("self.q", "self.k", "self.v", "self.qkv"),
    ("self.o",),
    ("ffn.gate", "ffn.up", "ffn.gate_up"),
    ("ffn.down",),
)
"""Linear layers that read the same states."""
Longest = Callable[[str, str, int, int], int]
"""Tokens of the longest of so many training batches of a host and a task: of a label each, rows of
a batch, steps."""


@dataclass(frozen=True)
class Held:
    """Bytes that a worker holds for a pack: of the host that it trains on, and beside it at the
    highest.

    loads: the hosts that it loads. lanes: how many it trains side by side.
    """

    host: float
    beside: float
    loads: frozenset[HostKey] = frozenset()
    lanes: int = 0

    @property
    def whole(self) -> float:
        """Both."""
        return self.host + self.beside


class Holding:
    """What the packs of a study hold. Its hosts and tasks are at hand (`Facts.unknown` is empty).

    What was found is kept: of packs there are many, of their kinds there are few.

    Args:
        longest: how long batches are: `at_most`, which takes no time, or `as_drawn`.
    """

    def __init__(self, plan: Plan, facts: Facts, longest: Longest) -> None:
        self._plan, self._facts, self._longest = plan, facts, longest
        found: Precision = plan.spec.training.settings().get("precision", "fp32")
        self._precision = found
        self.of_host = cache(self._of_host)
        self._of_arms, self._received = cache(self._of_these), cache(self._requested)

    def of_pack(self, pack: Pack, steps: int) -> Held:
        """What a pack takes of which so many steps are still to be trained."""
        arms = Counter(lane.arm for lane in pack.lanes)
        return self._of_arms(frozenset(arms.items()), steps)

    def _of_host(self, key: HostKey) -> float:
        """Bytes of a host's weights."""
        label, precision = key
        return host_bytes(self._facts.hosts[label]["location"], self._geometry(label), precision)

    def _of_these(self, arms: frozenset[tuple[Arm, int]], steps: int) -> Held:
        host = next(iter(arms))[0].host
        own: HostKey = (host, self._precision)
        ports = {arm: self._port(arm) for arm, _ in arms if arm.needs_donor}
        loaded = {pair for pair, _ in ports.values() if pair}
        beside = [self._beside(own, pair) + held for pair, held in ports.values()]
        trained, lanes = self._trained(arms, steps) if steps else (0.0, 0)
        # The hosts of a port stay while its module is trained, unless those of another follow.
        stay = self._beside(own, *loaded) if len(loaded) == 1 else 0.0
        # A host is loaded in single precision before its products are in any other.
        loading = max(0.0, self.of_host((host, "fp32")) - self.of_host(own))
        return Held(
            self.of_host(own),
            max([loading, trained + stay, *beside]),
            frozenset({own}.union(*loaded)),
            lanes,
        )

    def _beside(self, own: HostKey, pair: frozenset[HostKey]) -> float:
        return sum(map(self.of_host, pair - {own}))

    def _trained(self, arms: frozenset[tuple[Arm, int]], steps: int) -> tuple[float, int]:
        """Bytes of the lanes that are trained side by side, and how many they are."""
        alike: dict[Any, tuple[float, int]] = {(): (0.0, 0)}
        for arm, count in arms:
            made, config, shapes = self._made(arm)
            key = (made.name, config.model_dump_json(), tuple(sorted(shapes.items())))
            lanes = alike.get(key, (0.0, 0))[1] + count
            alike[key] = lanes * self._of_lane(arm, made, config, shapes, steps), lanes
        return max(alike.values())

    def _of_lane(self, arm: Arm, made: Technique, config: Any, shapes: Shapes, steps: int) -> float:
        rows = self._plan.spec.training.batch_size
        tokens = rows * self._longest(arm.host, arm.task, rows, steps)
        kept = kept_of_a_token(self._geometry(arm.host), made, config)
        return 4.0 * (tokens * kept + _NUMBERS * sum(map(prod, shapes.values())))

    def _made(self, arm: Arm) -> tuple[Technique, Any, Shapes]:
        """What an arm trains: technique, configuration and shapes of a module."""
        geometry = self._geometry(arm.host)
        if arm.needs_donor:
            way, request = self._of_arm(arm)[0]
            made = technique(way.method.makes(request))
            return made, way.method.configuration(request), way.method.written(request)
        from peftport.techniques.head import head_shapes

        made = technique(arm.technique)
        config = made.configure(self._facts.techniques[arm.technique])
        config, _ = made.fold(config, geometry, {})
        classes = len(self._facts.tasks[arm.task]["labels"])
        return made, config, made.shapes(config, geometry) | head_shapes(geometry, classes)

    def _port(self, arm: Arm) -> tuple[frozenset[HostKey], float]:
        """The hosts that the ports of an arm load whole, and what they keep of texts, in bytes."""
        from peftport.porting.estimate import Load

        marks = {self._facts.hosts[label]["fingerprint"] for label in (arm.origin, arm.host)}
        if len(marks) == 1:  # there is nothing to map
            return frozenset(), 0.0
        load = Load(self._facts.texts.count if self._facts.texts else 0)
        loads, samples = False, 0.0
        for way, request in self._of_arm(arm):
            loads = loads or way.method.loads(request)
            samples = max(samples, _OF_A_PORT * way.method.samples(request, load))
        pair: frozenset[HostKey] = frozenset({(arm.origin, "fp32"), (arm.host, "fp32")})
        return pair if loads else frozenset(), samples

    def _requested(
        self, how: str, name: str, origin: str, host: str, task: str
    ) -> list[tuple[Way, Request]]:
        from peftport.studies.ways import requested

        options, (one, other) = self._facts.techniques[name], map(self._record, (origin, host))
        return requested(how, name, options, one, other, self._facts.tasks[task])

    def _of_arm(self, arm: Arm) -> list[tuple[Way, Request]]:
        """The ports of an arm."""
        return self._received(arm.how, arm.technique, arm.origin, arm.host, arm.origin_task)

    def _record(self, label: str) -> dict[str, Any]:
        found: dict[str, Any] = self._facts.hosts[label]["geometry"]
        return found

    def _geometry(self, label: str) -> Geometry:
        return geometry_from_record(self._record(label))


def host_bytes(location: str, geometry: Geometry, precision: Precision) -> float:
    """Bytes of a host's weights in a worker's own memory, at the least.

    Weights that are stored in single precision stay in their files; others are held in it. Linear
    layers in bfloat16 are copies whatever they are stored in.
    """
    folder = find_host(location).files()
    entries = [entry for file in weight_files(folder) for entry in read_header(file)[0].values()]
    copied = sum(prod(entry["shape"]) for entry in entries if entry["dtype"] != _MAPPED)
    linears = sum({li.path: li.inputs * li.outputs for li in geometry.linears.values()}.values())
    apart = written_config(folder, location).get("tie_word_embeddings") is False
    tables = 2 if apart and geometry.kind != "encoder" else 1
    others = tables * geometry.vocabulary * geometry.width
    if precision == "fp32":
        return 4.0 * min(copied, linears + others)
    return 2.0 * linears + 4.0 * min(max(0, copied - linears), others)


def kept_of_a_token(geometry: Geometry, made: Technique, config: Any) -> int:
    """Numbers that autograd keeps of a token of the text for the way back, at the least."""
    changed = frozenset(made.changes(config, geometry))
    passed = _passed(geometry, made.shapes(config, geometry))
    return sum(_kept_in(geometry, layer, changed) for layer in passed)


def _passed(geometry: Geometry, shapes: Shapes) -> range:
    """The layers of the stack that reads the text through which gradients of all its tokens come:
    those behind the first one with a tensor of a module, but for a decoder's last one, of which no
    more is computed than is read."""
    stack = _reading(geometry)
    numbers = [name.split(".")[1] for name in shapes if name.startswith(f"{stack}.")]
    first = min(map(int, numbers), default=geometry.stacks[stack])
    return range(first + 1, geometry.stacks[stack] - (stack == "decoder"))


def _reading(geometry: Geometry) -> str:
    """The stack that reads the text."""
    return "encoder" if "encoder" in geometry.stacks else "decoder"


def _kept_in(geometry: Geometry, layer: int, changed: frozenset[str]) -> int:
    """Numbers that autograd keeps of a token in a layer, at the least.

    Those that a norm, an attention and an activation go back by; and the inputs of what is trained.

    Args:
        changed: linear layers whose weights a module changes.
    """
    kept, start = 2 * geometry.width, f"{_reading(geometry)}.{layer}"
    linears = {
        role: geometry.linears[f"{start}.{role}"]
        for roles in _READ_TOGETHER
        for role in roles
        if f"{start}.{role}" in geometry.linears
    }
    kept += sum(linears[role].outputs for role in _READ_TOGETHER[0] if role in linears)
    kept += linears["self.o"].inputs if "self.o" in linears else 0
    if "ffn.down" in linears:
        gated = "ffn.gate" in linears or "ffn.gate_up" in linears
        kept += (3 if gated else 1) * linears["ffn.down"].inputs
    for roles in _READ_TOGETHER:
        kept += max((linears[r].inputs for r in roles if f"{start}.{r}" in changed), default=0)
    return kept


def at_most(facts: Facts) -> Longest:
    """No batch is longer than its task allows."""

    def longest(host: str, task: str, rows: int, steps: int) -> int:
        return int(facts.tasks[task]["max_tokens"])

    return longest


def as_drawn(spec: Spec, facts: Facts) -> Longest:
    """Which rows a batch has is known before; they are made tokens of, which workers need too."""
    from peftport.hosts.host import load_tokenizer
    from peftport.studies.resolve import load_limited
    from peftport.tasks import Encoded, encode

    @cache
    def rows_of(host: str, task: str) -> Encoded:
        where, what = facts.hosts[host], facts.tasks[task]["location"]
        limits = spec.limit_train, spec.split, spec.limit_test, spec.asked
        tokenizer = load_tokenizer(find_host(where["location"]).files(), where["location"])
        return encode(tokenizer, load_limited(what, *limits), "train", where["kind"])

    @cache
    def longest(host: str, task: str, rows: int, steps: int) -> int:
        return rows_of(host, task).longest_batch(rows, steps)

    return longest

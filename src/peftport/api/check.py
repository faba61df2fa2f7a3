"""What ports would do, told before any weight is loaded; and how much a copy would keep."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from peftport.api.hosts import HostHandle, as_host, device_named
from peftport.api.means import TEXTS, Asked, TextSource, means_for
from peftport.api.modules import ModuleHandle, as_handle
from peftport.api.reading import informed, notice_unsaid, task_for, told, words_problem_of
from peftport.api.result import Result
from peftport.api.suggestions import related
from peftport.errors import BadInput
from peftport.room import within

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from peftport.api.modules import ModuleLike
    from peftport.forecast import Forecast
    from peftport.modules import Record
    from peftport.porting import Verdict
    from peftport.porting.base import Need, Request
    from peftport.porting.estimate import Load
    from peftport.tasks import Task
    from peftport.techniques.base import Parameters, Shapes

Stated = Literal["continuation", "independent"]
FORECAST_TEXTS = 256
"""How many texts a forecast draws, at most, where nobody says how many."""


@dataclass(frozen=True)
class Checked(Result):
    """Which methods could port a module to a host, and what they would do.

    Attributes:
        module: its folder.
        format: of the folder.
        technique: that made it.
        made_for, to: names of its host and of the receiving one.
        same_geometry: whether the two have the same sizes and places.
        differences: size -> [own host's, receiving host's].
        estimated_for: `texts` and mean `tokens` of one, which estimates of time and memory are for.
        methods: for each method asked about: `method`, `can_port`, `problem` (why not), `needs`
            ("weights", "texts"), `counts` (tensors by what becomes of them), `estimate` (seconds,
            bytes of memory and disk), `takes` (the same in words) and `note`.
        try_first: the methods that can, those first that docs/porting.md says to try first.
        kin: whether the two hosts share their pretraining; None where that is not known.
        one: whether one method was asked about.
        forecast: how much a copy would keep, where that was asked for; see docs/forecast.md.
    """

    module: str
    format: str
    technique: str
    made_for: str
    to: str
    same_geometry: bool
    differences: Mapping[str, list[Any]]
    estimated_for: Mapping[str, float]
    methods: tuple[Mapping[str, Any], ...]
    try_first: tuple[str, ...] = ()
    kin: bool | None = None
    one: bool = False
    forecast: Mapping[str, Any] | None = None

    @property
    def can_port(self) -> bool:
        """Whether any of the methods that were asked about can."""
        return any(each["can_port"] for each in self.methods)

    def frame(self) -> pd.DataFrame:
        """A row for each method."""
        import pandas as pd

        return pd.DataFrame([{**each, "counts": dict(each["counts"])} for each in self.methods])

    def to_dict(self) -> dict[str, Any]:
        """Everything; one method's verdict stands at the top level."""
        names = ("module", "format", "technique", "made_for", "to", "same_geometry", "differences")
        found = {name: getattr(self, name) for name in (*names, "estimated_for")}
        if self.forecast is not None:
            found["forecast"] = dict(self.forecast)
        if self.one:
            return found | dict(self.methods[0])
        methods = [dict(each) for each in self.methods]
        return found | {
            "can_port": self.can_port,
            "kin": self.kin,
            "try_first": list(self.try_first),
            "methods": methods,
        }

    def __str__(self) -> str:
        return _text(self)

    def _repr_html_(self) -> str:
        head = f"<p>{self.technique} from {self.made_for} to {self.to}</p>"
        return head + str(self.frame().to_html(index=False))


ROOM = 160 << 20
"""Bytes of the texts that a check looks at: with all that is loaded, it stays below 1 GB."""


@within(ROOM)
def check(
    module: ModuleLike,
    host: str | Path | HostHandle,
    *,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    forecast: bool = False,
    texts: TextSource = None,
    text_count: int | None = None,
    text_column: str | None = None,
    task: str | None = None,
    label_column: str | None = None,
    relation: Stated | None = None,
    label_words: str | tuple[str, ...] | None = None,
    template: str | None = None,
    kind: str | None = None,
    device: str | None = None,
) -> Checked:
    """Say which methods could port a module to a host, and what they would do.

    Without `forecast` no weights of hosts are read.

    Args:
        module: a folder, or what `load_module`, `port` or `train` gave.
        host: the receiving host: a name, or what `load_host` gave.
        method: one port method; every one if not given.
        options: its options, by name.
        forecast: also say how much of the module a copy would keep; reads both hosts.
        texts: unlabelled, for the forecast: a file, a folder, a task's name, or a list of texts.
        text_count: how many texts are drawn, at most, as `port` takes it: what time and memory are
            told for. 1000 if not given, and 256 for the forecast.
        text_column: of theirs, and of the task's.
        task: the module's, for what its files leave unsaid of texts and words, and for the
            forecast's texts where `texts` names none.
        label_column: of the task.
        relation: how the hosts stand to each other, if their records do not say it.
        label_words, template: with which the module was trained, if its files do not say it.
        kind: what it was trained for, if its files do not say it: "classification", "choice",
            "completion" or "language".
        device: for the forecast.

    Raises:
        BadInput: a file cannot be read, a host is not known, or arguments contradict each other.

    >>> import peftport as pp
    >>> found = pp.check("modules/films", "lab:small-twin")
    >>> found.can_port
    True
    >>> list(found.frame()["method"])[:2]
    ['copy', 'subspace']
    """
    from peftport.hosts import geometry_from_record
    from peftport.porting import port_method, to_try
    from peftport.porting.estimate import Load

    handle, receiver = as_handle(module), as_host(host, device)
    _require_consistent(method, options, forecast, texts, relation, text_count)
    # A file that cannot be read is bad input, and no answer.
    handle = replace(handle, partial=True)
    record, shapes = handle.outline
    said = told(label_words, template, text_column, label_column, kind=kind)
    data = task_for(record, task, said) if task else None
    record = informed(record, said, data)
    origin, geometry = geometry_from_record(record.geometry), receiver.geometry
    made_of = None
    if forecast:
        copy = port_method("copy").request(record, shapes, geometry)
        asked = Asked(texts, text_count or FORECAST_TEXTS, text_column)
        made_of = _forecast(copy, handle, receiver, asked, data, device, relation).record()
    load = Load(text_count or TEXTS)
    verdicts = _verdicts(record, shapes, receiver, method, options, load, handle.format)
    kin = _kin(record, receiver, made_of)
    return Checked(
        module=handle.called,
        format=handle.format,
        technique=record.technique,
        made_for=record.host.name,
        to=receiver.name,
        same_geometry=origin == geometry,
        differences=_differences(origin.record(), geometry.record()),
        estimated_for={"texts": load.texts, "tokens": load.tokens},
        methods=tuple(_entry(verdict) for verdict in verdicts),
        try_first=tuple(each.method for each in to_try(verdicts, kin, record.kind)),
        kin=kin,
        one=method is not None,
        forecast=made_of,
    )


def _require_consistent(
    method: str | None,
    options: Mapping[str, Any] | None,
    forecast: bool,
    texts: TextSource,
    relation: Stated | None,
    text_count: int | None,
) -> None:
    """Raise BadInput for what means nothing without something else that is not given."""
    from peftport.porting.texts import require_enough

    if options and method is None:
        raise BadInput("--set and --layers are of one method: name it with --method.")
    if (texts is not None or relation) and not forecast:
        raise BadInput("--texts and --relation are for the forecast: add --forecast.")
    if text_count is not None:
        require_enough(text_count)


def _verdicts(
    record: Record,
    shapes: Shapes,
    receiver: HostHandle,
    method: str | None,
    options: Mapping[str, Any] | None,
    load: Load,
    format: str,
) -> list[Verdict]:
    """What is found of one method, or of each."""
    from peftport.porting import judge, judge_all, port_method
    from peftport.porting.means import unread, without_weights

    there, blind = receiver.geometry, unread(record.host.name, receiver.name)
    if method is None:
        verdicts = judge_all(record, shapes, there, blind, load)
    else:
        made = port_method(method)
        verdicts = [judge(made, made.request(record, shapes, there, options), blind, load)]
    closed = without_weights(receiver.name)
    asked = (record, shapes, there, options)
    verdicts = [_as_port(verdict, asked, receiver.name, format) for verdict in verdicts]
    if closed is not None:  # its fingerprint is of them, which a module's record keeps
        verdicts = [replace(v, problem=closed, account=None, estimate=None) for v in verdicts]
    return verdicts


def _kin(record: Record, receiver: HostHandle, forecast: Mapping[str, Any] | None) -> bool | None:
    """Whether the two hosts share their pretraining, of which a forecast knows more."""
    if forecast is not None and forecast["genealogy"] is not None:
        return bool(forecast["genealogy"] != "independent")
    return related(record, receiver, look=False)


def _as_port(verdict: Verdict, asked: tuple[Any, ...], host: str, format: str) -> Verdict:
    """The verdict, with what else `port` would refuse: label words that the host cannot read, and
    what the module's own format, in which it writes, cannot hold. `asked` makes the request."""
    from peftport.modules import formats
    from peftport.porting import port_method

    if verdict.problem is not None or verdict.account is None:
        return verdict
    method = port_method(verdict.method)
    request = method.request(*asked)
    record, there = asked[0], request.receiver
    made = method.makes(request), method.configuration(request), verdict.account.targets
    problem = words_problem_of(method, record, there, host)
    problem = problem or formats.problem(*made, there, format)
    return replace(verdict, problem=problem)


def _entry(verdict: Verdict) -> dict[str, Any]:
    """What is said of one method."""
    return {
        "method": verdict.method,
        "can_port": verdict.problem is None,
        "problem": verdict.problem,
        "needs": sorted(verdict.requires),
        "counts": verdict.account.counts() if verdict.account else {},
        "estimate": verdict.estimate.record() if verdict.estimate else None,
        "takes": verdict.estimate.text() if verdict.estimate else None,
        "note": verdict.account.note if verdict.account and not verdict.problem else None,
    }


def _forecast(
    copy: Request,
    handle: ModuleHandle,
    receiver: HostHandle,
    asked: Asked,
    task: Task | None,
    device: str | None,
    relation: Stated | None,
) -> Forecast:
    from peftport.forecast import forecast

    on_texts = asked.source is not None or task is not None
    donor: Parameters = {}
    if on_texts:
        notice_unsaid(copy.donor, handle.called)
        donor = handle.tensors
    on = device_named(device or receiver.device)
    needs: frozenset[Need] = frozenset({"weights", "texts"} if on_texts else {"weights"})
    means = means_for(needs, copy.donor, receiver, on, asked, seed=0, task=task)
    assert means is not None
    return forecast(copy, donor, means, relation)


def _differences(origin: dict[str, Any], receiver: dict[str, Any]) -> dict[str, list[Any]]:
    """Sizes that differ between two hosts' records, which may say more of a host than that."""
    from peftport.hosts.geometry import SIZES

    sizes = ("family", "gated", *SIZES, "stacks")
    return {key: [origin[key], receiver[key]] for key in sizes if origin[key] != receiver[key]}


def _text(found: Checked) -> str:
    lines = [f"{found.technique} {found.module}, made for {found.made_for}"]
    lines += [f"  {key}: {a} -> {b}" for key, (a, b) in found.differences.items()]
    asked = found.estimated_for
    lines.append(
        f"to {found.to} by (time and memory with {asked['texts']:,} texts of "
        f"{asked['tokens']:.0f} tokens)"
    )
    told: dict[str, str] = {}
    for each in found.methods:
        can, why = "yes" if each["can_port"] else "no", _why(each)
        first = told.setdefault(why, each["method"])
        if first != each["method"] and not each["can_port"] and len(why) > _LONG:
            why = f"as {first}"
        head = f"  {each['method']:<12} {can:<4} "
        lines += textwrap.wrap(head + why, _WIDTH, subsequent_indent=" " * len(head), **_WHOLE)
    if found.forecast is not None:
        lines += _forecast_lines(found.forecast)
    elif any(each["can_port"] and each["method"] == "copy" for each in found.methods):
        lines += textwrap.wrap(_EQUAL_SHAPES, _WIDTH, **_WHOLE)
    lines += _try_first(found)
    return "\n".join(lines)


def _try_first(found: Checked) -> list[str]:
    """Which method to try first, where several were asked about."""
    if found.one or not found.try_first:
        return []
    first, *others = found.try_first
    if first == "copy" and others and not found.kin:
        return [f"Try first: copy where {found.to} continues {found.made_for}; else {others[0]}."]
    return [f"Try first: {first}."]


_EQUAL_SHAPES = (
    "Equal shapes do not make a copy work: it does between a host and its short continuation. Say "
    "how much with --forecast, or measure it with `peftport assess`."
)
_WIDTH = 100
_LONG = 80
"""A reason of so many characters is told once."""
_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
_NEEDED = {"weights": "both hosts", "texts": "unlabelled texts (--texts)"}


def _why(each: Mapping[str, Any]) -> str:
    if each["problem"]:
        partly = any(each["counts"].get(action) for action in ("copied", "mapped"))
        return str(each["problem"]) + "; --allow-partial goes on with what is left" * partly
    needs = " and ".join(_NEEDED[need] for need in sorted(each["needs"], reverse=True))
    counted = ", ".join(f"{n} {action}" for action, n in each["counts"].items() if n)
    said = [f"tensors: {counted}", each["note"], f"needs {needs}" if needs else None, each["takes"]]
    return "; ".join(part for part in said if part)


def _forecast_lines(found: Mapping[str, Any]) -> list[str]:
    """A forecast in sentences."""
    weights = found["weights"]
    return [
        f"a copy is forecast to keep {found['recovery']:.0%} of what the module gains, before any "
        f"training ({found['low']:.0%} to {found['high']:.0%} in {found['level']:.0%} of such "
        "cases)",
        f"  weights: distance {weights['distance']:.3f} (0 the same, 1.414 unrelated), leading "
        f"directions shared {weights['overlap']:.0%}",
        *_on_texts(found["on_texts"], found["texts"]),
        f"  genealogy: {found['genealogy'] or 'not known'}",
        *(f"  note: {note}" for note in found["notes"]),
        f"  calibrated on {found['calibrated_on']}",
        "  docs/forecast.md says how it did on other hosts; `peftport assess` measures",
    ]


def _on_texts(signals: Mapping[str, Any] | None, count: int) -> list[str]:
    if signals is None:
        return ["  the copy was not tried: that needs unlabelled texts (--texts)"]
    answers = "the copy was not tried: the module does not know its label words"
    if signals["answers"] is not None:
        answers = (
            f"on {count} unlabelled texts the copy answers as the module does on its own host "
            f"with kappa {signals['answers']:.2f} (1 always, 0 by chance)"
        )
    return [f"  residual streams: linear CKA {signals['cka']:.3f} (1 the same)", f"  {answers}"]

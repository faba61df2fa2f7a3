"""`peftport check`: what ports would do, before any weight is loaded; with --forecast, how much of
the module a copy would keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from peftport.cli.arguments import Device, ModuleFolder, ToHost, device_named
from peftport.cli.means import Asked, Layers, Set, TextColumn, TextSource, means_for, options_of
from peftport.cli.modules import FromHost, NoPickle
from peftport.cli.output import AsJson, show
from peftport.cli.reading import LabelWords, Template, informed, notice_unsaid, task_for, told
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.forecast import Forecast
    from peftport.porting import Verdict
    from peftport.porting.base import Need, Request
    from peftport.tasks import Task
    from peftport.techniques.base import Parameters

Stated = Literal["continuation", "independent"]


def check(
    module: ModuleFolder,
    to: ToHost,
    method: Annotated[
        str | None, typer.Option(help="A port method; every one if not given.")
    ] = None,
    set_: Set = None,
    layers: Layers = None,
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast", help="Say how much of the module a copy would keep. Reads both hosts."
        ),
    ] = False,
    text: TextSource = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="The module's task, for what MODULE leaves unsaid of texts and words, and for "
            "texts of the forecast where --text names none.",
        ),
    ] = None,
    texts: Annotated[
        int, typer.Option(min=1, help="How many texts are drawn for the forecast, at most.")
    ] = 256,
    text_column: TextColumn = None,
    genealogy: Annotated[
        Stated | None,
        typer.Option(help="How the hosts stand to each other, if their records do not say it."),
    ] = None,
    label_words: LabelWords = None,
    template: Template = None,
    device: Device = None,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Say which methods could port MODULE to a host, and what they would do.

    Without --forecast no weights are read.
    """
    from peftport.hosts import geometry_by_name, geometry_from_record
    from peftport.modules import formats, load_module, read_outline
    from peftport.porting import judge, judge_all, port_method
    from peftport.porting.means import unread

    options = options_of(set_, layers)
    if options and method is None:
        raise BadInput("--set and --layers are of one method: name it with --method.")
    if (text or genealogy) and not forecast:
        raise BadInput("--text and --genealogy are for the forecast: add --forecast.")
    # A file that cannot be read is bad input, and no answer.
    record, shapes = read_outline(module, from_host, not no_pickle, partial=True)
    said = told(label_words, template)
    data = task_for(record, task, said) if task else None
    record = informed(record, said, data)
    receiver = geometry_by_name(to)
    origin = geometry_from_record(record.geometry)
    found: dict[str, Any] = {
        "module": str(module),
        "format": formats.format_of(module),
        "technique": record.technique,
        "made_for": record.host.name,
        "to": to,
        "same_geometry": origin == receiver,
        "differences": _differences(origin.record(), receiver.record()),
    }
    if forecast:
        copy = port_method("copy").request(record, shapes, receiver)
        asked = Asked(text, texts, text_column)
        donor: Parameters = {}
        if text or task:
            notice_unsaid(record, module)
            donor = load_module(
                module, from_host=from_host, pickles=not no_pickle, partial=True
            ).tensors
        made_of = _forecast(copy, donor, to, asked, data, device_named(device), genealogy)
        found["forecast"] = made_of.record()
    if method is not None:
        made = port_method(method)
        request = made.request(record, shapes, receiver, options)
        found |= _entry(judge(made, request, unread(record.host.name, to)))
        show(found, _text(found, [found]), as_json)
        return
    blind = unread(record.host.name, to)
    entries = [_entry(verdict) for verdict in judge_all(record, shapes, receiver, blind)]
    found |= {"can_port": any(each["can_port"] for each in entries), "methods": entries}
    show(found, _text(found, entries), as_json)


def _entry(verdict: Verdict) -> dict[str, Any]:
    """What is said of one method."""
    return {
        "method": verdict.method,
        "can_port": verdict.problem is None,
        "problem": verdict.problem,
        "needs": sorted(verdict.requires),
        "counts": verdict.account.counts() if verdict.account else {},
    }


def _forecast(
    copy: Request,
    donor: Parameters,
    to: str,
    asked: Asked,
    task: Task | None,
    device: str,
    genealogy: Stated | None,
) -> Forecast:
    from peftport.forecast import forecast

    on_texts = asked.source is not None or task is not None
    needs: frozenset[Need] = frozenset({"weights", "texts"} if on_texts else {"weights"})
    means = means_for(needs, copy.donor, to, device, asked, seed=0, task=task)
    assert means is not None
    return forecast(copy, donor, means, genealogy)


def _differences(origin: dict[str, Any], receiver: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: [origin[key], receiver[key]] for key in origin if origin[key] != receiver[key]}


def _text(found: dict[str, Any], entries: list[dict[str, Any]]) -> str:
    lines = [f"{found['technique']} {found['module']}, made for {found['made_for']}"]
    lines += [f"  {key}: {a} -> {b}" for key, (a, b) in found["differences"].items()]
    lines.append(f"to {found['to']} by")
    for each in entries:
        can = "yes" if each["can_port"] else "no"
        lines.append(f"  {each['method']:<12} {can:<4} {_why(each)}")
    if "forecast" in found:
        lines += _forecast_lines(found["forecast"])
    elif any(each["can_port"] and each["method"] == "copy" for each in entries):
        lines.append(
            "Equal shapes do not make a copy work: it does between a host and its short "
            "continuation. Say how much with --forecast, or measure it with `peftport assess`."
        )
    return "\n".join(lines)


_NEEDED = {"weights": "both hosts", "texts": "unlabelled texts (--text)"}


def _why(each: dict[str, Any]) -> str:
    if each["problem"]:
        return str(each["problem"])
    needs = " and ".join(_NEEDED[need] for need in sorted(each["needs"], reverse=True))
    counted = ", ".join(f"{n} {action}" for action, n in each["counts"].items() if n)
    return f"tensors: {counted}" + (f"; needs {needs}" if needs else "")


def _forecast_lines(found: dict[str, Any]) -> list[str]:
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


def _on_texts(signals: dict[str, Any] | None, count: int) -> list[str]:
    if signals is None:
        return ["  the copy was not tried: that needs unlabelled texts (--text)"]
    answers = "the copy was not tried: the module does not know its label words"
    if signals["answers"] is not None:
        answers = (
            f"on {count} unlabelled texts the copy answers as the module does on its own host "
            f"with kappa {signals['answers']:.2f} (1 always, 0 by chance)"
        )
    return [f"  residual streams: linear CKA {signals['cka']:.3f} (1 the same)", f"  {answers}"]

"""`peftport check`: what ports would do, before any weight is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.cli.arguments import ModuleFolder, ToHost
from peftport.cli.means import Layers, Set, options_of
from peftport.cli.modules import FromHost, NoPickle
from peftport.cli.output import AsJson, show
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.porting import Verdict


def check(
    module: ModuleFolder,
    to: ToHost,
    method: Annotated[
        str | None, typer.Option(help="A port method; every one if not given.")
    ] = None,
    set_: Set = None,
    layers: Layers = None,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Say which methods could port MODULE to a host, and what they would do. Reads no weights."""
    from peftport.hosts import geometry_by_name, geometry_from_record
    from peftport.modules import formats, read_outline
    from peftport.porting import judge, judge_all, port_method

    options = options_of(set_, layers)
    if options and method is None:
        raise BadInput("--set and --layers are of one method: name it with --method.")
    # A file that cannot be read is bad input, and no answer.
    record, shapes = read_outline(module, from_host, not no_pickle)
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
    if method is not None:
        made = port_method(method)
        found |= _entry(judge(made, made.request(record, shapes, receiver, options)))
        show(found, _text(found, [found]), as_json)
        return
    entries = [_entry(verdict) for verdict in judge_all(record, shapes, receiver)]
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


def _differences(origin: dict[str, Any], receiver: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: [origin[key], receiver[key]] for key in origin if origin[key] != receiver[key]}


def _text(found: dict[str, Any], entries: list[dict[str, Any]]) -> str:
    lines = [f"{found['technique']} {found['module']}, made for {found['made_for']}"]
    lines += [f"  {key}: {a} -> {b}" for key, (a, b) in found["differences"].items()]
    lines.append(f"to {found['to']} by")
    for each in entries:
        can = "yes" if each["can_port"] else "no"
        lines.append(f"  {each['method']:<12} {can:<4} {_why(each)}")
    if any(each["can_port"] and each["method"] == "copy" for each in entries):
        lines.append(
            "Equal shapes do not make a copy work: it does between a host and its short "
            "continuation. Measure it with `peftport assess`."
        )
    return "\n".join(lines)


_NEEDED = {"weights": "both hosts", "texts": "unlabelled texts (--text)"}


def _why(each: dict[str, Any]) -> str:
    if each["problem"]:
        return str(each["problem"])
    needs = " and ".join(_NEEDED[need] for need in sorted(each["needs"], reverse=True))
    counted = ", ".join(f"{n} {action}" for action, n in each["counts"].items() if n)
    return f"tensors: {counted}" + (f"; needs {needs}" if needs else "")

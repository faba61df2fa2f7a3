"""`peftport check`: what a port would do, before any weight is loaded."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from peftport.cli.arguments import ModuleFolder, ToHost
from peftport.cli.modules import FromHost, NoPickle
from peftport.cli.output import AsJson, show


def check(
    module: ModuleFolder,
    to: ToHost,
    method: Annotated[str, typer.Option(help="A port method; see `peftport methods`.")] = "copy",
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Say what a port of MODULE would do on a host, and whether it can. Reads no weights."""
    from peftport.hosts import geometry_by_name, geometry_from_record
    from peftport.modules import formats, read_outline
    from peftport.porting import judge, port_method

    # A file that cannot be read is bad input, and no answer.
    record, shapes = read_outline(module, from_host, not no_pickle)
    receiver = geometry_by_name(to)
    origin = geometry_from_record(record.geometry)
    made = port_method(method)
    verdict = judge(made, made.request(record, shapes, receiver))
    found: dict[str, Any] = {
        "module": str(module),
        "format": formats.format_of(module),
        "technique": record.technique,
        "made_for": record.host.name,
        "to": to,
        "method": method,
        "can_port": verdict.problem is None,
        "problem": verdict.problem,
        "counts": verdict.account.counts() if verdict.account else {},
        "same_geometry": origin == receiver,
        "differences": _differences(origin.record(), receiver.record()),
    }
    show(found, _text(found), as_json)


def _differences(origin: dict[str, Any], receiver: dict[str, Any]) -> dict[str, list[Any]]:
    return {key: [origin[key], receiver[key]] for key in origin if origin[key] != receiver[key]}


def _text(found: dict[str, Any]) -> str:
    lines = [
        f"{found['technique']} {found['module']}, made for {found['made_for']}",
        f"to {found['to']} by {found['method']}: {'yes' if found['can_port'] else 'no'}",
    ]
    if found["problem"]:
        lines.append(f"  {found['problem']}")
    counted = [f"{n} {action}" for action, n in found["counts"].items() if n]
    if counted:
        lines.append(f"  tensors: {', '.join(counted)}")
    for key, (here, there) in found["differences"].items():
        lines.append(f"  {key}: {here} -> {there}")
    if found["can_port"] and found["method"] == "copy":
        lines.append(
            "  Equal shapes do not make a copy work: it does between a host and its short "
            "continuation. Measure it with `peftport assess`."
        )
    return "\n".join(lines)

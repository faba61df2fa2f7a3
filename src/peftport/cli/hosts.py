"""`peftport hosts`: list, describe, pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peftport.cli.output import AsJson, show

app = typer.Typer(help="List, describe and pretrain hosts.", no_args_is_help=True)


@app.command("list")
def list_hosts(as_json: AsJson = False) -> None:
    """List the lab's hosts and the model families that can be hosts."""
    from peftport.hosts import families, lab

    known = families().values()
    show(
        {
            "lab": [{"name": f"lab:{name}", "about": lab.about(name)} for name in lab.NAMES],
            "families": [
                {"family": f["family"], "kind": f["kind"], "models": f["models"]} for f in known
            ],
        },
        "\n".join(
            [
                "The lab's hosts, at hand without a download:",
                *(f"  {f'lab:{name}':<18} {lab.about(name)}" for name in lab.NAMES),
                "",
                "Model families, by hub name or folder:",
                *(f"  {f['family']:<8} {f['kind']:<16} {f['models']}" for f in known),
            ]
        ),
        as_json,
    )


@app.command()
def describe(
    host: Annotated[str, typer.Argument(help="A hub name, a folder, or lab:NAME.")],
    as_json: AsJson = False,
) -> None:
    """Say of a host its geometry, its insertion points and the fingerprint of its weights."""
    from peftport.hosts import find_host
    from peftport.hosts.fingerprint import fingerprint
    from peftport.hosts.source import geometry_in

    folder = find_host(host).files()
    geometry = geometry_in(folder, host)
    record: dict[str, Any] = {
        "name": host,
        "kind": geometry.kind,
        **geometry.record(),
        "fingerprint": fingerprint(folder),
        "linears": {name: [p.outputs, p.inputs] for name, p in geometry.linears.items()},
        "attentions": list(geometry.attentions),
        "provenance": _provenance(folder),
    }
    show(record, _describe_text(record), as_json)


def _provenance(folder: Path) -> Any:
    from peftport.files import read_json

    path = folder / "peftport_host.json"
    return read_json(path) if path.is_file() else None


def _describe_text(record: dict[str, Any]) -> str:
    stacks = ", ".join(f"{count} {name} layers" for name, count in record["stacks"].items())
    roles: dict[str, list[int]] = {}
    for name, shape in record["linears"].items():
        stack, _, role = name.split(".", 2)
        roles.setdefault(f"{stack}.*.{role}", shape)
    return "\n".join(
        [
            f"{record['name']}: {record['family']}, {record['kind']}, {stacks}",
            f"width {record['width']}, {record['heads']} heads of {record['head_dim']} "
            f"({record['kv_heads']} for keys and values), feed-forward {record['ffn']}, "
            f"vocabulary {record['vocabulary']}",
            f"fingerprint {record['fingerprint']}",
            "linear layers (outputs x inputs):",
            *(f"  {role:<22} {shape[0]} x {shape[1]}" for role, shape in roles.items()),
        ]
    )

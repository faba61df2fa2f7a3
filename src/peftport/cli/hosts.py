"""`peftport hosts`: list, describe, pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from peftport.cli.arguments import Device
from peftport.cli.output import AsJson, say, show

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


@app.command("families")
def list_families(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As the page docs/families.md.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say of each family of hosts which models are of it, and what can be made for them."""
    from peftport.hosts.table import page, rows

    found = rows()
    show({"families": found}, page(found) if markdown else _families_text(found), as_json)


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


@app.command()
def pretrain(
    text: Annotated[
        Path,
        typer.Option(help="A .txt, Parquet, CSV, TSV, JSONL or JSON file, or a folder of them."),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the host.")],
    steps: Annotated[int, typer.Option(help="Training steps.")],
    family: Annotated[
        str | None, typer.Option(help="Make a new host of this family; `hosts list` has them.")
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option("--from", help="Continue this host: a hub name, a folder, or lab:NAME."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="A new encoder learns this one's states, and takes its tokenizer."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and what is hidden.")] = 0,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest; 1e-3 for a new host, 1e-4 with --from.")
    ] = None,
    tokens_per_batch: Annotated[int, typer.Option(help="Tokens in a step.")] = 4096,
    length: Annotated[int, typer.Option(help="The most tokens in a row of text.")] = 128,
    text_column: Annotated[
        str | None, typer.Option(help="Of the texts; text or sentence if not given.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Of a new host; 128.")] = None,
    layers: Annotated[int | None, typer.Option(help="Of each stack of a new host; 4.")] = None,
    heads: Annotated[int | None, typer.Option(help="Of a new host; 4.")] = None,
    ffn: Annotated[
        int | None, typer.Option(help="Feed-forward width of a new host; 4 times its width.")
    ] = None,
    vocabulary: Annotated[
        int | None, typer.Option(help="The most tokens of a new host's tokenizer; 8000.")
    ] = None,
    cased: Annotated[
        bool, typer.Option("--cased", help="A new host's tokenizer keeps upper case letters.")
    ] = False,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a host from text: a new one, or another's continuation.

    It learns to fill gaps (T5), to name hidden tokens (encoders) or the next token (decoders), or
    what a teacher makes of the text (encoders).
    """
    from peftport.cli.arguments import device_named
    from peftport.cli.progress import Steps
    from peftport.hosts.fingerprint import fingerprint
    from peftport.hosts.pretrain import Settings, pretrain
    from peftport.hosts.source import geometry_in

    settings = Settings(steps, seed, learning_rate, length, tokens_per_batch)
    sizes = _sizes(width=width, layers=layers, heads=heads, ffn=ffn, vocabulary=vocabulary)
    device = device_named(device)
    say("Reading the text ...")
    with Steps(steps) as progress:
        made = pretrain(
            out,
            text,
            settings,
            family=family,
            origin=origin,
            teacher=teacher,
            sizes=sizes,
            cased=cased,
            text_column=text_column,
            device=device,
            progress=progress.show,
        )
    geometry = geometry_in(out, str(out))
    record = {
        "host": str(out),
        "kind": geometry.kind,
        **geometry.record(),
        "fingerprint": fingerprint(out),
        **made.record,
        "final_loss": made.record["losses"][-1][1],
    }
    show(record, _pretrained_text(record), as_json)


def _sizes(**given: int | None) -> Any:
    """The sizes of a new host, None when none is given."""
    from peftport.hosts.scratch import Sizes

    asked = {name: value for name, value in given.items() if value is not None}
    if "width" in asked:
        asked.setdefault("ffn", 4 * asked["width"])
    return Sizes(**asked) if asked else None


def _pretrained_text(record: dict[str, Any]) -> str:
    origin = f"from {record['from']['name'] if record['from'] else 'nothing'}"
    if "teacher" in record:
        origin = f"taught by {record['teacher']['name']}"
    first, last = record["losses"][0], record["losses"][-1]
    return "\n".join(
        [
            f"{record['family']} {origin}, {record['steps']} steps of {record['objective']}: "
            f"{record['host']}",
            f"loss {first[1]:.3f} up to step {first[0]}, {last[1]:.3f} at the end",
            f"fingerprint {record['fingerprint']}",
        ]
    )


def _provenance(folder: Path) -> Any:
    from peftport.hosts.genealogy import record_of

    return record_of(folder) or None


def _families_text(found: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"{each['family']:<11} {each['kind']:<16} {each['models']}"
        + "".join(f"\n            no {what}: {why}" for what, why in each["refused"].items())
        for each in found
    )


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

"""`peftport hosts`: list, describe, pretrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from peftport.cli.arguments import Device, Precision
from peftport.cli.output import AsJson, say, show
from peftport.cli.renamed import Command

app = typer.Typer(help="List, describe and pretrain hosts.", no_args_is_help=True)


@app.command("list")
def list_hosts(as_json: AsJson = False) -> None:
    """List the lab's hosts and the model families that can be hosts."""
    import peftport as pp

    show(pp.list_hosts(), as_json)


@app.command("families")
def list_families(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="As the page docs/families.md.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say of each family of hosts which models are of it, and what can be made for them."""
    import peftport as pp

    found = pp.list_families()
    if markdown:
        typer.echo(found.page())
    else:
        show(found, as_json)


@app.command()
def describe(
    host: Annotated[str, typer.Argument(help="A hub name, a folder, or lab:NAME.")],
    as_json: AsJson = False,
) -> None:
    """Say of a host its geometry, its insertion points and the fingerprint of its weights and
    settings."""
    import peftport as pp

    show(pp.describe_host(host), as_json)


@app.command(cls=Command)
def pretrain(
    texts: Annotated[
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
    precision: Precision = "fp32",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a host from text: a new one, or another's continuation.

    It learns to fill gaps (T5), to name hidden tokens (encoders) or the next token (decoders), or
    what a teacher makes of the text (encoders).
    """
    import peftport as pp
    from peftport.cli.progress import StepProgress

    given = {
        "width": width,
        "layers": layers,
        "heads": heads,
        "ffn": ffn,
        "vocabulary": vocabulary,
    }
    say("Reading the text ...")
    with StepProgress(steps) as progress:
        made = pp.pretrain_host(
            out,
            texts,
            steps,
            family=family,
            origin=origin,
            teacher=teacher,
            seed=seed,
            learning_rate=learning_rate,
            tokens_per_batch=tokens_per_batch,
            length=length,
            text_column=text_column,
            sizes={name: value for name, value in given.items() if value is not None},
            cased=cased,
            precision=precision,
            device=device,
            progress=progress.show,
        )
    show(made, as_json)

"""`peftport test`: measure a module on a host."""

from __future__ import annotations

from typing import Annotated

import typer

from peftport.cli.arguments import (
    Device,
    HostName,
    LabelWords,
    LimitTest,
    ModuleFolder,
    TaskName,
    load_on,
)
from peftport.cli.modules import FromHost, NoPickle, made_for, with_task
from peftport.cli.output import AsJson, figures_text, say, show


def test(
    module: ModuleFolder,
    host: HostName,
    task: TaskName,
    limit_test: LimitTest = None,
    label_words: LabelWords = None,
    device: Device = None,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    to_card: Annotated[
        bool, typer.Option("--to-card", help="Add the figures to the README in MODULE.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Test a module on a host, on the test split."""
    from peftport.errors import BadInput
    from peftport.hosts import geometry_by_name
    from peftport.modules import load_module
    from peftport.modules.card import add_figures
    from peftport.tasks import encode, encode_unlabelled
    from peftport.techniques import technique
    from peftport.training import evaluate_one, readout_of

    loaded = load_module(module, from_host=from_host, pickles=not no_pickle)
    receiver = geometry_by_name(host)
    if loaded.geometry != receiver:
        raise BadInput(
            f"module {module} is made for {loaded.record.host.name} "
            f"({_size(loaded.geometry)}), host {host} is {_size(receiver)}: port it first, with "
            f"`peftport port {module} --to {host}`."
        )
    loaded, data = with_task(loaded, task, label_words, limit_test)
    there = load_on(host, device)
    same = made_for(loaded.record, there)
    if same is None:
        say(f"notice: {loaded.record.host.name} is not at hand to compare {host} with.")
    elif not same:
        say(
            f"notice: {module} was made for {loaded.record.host.name}, whose weights are not "
            f"those of {host}: this tests a plain copy."
        )
    figures = evaluate_one(
        there,
        technique(loaded.technique),
        loaded.config,
        loaded.tensors,
        encode(there.tokenizer, data, "test", there.geometry.kind),
        readout_of(there, data),
        encode_unlabelled(there.tokenizer, data, there.geometry.kind),
    ).figures
    if to_card:
        add_figures(module, {"condition": "module", "host": host, "task": data.name, **figures})
    show(
        {
            "module": str(module),
            "technique": loaded.technique,
            "host": host,
            "made_for_this_host": same,
            "task": data.name,
            **figures,
        },
        f"{loaded.technique} {module} on {host}, {data.name}: {figures_text(figures)}",
        as_json,
    )


def _size(geometry: object) -> str:
    record = geometry.record()  # type: ignore[attr-defined]
    stacks = ", ".join(f"{count} {name} layers" for name, count in record["stacks"].items())
    return f"{record['family']}, width {record['width']}, {stacks}"

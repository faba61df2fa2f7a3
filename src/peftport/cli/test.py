"""`peftport test`: measure a module on a host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from peftport.cli.arguments import (
    Device,
    HostName,
    LimitTest,
    ModuleFolder,
    Precision,
    TaskName,
    load_on,
)
from peftport.cli.modules import FromHost, NoPickle, made_for, with_task
from peftport.cli.output import AsJson, figures_text, say, show
from peftport.cli.reading import LabelWords, Template, Told, informed, task_for, told
from peftport.cli.suggestions import STEPS, Options, method_for, port_command
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.hosts import Geometry
    from peftport.modules import Module


def test(
    module: ModuleFolder,
    host: HostName,
    task: TaskName,
    limit_test: LimitTest = None,
    label_words: LabelWords = None,
    template: Template = None,
    device: Device = None,
    precision: Precision = "fp32",
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    to_card: Annotated[
        bool, typer.Option("--to-card", help="Add the figures to the README in MODULE.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Test a module on a host, on the test split."""
    from peftport.hosts import geometry_by_name
    from peftport.modules import load_module
    from peftport.modules.card import CARD, add_figures
    from peftport.places import require_writable
    from peftport.tasks import encode, encode_unlabelled
    from peftport.techniques import technique
    from peftport.techniques.embeddings import replaced, without_embeddings
    from peftport.training import evaluate_one, readout_of

    if to_card:
        require_writable(module / CARD)
    loaded = load_module(module, from_host=from_host, pickles=not no_pickle)
    receiver, said = geometry_by_name(host), told(label_words, template)
    if loaded.geometry != receiver:
        given = {
            "--from-host": from_host,
            "--label-words": label_words,
            "--template": template,
            "--no-pickle": no_pickle,
        }
        raise _made_for_another(module, loaded, host, receiver, task, said, given)
    loaded, data = with_task(loaded, module, task, said, limit_test)
    there = load_on(host, device, precision)
    same = made_for(loaded.record, there)
    if same is None:
        say(f"notice: {loaded.record.host.name} is not at hand to compare {host} with.")
    elif not same:
        say(
            f"notice: {module} was made for {loaded.record.host.name}, whose weights are not "
            f"those of {host}: this tests a plain copy."
        )
    with replaced(there, loaded.config, loaded.tensors):
        figures = evaluate_one(
            there,
            technique(loaded.technique),
            loaded.config,
            without_embeddings(loaded.tensors),
            encode(there.tokenizer, data, "test", there.geometry.kind),
            readout_of(there, data, loaded.tensors),
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


def _made_for_another(
    module: Path,
    loaded: Module,
    host: str,
    receiver: Geometry,
    task: str,
    said: Told,
    given: Options,
) -> BadInput:
    """The refusal of a host of another geometry, with a port that would do: `given` are the
    options that both commands have."""
    data = task_for(loaded.record, task, said)
    record = informed(loaded.record, said, data)
    shapes = {name: tuple(tensor.shape) for name, tensor in loaded.tensors.items()}
    method = method_for(record, shapes, receiver, data)
    headless = receiver.kind == "encoder" and not loaded.classes and method != "distill"
    options = {**given, "--steps": str(STEPS) if headless else None}
    advice = (
        f"port it first, with `{port_command(module, host, task, method, options)}`."
        if method
        else f"no method can port it with what is at hand; see `peftport check {module} --to "
        f"{host}`, and say with --from-host where its own host is."
    )
    return BadInput(
        f"module {module} is made for {loaded.record.host.name} ({_size(loaded.geometry)}), host "
        f"{host} is {_size(receiver)}: {advice}"
    )


def _size(geometry: Geometry) -> str:
    record = geometry.record()
    stacks = ", ".join(f"{count} {name} layers" for name, count in record["stacks"].items())
    return f"{record['family']}, width {record['width']}, {stacks}"

"""`peftport test`: measure a module on a host."""

from __future__ import annotations

from peftport.cli.arguments import (
    Device,
    HostName,
    LabelWords,
    LimitTest,
    ModuleFolder,
    TaskName,
    load_on,
    task_for_module,
)
from peftport.cli.output import AsJson, figures_text, say, show


def test(
    module: ModuleFolder,
    host: HostName,
    task: TaskName,
    limit_test: LimitTest = None,
    label_words: LabelWords = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Test a module on a host, on the test split."""
    from peftport.errors import BadInput
    from peftport.hosts import geometry_by_name
    from peftport.modules import load_module
    from peftport.tasks import encode
    from peftport.techniques import technique
    from peftport.training import evaluate_one, readout_of

    loaded = load_module(module)
    receiver = geometry_by_name(host)
    if loaded.geometry != receiver:
        raise BadInput(
            f"module {module} is made for {loaded.record.host.name} "
            f"({_size(loaded.geometry)}), host {host} is {_size(receiver)}: port it first, with "
            f"`peftport port {module} --to {host}`."
        )
    data = task_for_module(task, loaded.record.task, label_words, limit_test)
    there = load_on(host, device)
    same = there.fingerprint == loaded.record.host.fingerprint
    if not same:
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
    ).figures()
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

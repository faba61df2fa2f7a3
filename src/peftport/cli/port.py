"""`peftport port`: rewrite a module for another host, and train it on there if asked to."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.cli.arguments import Device, ModuleFolder, ToHost, device_named, load_on
from peftport.cli.means import (
    TEXTS,
    Asked,
    Layers,
    Set,
    TextColumn,
    TextCount,
    TextSource,
    means_for,
    options_of,
)
from peftport.cli.modules import Format, FromHost, NoPickle
from peftport.cli.output import AsJson, figures_text, say, show
from peftport.cli.reading import (
    LabelWords,
    Template,
    informed,
    notice_unsaid,
    require_known_words,
    task_for,
    told,
)
from peftport.errors import BadInput

if TYPE_CHECKING:
    from peftport.porting import Ported
    from peftport.training.module import Trained


def port(
    module: ModuleFolder,
    to: ToHost,
    out: Annotated[Path, typer.Option(help="A new folder for the ported module.")],
    method: Annotated[str, typer.Option(help="A port method; see `peftport methods`.")] = "copy",
    set_: Set = None,
    layers: Layers = None,
    text: TextSource = None,
    texts: TextCount = TEXTS,
    text_column: TextColumn = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="A task to train the ported module on, as `peftport train` takes it. What MODULE "
            "leaves unsaid of texts and words is taken from it.",
        ),
    ] = None,
    steps: Annotated[
        int, typer.Option(min=0, help="Training steps on the task after the port; 0 is none.")
    ] = 0,
    learning_rate: Annotated[
        float | None, typer.Option(min=0.0, help="Of these steps; the module's own if not given.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a training step.")] = 16,
    limit_train: Annotated[
        int | None, typer.Option(min=1, help="Train on at most so many texts.")
    ] = None,
    label_words: LabelWords = None,
    template: Template = None,
    seed: Annotated[
        int, typer.Option(help="Of what the method draws, of the texts, of the training's order.")
    ] = 0,
    device: Device = None,
    rank: Annotated[
        int | None, typer.Option(min=1, help="Cut a LoRA to this rank; its account says the loss.")
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(help="Cut a LoRA to the smallest rank that keeps this share of changes."),
    ] = None,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Go on though tensors are left out.")
    ] = False,
    format: Format = None,
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Port a module to another host and write the account of what became of each tensor."""
    from peftport.hosts import find_host
    from peftport.hosts.fingerprint import fingerprint
    from peftport.hosts.source import geometry_in
    from peftport.modules import HostName, formats, load_module
    from peftport.places import require_new
    from peftport.porting import port as rewrite
    from peftport.porting import port_method
    from peftport.porting.port import needs_of

    require_new(out)
    options, made = options_of(set_, layers), port_method(method)
    made.configure(options)
    donor = load_module(module, from_host=from_host, pickles=not no_pickle, partial=allow_partial)
    written = formats.FORMATS.require(format or formats.format_of(module))
    if steps and task is None:
        raise BadInput(f"--steps {steps} needs a --task to train on.")
    said = told(label_words, template)
    data = task_for(donor.record, task, said, limit_train=limit_train) if task else None
    donor = replace(donor, record=informed(donor.record, said, data))
    folder, on = find_host(to).files(), device_named(device)
    name, geometry = HostName(name=to, fingerprint=fingerprint(folder)), geometry_in(folder, to)
    shapes = {key: tuple(tensor.shape) for key, tensor in donor.tensors.items()}
    needs = needs_of(made, made.request(donor.record, shapes, geometry, options))
    require_known_words(donor.record, geometry, folder, to)
    if steps or "texts" in needs:
        notice_unsaid(donor.record, module)
    begun = time.perf_counter()
    ported = rewrite(
        donor,
        geometry,
        name,
        method,
        options=options,
        seed=seed,
        allow_partial=allow_partial,
        rank=rank,
        energy=energy,
        means=means_for(needs, donor.record, to, on, Asked(text, texts, text_column), seed, data),
    )
    seconds = time.perf_counter() - begun
    trained = None
    if steps:
        trained = _train(ported, to, on, data, steps, seed, learning_rate, batch_size)
    finished = trained.module if trained else ported.module
    figures = [_figures(trained, to)] if trained else []
    formats.save(finished, out, written, ported.account.record(), figures)
    show(
        _record(ported, trained, out, written, seconds),
        _text(ported, trained, out, seconds),
        as_json,
    )


def _train(
    ported: Ported,
    to: str,
    device: str,
    task: Any,
    steps: int,
    seed: int,
    learning_rate: float | None,
    batch_size: int,
) -> Trained:
    from peftport.training import Settings
    from peftport.training.module import train_further

    return train_further(
        load_on(to, device),
        task,
        ported.module,
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        settings=Settings(batch_size=batch_size),
        progress=lambda step, loss: say(f"step {step:>6} of {steps}  loss {loss:.4f}"),
    )


def _figures(trained: Trained, to: str) -> dict[str, Any]:
    """The row of the module's card."""
    told = (trained.module.record.port or {})["trained"]
    condition = f"ported, {told['steps']} steps, validation split"
    figures = trained.validation.figures
    return {"condition": condition, "host": to, "task": told["task"], **figures}


def _record(
    ported: Ported, trained: Trained | None, out: Path, format: str, seconds: float
) -> dict[str, Any]:
    record = ported.module.record
    told = record.port or {}
    return {
        "module": str(out),
        "format": format,
        "technique": record.technique,
        "from": told["from"],
        "to": record.host.model_dump(),
        "seed": told["seed"],
        "options": told["options"],
        "texts": told.get("texts"),
        **{key: told[key] for key in ("rank", "rank_loses") if key in told},
        "seconds": seconds,
        **ported.account.record(),
        "trained": (trained.module.record.port or {})["trained"] if trained else None,
        "validation": dict(trained.validation.figures) if trained else None,
    }


def _text(ported: Ported, trained: Trained | None, out: Path, seconds: float) -> str:
    record, counts = ported.module.record, ported.account.counts()
    told = record.port or {}
    counted = ", ".join(f"{n} {action}" for action, n in counts.items() if n)
    lines = [
        f"{record.technique} from {told['from']['name']} to {record.host.name} by "
        f"{ported.account.method}, {seconds:.1f} s: {out}",
        f"tensors: {counted}; each one in {out / 'account.json'}",
    ]
    if "rank_loses" in told:
        lost = told["rank_loses"]
        most = max(lost, key=lost.get)
        lines.append(f"cut to rank {told['rank']}: at most {lost[most]:.2%} is lost, at {most}")
    if told.get("texts"):
        lines.append(f"looked at {told['texts']['count']} texts of {told['texts']['source']}")
    if trained:
        then = (trained.module.record.port or {})["trained"]
        lines.append(
            f"then {then['steps']} steps on {then['task']}; validation: "
            f"{figures_text(trained.validation.figures)}"
        )
    return "\n".join(lines)

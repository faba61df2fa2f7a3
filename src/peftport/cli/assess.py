"""`peftport assess`: what survives of modules on one host, by one method or several, beside their
controls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from peftport.cli.arguments import (
    Device,
    LimitTest,
    Precision,
    TaskName,
    ToHost,
    device_named,
    load_on,
)
from peftport.cli.assessment import assessment_text, record_of
from peftport.cli.means import TEXTS, Asked, TextColumn, TextCount, TextSource, means_for
from peftport.cli.modules import FromHost, NoPickle, made_for, with_task
from peftport.cli.output import AsJson, parse_numbers, say, show
from peftport.cli.reading import LabelWords, Template, told
from peftport.errors import BadInput
from peftport.hosts.fingerprint import of_weights
from peftport.hosts.genealogy import UNSTATED, Relation, folder_at_hand, relation_of, settled

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.modules import Module, Record

SEEDS = 3
GATE_CLOSED = 3
"""Exit code of an assessment that --fail-under does not let pass."""


def assess(
    modules: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODULE",
            help="A module's folder; or several of one kind, each of which then takes a seed.",
        ),
    ],
    to: ToHost,
    task: TaskName,
    methods: Annotated[
        str,
        typer.Option(
            help="Port methods, joined by commas; with options as in distill:steps=100. See "
            "`peftport methods`."
        ),
    ] = "copy",
    text: TextSource = None,
    texts: TextCount = TEXTS,
    text_column: TextColumn = None,
    budgets: Annotated[
        str, typer.Option(help="Training steps on the receiving host, joined by commas.")
    ] = "0,10,100",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="How many: 3 if not given; of several modules, one for each."),
    ] = None,
    native_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Steps of a native module; the module's own if not given."),
    ] = None,
    learning_rates: Annotated[
        str | None,
        typer.Option(
            help="One for all conditions, or several, of which each condition takes the best on "
            "the validation split. The module's own if not given.",
        ),
    ] = None,
    relation: Annotated[
        Relation | None,
        typer.Option(help="How the hosts stand to each other, if their records do not say it."),
    ] = None,
    limit_test: LimitTest = None,
    label_words: LabelWords = None,
    template: Template = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            metavar="RECOVERY",
            help=f"End with exit code {GATE_CLOSED} unless a method's corrected recovery at the "
            "smallest budget is at least this: a gate for CI.",
        ),
    ] = None,
    device: Device = None,
    precision: Precision = "fp32",
    from_host: FromHost = None,
    no_pickle: NoPickle = False,
    as_json: AsJson = False,
) -> None:
    """Show what survives of MODULE on a host, beside its controls, and say what to do."""
    import pandas as pd

    from peftport.porting.methods import way
    from peftport.reports.results import Results
    from peftport.studies import ports
    from peftport.studies.assess import Assessment
    from peftport.training import Settings

    ways = [way(written.strip()) for written in methods.split(",") if written.strip()]
    _require_ports(ways)
    steps = parse_numbers(budgets, "--budgets", int)
    donors = _donors(modules, from_host, not no_pickle)
    numbers = _seeds(donors, seeds)
    trained = donors[0].record.training
    ports.warm()
    host = load_on(to, device, precision)
    said = told(label_words, template)
    read = [
        with_task(donor, folder, task, said, limit_test)
        for donor, folder in zip(donors, modules, strict=True)
    ]
    donors, data = [donor for donor, _ in read], read[0][1]
    needs = frozenset[Any]().union(*(each.requires for each in ways))
    asked = Asked(text, texts, text_column)
    means = means_for(needs, donors[0].record, to, device_named(device), asked, 0, data)
    rates = (
        parse_numbers(learning_rates, "--learning-rates", float)
        if learning_rates
        else [trained.get("learning_rate", 3e-3)]
    )
    assessment = Assessment(
        modules=[donors[place % len(donors)] for place in range(len(numbers))],
        host=host,
        task=data,
        relation=_relation(donors[0].record, host, relation),
        budgets=steps,
        seeds=numbers,
        native_steps=native_steps or max(trained.get("steps", 0), *steps, 1),
        rates=rates,
        settings=Settings(batch_size=trained.get("batch_size", 16), precision=precision),
        ways=ways,
        texts=means.texts if means else (),
        source=means.source if means else "",
        origin=_origin(donors[0].record, device_named(device)),
        progress=say,
    )
    found = assessment.run()
    predictions = {run: scored.predictions for run, scored in found.scored.items()}
    facts = {"study": "assess"}
    results = Results(pd.DataFrame(found.rows), predictions, found.gold, facts, found.scored)
    record = record_of(results, assessment, found, len(donors), fail_under)
    show(record, assessment_text(record), as_json)
    if record["gate"] and not record["gate"]["passed"]:
        raise typer.Exit(GATE_CLOSED)


def _origin(record: Record, device: str) -> Callable[[], Host] | None:
    """Loads the modules' own host; None, with a notice, where it is not at hand."""
    from peftport.porting.means import origin_side

    try:
        return origin_side(record.host, device).load
    except BadInput as error:
        say(f"notice: how far ports agree with their donors is not measured: {error}")
        return None


def _require_ports(ways: Sequence[Any]) -> None:
    """Raise BadInput unless there are methods, each once, and no control among them."""
    written = [each.written for each in ways]
    if not written or len(set(written)) < len(written):
        raise BadInput(f"--methods {','.join(written)!r}: expected methods, each of them once.")
    for each in ways:
        if each.method.control:
            raise BadInput(
                f"--methods: {each.name} is a control; controls stand beside every port anyway."
            )


def _donors(folders: Sequence[Path], from_host: str | None, pickles: bool) -> list[Module]:
    """Load modules; BadInput names the first that is of another kind than the one before it."""
    from peftport.modules import load_module

    donors = [load_module(folder, from_host=from_host, pickles=pickles) for folder in folders]
    kinds = [_kind(donor.record) for donor in donors]
    for folder, kind in zip(folders[1:], kinds[1:], strict=True):
        for what, here in kind.items():
            if here != kinds[0][what]:
                raise BadInput(
                    f"{folder} and {folders[0]} are assessed together and differ in their {what}: "
                    f"{here} and {kinds[0][what]}. Assess them one by one."
                )
    return donors


def _kind(record: Record) -> dict[str, Any]:
    """What modules that stand in one table must share."""
    return {
        "technique": record.technique,
        "configuration": record.config,
        "host": of_weights(record.host.fingerprint) or record.host.name,
        "task": record.task["name"],
        "labels": record.task["labels"],
    }


def _seeds(donors: Sequence[Module], asked: int | None) -> range:
    if len(donors) > 1 and asked not in (None, len(donors)):
        raise BadInput(f"--seeds {asked}: each of the {len(donors)} modules has one seed.")
    return range(len(donors) if len(donors) > 1 else asked or SEEDS)


def _relation(record: Record, host: Host, stated: Relation | None) -> str:
    """How the module's host is related to another: as stated, or as far as their records tell."""
    name, mark = record.host.name, record.host.fingerprint
    if not mark and made_for(record, host):
        mark = host.fingerprint
    found = relation_of(folder_at_hand(name), mark, host.folder)
    return settled(stated, found, f"--relation: {name} -> {host.name}") or UNSTATED

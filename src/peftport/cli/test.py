"""`peftport test`: measure a module on a host."""

from __future__ import annotations

from typing import Annotated

import typer

from peftport.cli.arguments import (
    Device,
    FromHost,
    HostName,
    Kind,
    LabelColumn,
    LabelWords,
    LimitTest,
    MaxAnswer,
    ModuleFolder,
    NoPickle,
    Precision,
    Scorer,
    System,
    TaskName,
    Template,
    TextColumn,
)
from peftport.cli.output import AsJson, show


def test(
    module: ModuleFolder,
    host: HostName,
    task: TaskName,
    limit_test: LimitTest = None,
    label_words: LabelWords = None,
    template: Template = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    kind: Kind = None,
    system: System = None,
    max_answer: MaxAnswer = None,
    scorer: Scorer = None,
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
    import peftport as pp

    found = pp.test(
        pp.load_module(module, from_host=from_host, pickles=not no_pickle),
        host,
        task,
        limit_test=limit_test,
        label_words=label_words,
        template=template,
        text_column=text_column,
        label_column=label_column,
        kind=kind,
        system=system,
        max_answer=max_answer,
        scorer=scorer,
        device=device,
        precision=precision,
        to_card=to_card,
    )
    show(found, as_json)

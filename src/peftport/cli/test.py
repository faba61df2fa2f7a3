"""`peftport test`: measure a module on a host, or the bare host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
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
    NoPickle,
    OptionalTask,
    Precision,
    Scorer,
    System,
    Template,
    TextColumn,
)
from peftport.cli.output import AsJson, show
from peftport.cli.progress import Shares


def test(
    host: HostName,
    module: Annotated[
        str | None,
        typer.Argument(metavar="MODULE", help="A module's folder; without one the bare host."),
    ] = None,
    task: OptionalTask = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="bare|MODULE",
            help="Set this beside MODULE, on the same rows: the host without a module, or another "
            "module.",
        ),
    ] = None,
    against_host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Where that is tested; if not given a module is on HOST if it is made for it, "
            "else on its own host.",
        ),
    ] = None,
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
    lm_eval: Annotated[
        str | None,
        typer.Option(
            metavar="TASK[,TASK]",
            help="In place of --task: tasks of lm-evaluation-harness; needs peftport[lm-eval].",
        ),
    ] = None,
    lm_eval_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder with lm-eval task files of your own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Test MODULE on a host, on the test split; without MODULE the bare host."""
    import peftport as pp

    loaded = None
    if module is not None:
        loaded = pp.load_module(module, from_host=from_host, pickles=not no_pickle)
    else:
        of_modules = {
            "--from-host": from_host,
            "--no-pickle": no_pickle or None,
            "--against": against,
            "--against-host": against_host,
            "--to-card": to_card or None,
            "--lm-eval": lm_eval,
            "--lm-eval-path": lm_eval_path,
        }
        _refuse(of_modules, "not without MODULE")
    if task is None:
        if lm_eval is None:
            raise pp.BadInput("name what to test on, with --task or with --lm-eval.")
        _refuse(
            {
                "--label-words": label_words,
                "--template": template,
                "--text-column": text_column,
                "--label-column": label_column,
                "--kind": kind,
                "--system": system,
                "--max-answer": max_answer,
                "--scorer": scorer,
                "--to-card": to_card or None,
                "--against": against,
                "--against-host": against_host,
            },
            "not with --lm-eval, whose tasks say it themselves",
        )
        assert loaded is not None
        told = pp.lm_eval(
            loaded,
            host,
            lm_eval,
            folder=lm_eval_path,
            limit_test=limit_test,
            device=device,
            precision=precision,
        )
        show(told, as_json)
        return
    if lm_eval is not None:
        raise pp.BadInput("--task and --lm-eval: name one of them.")
    _refuse({"--lm-eval-path": lm_eval_path}, "only with --lm-eval")
    beside = (
        against if against in (None, "bare") else pp.load_module(against, pickles=not no_pickle)
    )
    with Shares() as shown:
        found = pp.test(
            loaded,
            host,
            task,
            against=beside,
            against_host=against_host,
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
            portion=shown.show,
        )
    show(found, as_json)


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Refuse options that mean nothing here."""
    from peftport.errors import BadInput

    named = [name for name, value in given.items() if value is not None]
    if named:
        raise BadInput(f"{', '.join(named)}: {why}.")

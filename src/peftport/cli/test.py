"""`peftport test`: measure a module on a host, or the bare host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from peftport.cli.arguments import (
    Device,
    FromHost,
    HostName,
    LimitTest,
    NoPickle,
    OptionalTask,
    PrecisionChoice,
)
from peftport.cli.output import AsJson, show
from peftport.cli.progress import Shares
from peftport.cli.reading import ScoreOptions, gathered


@gathered
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
    *,
    reading: ScoreOptions,
    device: Device = None,
    precision: PrecisionChoice = "auto",
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
    from peftport.api.test import BARE

    beside: dict[str, Any] = {"against": against, "against_host": against_host, "to_card": to_card}
    on: dict[str, Any] = {"limit_test": limit_test, "device": device, "precision": precision}
    harness = {"lm_eval": lm_eval, "lm_eval_path": lm_eval_path}
    if module is None:
        of_modules = {"from_host": from_host, "no_pickle": no_pickle, **beside, **harness}
        _refuse(of_modules, "not without MODULE")
    if (task is None) == (lm_eval is None):
        raise pp.BadInput("name what to test on, with one of --task and --lm-eval.")
    loaded = None
    if module is not None:
        loaded = pp.load_module(module, from_host=from_host, pickles=not no_pickle)
    if loaded is not None and lm_eval is not None:
        _refuse({**reading, **beside}, "not with --lm-eval, whose tasks say it themselves")
        show(pp.lm_eval(loaded, host, lm_eval, folder=lm_eval_path, **on), as_json)
        return
    _refuse({"lm_eval_path": lm_eval_path}, "only with --lm-eval")
    if against is not None and against != BARE:
        beside["against"] = pp.ModuleHandle(Path(against), pickles=not no_pickle)
    assert task is not None
    with Shares() as shown:
        found = pp.test(loaded, host, task, **reading, **beside, **on, portion=shown.show)
    show(found, as_json)


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Refuse options that mean nothing here, by the names of their parameters."""
    from peftport.errors import BadInput

    named = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if named:
        raise BadInput(f"{', '.join(named)}: {why}.")

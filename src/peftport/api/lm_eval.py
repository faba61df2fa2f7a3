"""A module measured on tasks of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.binding import noticed_host_of_test
from peftport.api.hosts import HostHandle, as_host
from peftport.api.modules import as_handle
from peftport.api.result import Result
from peftport.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from peftport.api.modules import ModuleLike
    from peftport.hosts.precision import PrecisionChoice
    from peftport.integrations.lm_eval import Figure


@dataclass(frozen=True)
class LmEvaluated(Result):
    """A module's figures on tasks of lm-evaluation-harness, beside those of the bare host.

    Attributes:
        module: its folder. technique: that made it. host: a name.
        made_for_this_host: whether the module is made for the host's very weights; None where
            that is not known.
        figures: one mapping for each task, metric and filter, as the harness names them: `task`,
            `metric`, `filter`, `better` ("higher", "lower" or None), `n_test`, `bare` and
            `module` with their standard errors `bare_error` and `module_error`, None where the
            harness has none.
    """

    module: str
    technique: str
    host: str
    made_for_this_host: bool | None
    figures: tuple[Mapping[str, Any], ...]

    def frame(self) -> pd.DataFrame:
        """One row for each task, metric and filter."""
        import pandas as pd

        return pd.DataFrame(list(self.figures))

    def to_dict(self) -> dict[str, Any]:
        """Everything."""
        return {**asdict(self), "figures": [dict(each) for each in self.figures]}

    def __str__(self) -> str:
        head = ("task", "metric", "better", "bare host", "module", "n")
        rows = [
            (
                each["task"],
                _named(each["metric"], each["filter"]),
                each["better"] or "",
                _with_error(each["bare"], each["bare_error"]),
                _with_error(each["module"], each["module_error"]),
                str(each["n_test"]),
            )
            for each in self.figures
        ]
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in (head, *rows)
        ]
        return "\n".join([f"{self.technique} {self.module} on {self.host}, lm-eval:", *lines])

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False))


def lm_eval(
    module: ModuleLike,
    host: str | Path | HostHandle,
    tasks: str | Sequence[str],
    *,
    folder: str | Path | None = None,
    limit_test: int | None = None,
    device: str | None = None,
    precision: PrecisionChoice = "auto",
) -> LmEvaluated:
    """Test a module on tasks of lm-evaluation-harness, and the bare host beside it.

    The host with the module attached is a model of the harness
    (`peftport.integrations.lm_eval.as_model`). It needs the extra `peftport[lm-eval]`; tasks whose
    data are not local need the network.

    Args:
        module: a folder, or what `load_module`, `port` or `train` gave.
        host: a name, or what `load_host` gave, which then says device and precision.
        tasks: names of the harness's tasks, groups or tags; a text is split at its commas.
        folder: with task files of one's own.
        limit_test: use at most so many examples of each task.
        device, precision: of a host that is given by name, as for `load_host`.

    Raises:
        BadInput: the harness is not installed, or knows no such task or cannot run it; the module
            is made for a host of another geometry, or answers with a head.

    >>> import peftport as pp
    >>> pp.lm_eval("modules/films", "lab:small", "no such task")
    Traceback (most recent call last):
    ...
    peftport.errors.BadInput: lm-eval has no task 'no such task'. ...
    """
    from peftport.integrations.lm_eval import evaluated
    from peftport.kind import kind_named
    from peftport.kinds.sequences import require_no_head
    from peftport.techniques import technique
    from peftport.techniques.base import stack_lanes
    from peftport.techniques.embeddings import attached

    names = [name.strip() for name in tasks.split(",")] if isinstance(tasks, str) else list(tasks)
    if not all(names) or not names:
        raise BadInput("--lm-eval names no task: expected TASK or TASK,TASK.")
    handle = as_handle(module)
    host = as_host(host, device, precision)
    loaded = handle.module
    if loaded.geometry != host.geometry:
        raise BadInput(
            f"module {handle.called} is made for {loaded.record.host.name}, and host {host.name} "
            f"is of another geometry: port it first; `peftport check {handle.called} --host "
            f"{host.name}` says how."
        )
    there = host.loaded
    require_no_head(kind_named("completion"), there, loaded.tensors)
    same = noticed_host_of_test(handle, host)
    given: dict[str, Any] = {
        "folder": None if folder is None else Path(folder).expanduser(),
        "limit": limit_test,
    }
    bare = evaluated(there, names, **given)
    lane = stack_lanes([loaded.tensors])
    lanes = {name: tensor.to(there.device) for name, tensor in lane.items()}
    with attached(there, technique(loaded.technique), loaded.config, lanes):
        with_module = evaluated(there, names, **given)
    return LmEvaluated(
        handle.called,
        loaded.technique,
        host.name,
        same,
        tuple(_beside(one, other) for one, other in zip(bare, with_module, strict=True)),
    )


def _beside(bare: Figure, module: Figure) -> dict[str, Any]:
    return {
        "task": bare.task,
        "metric": bare.metric,
        "filter": bare.filter,
        "better": bare.better,
        "n_test": bare.examples,
        "bare": bare.value,
        "bare_error": bare.error,
        "module": module.value,
        "module_error": module.error,
    }


def _named(metric: str, kept: str) -> str:
    return metric if kept == "none" else f"{metric}, {kept}"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" if error is None else f"{value:.4f} ± {error:.4f}"

"""A module is made: a technique trained on a host for a task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.hosts import HostHandle, as_host
from peftport.api.modules import ModuleHandle
from peftport.api.reading import plain_task, require_at_least, require_rates, require_seed, told
from peftport.api.result import Result
from peftport.errors import BadInput
from peftport.progress import Losses

if TYPE_CHECKING:
    import pandas as pd

    from peftport.hosts.precision import PrecisionChoice
    from peftport.training.module import Trained


_BYTES = 16
"""Of a parameter in training: itself, its gradient, and two moments of that."""


def silent(step: int, loss: float) -> None:
    """Shows nothing of a training."""


@dataclass(frozen=True)
class TrainedModule(Result):
    """A module that was trained.

    Attributes:
        module: the module.
        host: name of its host.
        task: name of its task.
        losses: on the way, as (step, mean loss in nats since the one before).
        validation: its figures on the validation split, by name.
    """

    module: ModuleHandle
    host: str
    task: str
    losses: tuple[tuple[int, float], ...]
    validation: Mapping[str, Any]

    def save(self, folder: str | Path, format: str | None = None) -> None:
        """Write the module's folder with its card; see `ModuleHandle.save`."""
        told = self.module.record.training
        row = {"condition": f"{told['steps']} steps, validation split", "host": self.host}
        figures = [{**row, "task": self.task, **self.validation}]
        self.module.save(folder, format, figures=figures)

    def push_to_hub(self, name: str, **options: Any) -> str:
        """Upload the module; see `ModuleHandle.push_to_hub`."""
        return self.module.push_to_hub(name, **options)

    def frame(self) -> pd.DataFrame:
        """The losses: columns `step` and `loss`."""
        import pandas as pd

        return pd.DataFrame(list(self.losses), columns=["step", "loss"])

    def to_dict(self) -> dict[str, Any]:
        """Configuration, provenance, the last loss and the figures on validation."""
        record = self.module.record
        return {
            "module": None if self.module.path is None else str(self.module.path),
            "technique": record.technique,
            "config": record.config,
            "host": record.host.model_dump(),
            "task": self.task,
            "seed": record.seed,
            "training": record.training,
            "parameters": sum(t.numel() for t in self.module.tensors.values()),
            "final_loss": self.losses[-1][1],
            "validation": dict(self.validation),
        }

    def __str__(self) -> str:
        from peftport.kind import kind_named
        from peftport.metrics import figures_text

        record = self.module.record
        metrics = kind_named(record.kind).metrics
        where = "" if self.module.path is None else f": {self.module.path}"
        return (
            f"{record.technique} on {self.host} for {self.task}, {record.training['steps']} "
            f"steps{where}\nvalidation: "
            f"{figures_text(self.validation, metrics)}"
        )


def train(
    host: str | Path | HostHandle,
    task: str,
    technique: str,
    *,
    out: str | Path | None = None,
    steps: int = 200,
    seed: int = 0,
    learning_rate: float | None = None,
    batch_size: int = 16,
    options: Mapping[str, Any] | None = None,
    label_words: str | tuple[str, ...] | None = None,
    template: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    kind: str | None = None,
    system: str | None = None,
    max_answer: int | None = None,
    scorer: str | None = None,
    limit_train: int | None = None,
    device: str | None = None,
    precision: PrecisionChoice = "auto",
    progress: Losses = silent,
) -> TrainedModule:
    """Train a module on a host for a task.

    Args:
        host: a name, or what `load_host` gave, which then says device and precision.
        task: a hub data set's name, a folder of files, a task YAML, or `lab:NAME`.
        technique: "adapter", "compacter", "lora" or "prefix".
        options: its options by name, such
            as `{"rank": 16}`; those of peft (`r`, `lora_alpha`) are understood.
        out: a new folder for the module, which is only kept in memory if not given.
        steps: of training, with `batch_size` texts each.
        seed: of the start and the data's order.
        learning_rate: the technique's own if not given.
        label_words, template, text_column, label_column: for data that do not say them.
        kind: "classification", "choice", "completion" or "language"; what the data's columns tell
            if not given. system: the system's turn of every chat. max_answer: the most tokens of
            an answer. scorer: "module:function" of what was written and the reference.
        limit_train: train on at most so many texts.
        device, precision: of a host that is given by name, as for `load_host`.
        progress: called about twenty times with the step and the mean loss (nats) since the last.

    Raises:
        BadInput: names what cannot be found or does not fit.
        RunFailed: the loss was not finite.

    >>> import peftport as pp
    >>> made = pp.train("lab:small", "lab:films", "lora", steps=2, options={"r": 4})
    >>> made.module.record.config["rank"], made.frame().columns.tolist()
    (4, ['step', 'loss'])
    """
    from peftport.modules.formats import OWN
    from peftport.places import require_new
    from peftport.techniques import technique as find_technique
    from peftport.training import TrainingSettings
    from peftport.training.module import train_module

    require_at_least(1, steps=steps, batch_size=batch_size, limit_train=limit_train)
    require_rates(learning_rate=learning_rate)
    require_seed(seed)
    if out is not None:
        require_new(Path(out))
    given = dict(options or {})
    find_technique(technique).configure(given)
    said = told(
        *(label_words, template, text_column, label_column),
        kind=kind,
        system=system,
        max_answer=max_answer,
        scorer=scorer,
    )
    data = plain_task(task, said, limit_train=limit_train)
    host = as_host(host, device, precision)
    _require_size(technique, given, host)
    trained: Trained = train_module(
        host.loaded,
        data,
        technique,
        given,
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        settings=TrainingSettings(batch_size=batch_size, precision=host.precision),
        progress=progress,
    )
    path = None if out is None else Path(out)
    made = TrainedModule(
        ModuleHandle(path, made=trained.module),
        host.name,
        data.name,
        trained.losses,
        trained.validation.figures,
    )
    if path is not None:
        made.save(path, OWN)
    return made


def _require_size(name: str, options: Mapping[str, Any], host: HostHandle) -> None:
    """Raise BadInput for a module that cannot be held while it is trained."""
    from peftport.porting.estimate import memory_at_hand
    from peftport.techniques import technique

    made, free = technique(name), memory_at_hand()
    shapes = made.shapes(made.configure(dict(options)), host.geometry)
    numbers = sum(map(prod, shapes.values()))
    if free is not None and _BYTES * numbers > free:
        raise BadInput(
            f"--technique {name}: with these options the module has {numbers:,} parameters on "
            f"{host.name}, and its training takes {_BYTES * numbers / 1e9:,.0f} GB or more; "
            f"{free / 1e9:.1f} GB are free. Give it a smaller size (--set)."
        )

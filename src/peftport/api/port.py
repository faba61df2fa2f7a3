"""A module rewritten for another host, and trained on there if asked to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.hosts import HostHandle, as_host, device_named
from peftport.api.means import TEXTS, Asked, TextSource
from peftport.api.modules import ModuleHandle, as_handle
from peftport.api.planned import PlannedPort, require_a_method
from peftport.api.reading import (
    Told,
    informed,
    notice_unsaid,
    require_at_least,
    require_rates,
    require_seed,
    task_for,
    told,
)
from peftport.api.result import Result
from peftport.api.suggestions import said_options
from peftport.api.train import silent
from peftport.errors import BadInput
from peftport.progress import Losses, Portion

if TYPE_CHECKING:
    import pandas as pd

    from peftport.api.modules import ModuleLike
    from peftport.api.verify import Verified
    from peftport.modules import Module
    from peftport.porting import Account
    from peftport.tasks import Task


@dataclass(frozen=True)
class Ported(Result):
    """A ported module, what became of its tensors, and what it does on its new host.

    Attributes:
        module: the ported module.
        format: that it was, or will be, written in.
        account: what became of every tensor.
        seconds: that the port took, without training.
        trained: how it was trained on after the port: `steps`, `learning_rate` and the like.
        validation: its figures after that, on the validation split.
        verified: what the folder does in the library it is meant for; None where there is no
            folder yet or nobody asked.
    """

    module: ModuleHandle
    format: str
    account: Account
    seconds: float
    trained: Mapping[str, Any] | None = None
    validation: Mapping[str, Any] | None = None
    verified: Verified | None = None

    @property
    def report(self) -> str:
        """Account, effect, and what it was fitted on, in words."""
        return str(self)

    def frame(self) -> pd.DataFrame:
        """The account: a row for each tensor."""
        import pandas as pd

        return pd.DataFrame(self.account.record()["tensors"])

    def save(self, folder: str | Path, format: str | None = None) -> None:
        """Write the module's folder with its account and card, whole or not at all.

        Args:
            format: "peftport", "peft" or "adapterhub"; `self.format` if not given.

        Raises:
            BadInput: the format cannot say what the module does, or `folder` exists already.
        """
        self.module.save(
            folder,
            format or self.format,
            account=self.account.record(),
            figures=self._measured(),
        )

    def push_to_hub(self, name: str, *, private: bool = False, format: str | None = None) -> str:
        """Upload the module with its account and card; as `ModuleHandle.push_to_hub`."""
        from peftport.modules.hub import push, push_saved

        if self.module.path is not None and format in (None, self.format):
            return push(self.module.path, name, private=private)
        return push_saved(lambda folder: self.save(folder, format), name, private=private)

    def to_dict(self) -> dict[str, Any]:
        """Account, method, texts and figures."""
        record, path = self.module.record, self.module.path
        told = record.port or {}
        return {
            "module": None if path is None else str(path),
            "format": self.format,
            "technique": record.technique,
            "from": told["from"],
            "to": record.host.model_dump(),
            "seed": told["seed"],
            "options": told["options"],
            "texts": told.get("texts"),
            **{key: told[key] for key in ("rank", "rank_loses") if key in told},
            "seconds": self.seconds,
            **self.account.record(),
            "trained": None if self.trained is None else dict(self.trained),
            "validation": None if self.validation is None else dict(self.validation),
            "verified": None if self.verified is None else self.verified.to_dict(),
        }

    def __str__(self) -> str:
        from peftport.kind import kind_named
        from peftport.metrics import figures_text

        record, path = self.module.record, self.module.path
        told = record.port or {}
        counted = ", ".join(f"{n} {what}" for what, n in self.account.counts().items() if n)
        lines = [
            f"{record.technique} from {told['from']['name']} to {record.host.name} by "
            f"{self.account.method}, {self.seconds:.1f} s" + (f": {path}" if path else ""),
            f"tensors: {counted}" + (f"; each one in {path / 'account.json'}" if path else ""),
        ]
        if told.get("rank_loses"):
            lost = told["rank_loses"]
            most = max(lost, key=lost.get)
            lines.append(f"cut to rank {told['rank']}: at most {lost[most]:.2%} is lost, at {most}")
        elif "rank" in told:
            lines.append(f"not cut: its rank is {told['rank']}")
        if told.get("texts"):
            lines.append(f"looked at {told['texts']['count']} texts of {told['texts']['source']}")
        if self.trained is not None and self.validation is not None:
            metrics = kind_named(record.kind).metrics
            lines.append(
                f"then {self.trained['steps']} steps on {self.trained['task']}; validation: "
                f"{figures_text(self.validation, metrics)}"
            )
        if self.verified is not None:
            lines.append(self.verified.short())
        return "\n".join(lines)

    def _measured(self) -> list[dict[str, Any]]:
        """The rows of the module's card."""
        if self.trained is None or self.validation is None:
            return []
        condition = f"ported, {self.trained['steps']} steps, validation split"
        host, task = self.module.record.host.name, self.trained["task"]
        return [{"condition": condition, "host": host, "task": task, **self.validation}]


def port(
    module: ModuleLike,
    to: str | Path | HostHandle,
    *,
    method: str | None = None,
    options: Mapping[str, Any] | None = None,
    texts: TextSource = None,
    text_count: int = TEXTS,
    text_column: str | None = None,
    task: str | None = None,
    label_column: str | None = None,
    steps: int = 0,
    learning_rate: float | None = None,
    batch_size: int = 16,
    limit_train: int | None = None,
    label_words: str | tuple[str, ...] | None = None,
    template: str | None = None,
    kind: str | None = None,
    system: str | None = None,
    max_answer: int | None = None,
    seed: int = 0,
    device: str | None = None,
    allow_partial: bool = False,
    rank: int | None = None,
    energy: float | None = None,
    ignore_memory: bool = False,
    out: str | Path | None = None,
    format: str | None = None,
    verify: bool = True,
    progress: Losses = silent,
    portion: Portion = lambda _share, _what: None,
) -> Ported:
    """Rewrite a module for another host.

    Args:
        module: a folder, or what `load_module`, `port` or `train` gave.
        to: the receiving host: a name, or what `load_host` gave.
        method: a port method or control, as `list_methods` has them. If not given, the module is
            copied where that is possible; else the error says which methods can port it.
        options: the method's, by name.
        texts: unlabelled, for methods that look at hosts: a file, a folder, a task's name, or a
            list of texts; at most `text_count` are drawn. Those of `task` if not given.
        text_column, label_column: of the texts and of the task.
        task: what the module is trained on after the port, for `steps` steps of `batch_size`
            texts, on at most `limit_train` of them. What its files leave unsaid of texts and words
            is taken from it.
        learning_rate: of these steps; the module's own if not given.
        label_words, template: with which the module was trained, if its files do not say it.
        kind: what the module does, if its files do not say it: "classification", "choice",
            "completion" or "language". system: the system's turn of every chat. max_answer: the
            most tokens of an answer.
        seed: of what the method draws, of the texts, of the training's order.
        device: where hosts go that are given by name: "cpu" or "cuda".
        allow_partial: go on though tensors are left out.
        rank, energy: cut a LoRA to this rank, or to the smallest that keeps this share of its
            changes; the account says the loss.
        ignore_memory: try it though it should not fit into memory.
        out: a new folder for the module, which is only kept in memory if not given. A port by maps
            that is killed goes on where it was when it is called in the same way again.
        format: of the folder; the one that the module came in if not given.
        verify: load the folder as its users will, and say whether it acts; see `verify`.
        progress: called with steps and losses (nats) of the training.
        portion: called, now and then, with the share of the port that is done and what comes next.

    Raises:
        BadInput: the method cannot port this module to this host, or lacks what it needs; nothing
            is written.
        RunFailed: a loss was not finite.

    >>> import peftport as pp
    >>> ported = pp.port("modules/films", to="lab:small-tuned")
    >>> print(ported.report)  # doctest: +ELLIPSIS
    lora from lab:small to lab:small-tuned by copy, ... s
    tensors: 24 copied
    """
    from peftport.modules import formats
    from peftport.places import require_new
    from peftport.porting import port_method
    from peftport.porting.finished import work_beside
    from peftport.training.clock import now

    _require_trainable(task, steps, batch_size, limit_train, learning_rate, seed)
    path = None if out is None else Path(out)
    if path is not None:
        require_new(path)
    handle, receiver = replace(as_handle(module), partial=allow_partial), as_host(to, device)
    made = port_method(method or "copy")
    made.configure(options or {})
    donor = handle.module
    written = formats.FORMATS.require(format or handle.format)
    said = told(
        *(label_words, template, text_column, label_column),
        kind=kind,
        system=system,
        max_answer=max_answer,
    )
    donor, data = _informed(donor, task, said, limit_train)
    if method is None and not options and not allow_partial:
        named = {"--task": task, "--texts": str(texts) if isinstance(texts, str | Path) else None}
        require_a_method(handle, donor, receiver, {**named, **said_options(handle, said)})
    planned = PlannedPort(donor, receiver, made, options or {}, allow_partial)
    planned.require_words()
    held_by = written if path is not None or format is not None else formats.OWN
    planned.require_writable(held_by)
    if steps or "texts" in planned.needs:
        notice_unsaid(donor.record, handle.called)
    asked, on = Asked(texts, text_count, text_column), device_named(device or receiver.device)
    begun = now(on)
    planned = planned.with_means(asked, on, seed, data)
    if not ignore_memory:
        planned = planned.fitting(text_count)
    with work_beside(path) as work:
        ported = planned.writable(planned.done(seed, rank, energy, portion, work), held_by)
        took = now(on) - begun
        result = Ported(ModuleHandle(None, made=ported.module), written, ported.account, took)
        if steps and data is not None:
            training = (steps, seed, learning_rate, batch_size, progress)
            result = _trained_on(result, receiver, data, *training)
        if path is not None:
            result = _saved(result, path)
    return _verified(result, receiver) if path is not None and verify else result


def _require_trainable(
    task: str | None,
    steps: int,
    batch_size: int,
    limit_train: int | None,
    learning_rate: float | None,
    seed: int,
) -> None:
    """Raise BadInput for a training after the port that cannot be."""
    require_at_least(0, steps=steps)
    require_at_least(1, batch_size=batch_size, limit_train=limit_train)
    require_rates(learning_rate=learning_rate)
    require_seed(seed)
    if steps and task is None:
        raise BadInput(f"--steps {steps} needs a --task to train on.")
    if learning_rate is not None and not steps:
        raise BadInput(f"--learning-rate {learning_rate:g} needs --steps: nothing is trained.")


def _informed(
    donor: Module, task: str | None, said: Told, limit_train: int | None
) -> tuple[Module, Task | None]:
    """The module with what its files leave unsaid, and the task that says it, if there is one."""
    data = task_for(donor.record, task, said, limit_train=limit_train) if task else None
    return replace(donor, record=informed(donor.record, said, data)), data


def _trained_on(
    result: Ported,
    receiver: HostHandle,
    task: Task,
    steps: int,
    seed: int,
    learning_rate: float | None,
    batch_size: int,
    progress: Losses,
) -> Ported:
    """The result with its module trained on the receiving host."""
    from peftport.training import TrainingSettings
    from peftport.training.module import train_further

    trained = train_further(
        receiver.loaded,
        task,
        result.module.module,
        steps=steps,
        seed=seed,
        learning_rate=learning_rate,
        settings=TrainingSettings(precision=receiver.precision, batch_size=batch_size),
        progress=progress,
    )
    return replace(
        result,
        module=ModuleHandle(None, made=trained.module),
        trained=(trained.module.record.port or {})["trained"],
        validation=trained.validation.figures,
    )


def _saved(result: Ported, path: Path) -> Ported:
    """The result with its folder."""
    result.save(path)
    return replace(result, module=replace(result.module, path=path))


def _verified(result: Ported, receiver: HostHandle) -> Ported:
    """The result with what a user of its folder would find."""
    from peftport.api.verify import verify_written

    return replace(result, verified=verify_written(result.module, receiver))

"""A module measured on a host, or the host without one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.api.binding import made_for, with_task
from peftport.api.hosts import HostHandle
from peftport.api.modules import ModuleHandle, as_handle
from peftport.api.reading import (
    Told,
    informed,
    notice_usual_template,
    plain_task,
    require_at_least,
    task_for,
    told,
)
from peftport.api.result import Result
from peftport.api.suggestions import STEPS, methods_for, port_command, said_options
from peftport.errors import BadInput

if TYPE_CHECKING:
    import pandas as pd

    from peftport.api.modules import ModuleLike
    from peftport.hosts import Geometry
    from peftport.hosts.precision import Precision
    from peftport.metrics import Evaluation
    from peftport.modules import Module
    from peftport.tasks import Task
    from peftport.training.evaluate import Portion

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tested(Result):
    """A module's figures on the test split of a task, or those of the bare host.

    Attributes:
        module: its folder; None of the bare host.
        technique: that made it; None of the bare host.
        host, task: names.
        made_for_this_host: whether the module is made for the host's very weights; None where
            that is not known, and of the bare host.
        figures: name of the metric -> value, None where it is not defined, and `n_test`.
            Accuracies and AUROC are shares, `log_loss` is in nats.
        kind: of the task.
    """

    module: str | None
    technique: str | None
    host: str
    made_for_this_host: bool | None
    task: str
    figures: Mapping[str, Any]
    kind: str = "classification"

    def frame(self) -> pd.DataFrame:
        """One row: module, host, task and the figures."""
        import pandas as pd

        return pd.DataFrame([self.to_dict()])

    def to_dict(self) -> dict[str, Any]:
        """Everything, the figures at the top level."""
        names = ("module", "technique", "host", "made_for_this_host", "task")
        return {**{name: getattr(self, name) for name in names}, **self.figures}

    def __str__(self) -> str:
        from peftport.kind import kind_named
        from peftport.metrics import figures_text

        told = figures_text(self.figures, kind_named(self.kind).metrics)
        what = f"{self.technique} {self.module} on" if self.module else "bare host"
        return f"{what} {self.host}, {self.task}: {told}"

    def _repr_html_(self) -> str:
        return str(self.frame().to_html(index=False))


def test(
    module: ModuleLike | None,
    host: str | Path | HostHandle,
    task: str,
    *,
    limit_test: int | None = None,
    label_words: str | tuple[str, ...] | None = None,
    template: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    kind: str | None = None,
    system: str | None = None,
    max_answer: int | None = None,
    scorer: str | None = None,
    device: str | None = None,
    precision: Precision = "fp32",
    to_card: bool = False,
    portion: Callable[[float, str], None] = lambda _share, _what: None,
) -> Tested:
    """Test a module on a host, or the bare host, on the test split of a task.

    Args:
        module: a folder, or what `load_module`, `port` or `train` gave; None tests the bare host,
            with the corrected figure like any module. Give it the words and the template of the
            module that it is compared with.
        host: a name, or what `load_host` gave, which then says device and precision.
        task: a hub data set's name, a folder of files, a task YAML, or `lab:NAME`.
        limit_test: test on at most so many texts.
        label_words, template, text_column, label_column: for modules and data that do not say
            them. A word has no space before it: on decoders one is put there.
        kind: "classification", "choice", "completion" or "language"; what the data's columns tell
            if not given. system: the system's turn of every chat. max_answer: the most tokens of
            an answer. scorer: "module:function" of what was written and the reference.
        device, precision: of a host that is given by name.
        to_card: add the figures to the README in the module's folder.
        portion: called now and then with the share of the rows that is done, and in words.

    Raises:
        BadInput: the module is made for a host of another geometry (the message has the port that
            would do), lacks a head, or has other classes than the task; a bare host is an encoder,
            which tells no classes apart without a head.
        RunFailed: the module gives scores that are not finite.

    >>> import peftport as pp
    >>> found = pp.test("modules/films", "lab:small", "lab:films", limit_test=32)
    >>> found.made_for_this_host, 0 <= found.figures["auroc"] <= 1
    (True, True)
    >>> print(pp.test(None, "lab:small", "lab:films", limit_test=32))  # doctest: +ELLIPSIS
    bare host lab:small, lab:films: accuracy as answered ..., corrected accuracy ... on 32 texts
    """
    from peftport.modules.card import CARD, add_figures
    from peftport.places import require_writable

    require_at_least(1, limit_test=limit_test)
    if not isinstance(host, HostHandle):
        host = HostHandle(str(host), device, precision, kept=False)
    said = told(
        *(label_words, template, text_column, label_column),
        kind=kind,
        system=system,
        max_answer=max_answer,
        scorer=scorer,
    )
    if module is None:
        if to_card:
            raise BadInput("--to-card: the bare host has no card; name a module.")
        return _bare(host, task, said, limit_test, portion)
    handle = as_handle(module)
    if to_card:
        if handle.path is None:
            raise BadInput("the module has no folder with a card: save it first.")
        require_writable(handle.path / CARD)
    loaded = handle.module
    if loaded.geometry != host.geometry:
        raise _made_for_another(handle, host, task, said)
    loaded, data = with_task(handle, task, said, limit_test)
    same = _noticed_host(handle, host)
    figures = _evaluation(host, data, loaded, portion).figures
    if to_card and handle.path is not None:
        row = {"condition": "module", "host": host.name, "task": data.name, **figures}
        add_figures(handle.path, row)
    return Tested(handle.called, loaded.technique, host.name, same, data.name, figures, data.kind)


def _bare(
    host: HostHandle, task: str, said: Told, limit_test: int | None, portion: Portion
) -> Tested:
    """The host without a module."""
    data = plain_task(task, said, limit_test=limit_test)
    if host.geometry.kind == "encoder" and data.asks.of_classes:
        raise BadInput(
            f"host {host.name} is an encoder and tells no classes apart without a head, which a "
            "module brings. `peftport assess` sets the bare host, under fresh heads, beside a "
            "module."
        )
    notice_usual_template(data, host.geometry.kind)
    figures = _evaluation(host, data, None, portion).figures
    return Tested(None, None, host.name, None, data.name, figures, data.kind)


def _evaluation(
    host: HostHandle, data: Task, module: Module | None, portion: Portion
) -> Evaluation:
    from peftport.correction import FEWEST
    from peftport.tasks import encode, encode_unlabelled
    from peftport.techniques import technique
    from peftport.training import evaluate_one, readout_of

    there = host.loaded
    tensors = {} if module is None else module.tensors
    unlabelled = encode_unlabelled(there.tokenizer, data, there.geometry.kind)
    if unlabelled is None and data.asks.corrects(data):
        _log.warning(
            "notice: nothing is corrected: that takes %d training texts or more, without their "
            "labels, and task %s has fewer",
            FEWEST,
            data.name,
        )
    texts = (
        encode(there.tokenizer, data, "test", there.geometry.kind),
        readout_of(there, data, tensors),
        unlabelled,
    )
    if module is None:
        return evaluate_one(there, None, None, {}, *texts, portion)
    made = technique(module.technique)
    return evaluate_one(there, made, module.config, tensors, *texts, portion)


def _noticed_host(handle: ModuleHandle, host: HostHandle) -> bool | None:
    """Whether the module is made for the host's very weights; a notice says it where it is not."""
    from peftport.hosts.vocabulary import notice_other_tokenizer

    record, there = handle.record, host.loaded
    same = made_for(record, there)
    if same is None:
        _log.warning("notice: %s is not at hand to compare %s with.", record.host.name, host.name)
    elif not same:
        _log.warning(
            "notice: %s was made for %s, whose weights are not those of %s: this tests a plain "
            "copy.",
            handle.called,
            record.host.name,
            host.name,
        )
    notice_other_tokenizer(handle.called, record.host.tokenizer, there.tokenizer, host.name)
    return same


def _made_for_another(handle: ModuleHandle, host: HostHandle, task: str, said: Told) -> BadInput:
    """The refusal of a host of another geometry, with a port that would do."""
    loaded, receiver = handle.module, host.geometry
    data = task_for(loaded.record, task, said)
    record = informed(loaded.record, said, data)
    methods = methods_for(record, handle.outline[1], host, data, look=False)
    method = methods[0] if methods else None
    headless = receiver.kind == "encoder" and not loaded.classes and method != "distill"
    options = {**said_options(handle, said), "--steps": str(STEPS) if headless else None}
    advice = (
        f"port it first, with `{port_command(handle.called, host.name, task, method, options)}`."
        if method
        else f"no method can port it with what is at hand; see `peftport check {handle.called} "
        f"--host {host.name}`, and say with --from-host where its own host is."
    )
    return BadInput(
        f"module {handle.called} is made for {loaded.record.host.name} "
        f"({_size(loaded.geometry)}), host {host.name} is {_size(receiver)}: {advice}"
    )


def _size(geometry: Geometry) -> str:
    record = geometry.record()
    stacks = ", ".join(f"{count} {name} layers" for name, count in record["stacks"].items())
    return f"{record['family']}, width {record['width']}, {stacks}"

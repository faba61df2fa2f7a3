"""A module measured on a host, or the host without one."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from peftport.api.binding import made_for, noticed_host_of_test, with_task
from peftport.api.hosts import HostHandle, as_host
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
from peftport.api.suggestions import STEPS, methods_for, port_command, said_options
from peftport.api.tested import Tested
from peftport.errors import BadInput
from peftport.kind import USUAL
from peftport.progress import Portion

if TYPE_CHECKING:
    from peftport.api.modules import ModuleLike
    from peftport.hosts import Geometry
    from peftport.hosts.precision import PrecisionChoice
    from peftport.metrics import Evaluation
    from peftport.modules import Module
    from peftport.tasks import Task

BARE = "bare"
"""The host without a module, where a module is named."""
_log = logging.getLogger(__name__)


def test(
    module: ModuleLike | None,
    host: str | Path | HostHandle,
    task: str,
    *,
    against: ModuleLike | None = None,
    against_host: str | Path | HostHandle | None = None,
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
    precision: PrecisionChoice = "auto",
    to_card: bool = False,
    portion: Portion = lambda _share, _what: None,
) -> Tested:
    """Test a module on a host, or the bare host, on the test split of a task.

    Args:
        module: a folder, or what `load_module`, `port` or `train` gave; None tests the bare host,
            with the corrected figure like any module. Give it the words and the template of the
            module that it is compared with.
        host: a name, or what `load_host` gave, which then says device and precision.
        task: a hub data set's name, a folder of files, a task YAML, or `lab:NAME`.
        against: what to set beside it, tested on the same rows: "bare", the host without a module,
            which reads the rows as the module does; or another module.
        against_host: where that is tested. If not given, the bare host is `host`, and a module is
            on `host` if it is made for it, else on its own. A module of another library whose files
            name no host that can be found is taken for one that is made for this one.
        limit_test: test on at most so many texts.
        label_words, template, text_column, label_column: for modules and data that do not say
            them. A word has no space before it: on decoders one is put there.
        kind: "classification", "choice", "completion" or "language"; what the data's columns tell
            if not given. system: the system's turn of every chat. max_answer: the most tokens of
            an answer. scorer: "module:function" of what was written and the reference.
        device, precision: of a host that is given by name, as for `load_host`.
        to_card: add the figures to the README in the module's folder.
        portion: called now and then with the share of the rows that is done, and in words.

    Raises:
        BadInput: the module is made for a host of another geometry (the message has the port that
            would do), lacks a head, or has other classes than the task; a bare host is an encoder,
            which tells no classes apart without a head; `against` is of another kind of task.
        RunFailed: the module gives scores that are not finite.

    >>> import peftport as pp
    >>> found = pp.test("modules/films", "lab:small", "lab:films", limit_test=32)
    >>> found.made_for_this_host, 0 <= found.figures["auroc"] <= 1
    (True, True)
    >>> beside = pp.test("modules/films", "lab:small", "lab:films", against="bare", limit_test=32)
    >>> beside.against.module is None, sorted(beside.differences)[:2]
    (True, ['accuracy', 'auroc'])
    >>> print(pp.test(None, "lab:small", "lab:films", limit_test=32))  # doctest: +ELLIPSIS
    bare host lab:small, lab:films: 32 texts, 95 % intervals over them
    accuracy as answered        0... (0... to 0...)
    corrected accuracy          0... (0... to 0...)
    macro-F1                    0... (0... to 0...)
    AUROC                       0... (0... to 0...)
    log-loss (lower is better)  ...
    """
    from peftport.modules.card import add_figures

    require_at_least(1, limit_test=limit_test)
    host = as_host(host, device, precision)
    said = told(
        *(label_words, template, text_column, label_column),
        kind=kind,
        system=system,
        max_answer=max_answer,
        scorer=scorer,
    )
    if module is None and (to_card or against is not None):
        given = (
            "--to-card: the bare host has no card" if to_card else "--against: not without MODULE"
        )
        raise BadInput(f"{given}. Name a module.")
    if against is None and against_host is not None:
        raise BadInput("--against-host: say with --against what is to be tested there.")
    if module is None:
        data = plain_task(task, said, limit_test=limit_test)
        notice_usual_template(data, host.geometry.kind)
        return _bare(host, data).tested(portion)[0]
    handle, asked = as_handle(module), (task, said, limit_test)
    card = _with_card(handle) if to_card else None
    subject = _module(handle, host, *asked)
    other = None if against is None else _other(against, against_host, subject, asked)
    found, evaluation = subject.tested(portion if other is None else _half(portion, 0))
    if card is not None:
        row = {"condition": "module", "host": host.name, "task": subject.data.name}
        add_figures(card, {**row, **found.figures})
    if other is None:
        return found
    if other.host is not subject.host:
        subject.host.let_go()
    beside, second = other.tested(_half(portion, 1))
    differences = {
        name: ends
        for name, metric in subject.data.asks.metrics.items()
        if (ends := metric.difference(evaluation.scored, second.scored)) is not None
    }
    return replace(found, against=beside, differences=differences)


def _with_card(handle: ModuleHandle) -> Path:
    """The folder of a module whose card can be written to."""
    from peftport.modules.card import CARD
    from peftport.places import require_writable

    if handle.path is None:
        raise BadInput("the module has no folder with a card: save it first.")
    require_writable(handle.path / CARD)
    return handle.path


@dataclass(frozen=True)
class _Subject:
    """What is to be tested: a module with what its files leave unsaid, or a bare host."""

    host: HostHandle
    data: Task
    handle: ModuleHandle | None = None
    module: Module | None = None

    def tested(self, portion: Portion) -> tuple[Tested, Evaluation]:
        """Its figures, and what they are of."""
        called, technique, same = None, None, None
        if self.handle is not None and self.module is not None:
            called, technique = self.handle.called, self.module.technique
            same = noticed_host_of_test(self.handle, self.host)
        found = _evaluation(self.host, self.data, self.module, portion)
        intervals = {
            name: ends
            for name, metric in self.data.asks.metrics.items()
            if (ends := metric.interval(found.scored)) is not None
        }
        return Tested(
            module=called,
            technique=technique,
            host=self.host.name,
            made_for_this_host=same,
            task=self.data.name,
            figures=found.figures,
            intervals=intervals,
            kind=self.data.kind,
            precision=self.host.precision,
        ), found


def _module(
    handle: ModuleHandle, host: HostHandle, task: str, said: Told, limit_test: int | None
) -> _Subject:
    """A module on a host of its geometry."""
    if handle.module.geometry != host.geometry:
        raise _made_for_another(handle, host, task, said)
    loaded, data = with_task(handle, task, said, limit_test)
    return _Subject(host, data, handle, loaded)


def _bare(host: HostHandle, data: Task) -> _Subject:
    """The host without a module."""
    from peftport.hosts.host import load_tokenizer
    from peftport.tasks import label_tokens

    if host.geometry.kind == "encoder" and data.asks.of_classes:
        raise BadInput(
            f"host {host.name} is an encoder and tells no classes apart without a head, which a "
            "module brings. `peftport assess` sets the bare host, under fresh heads, beside a "
            "module."
        )
    if data.kind == USUAL:  # words that cannot be read are said before anything is tested
        label_tokens(load_tokenizer(host.folder, host.name), data, host.geometry.kind)
    return _Subject(host, data)


def _other(
    against: ModuleLike,
    where: str | Path | HostHandle | None,
    subject: _Subject,
    asked: tuple[str, Told, int | None],
) -> _Subject:
    """What is set beside a module."""
    there = subject.host if where is None else _host_like(subject.host, where)
    if against == BARE:
        return _bare(there, subject.data)
    handle = _found(as_handle(against), where)
    if where is None and not made_for(handle.record, there.fingerprint):
        there = _host_like(subject.host, handle.record.host.name)
    other = _module(handle, there, *asked)
    if other.data.kind != subject.data.kind:
        raise BadInput(
            f"--against {handle.called}: it is for the kind {other.data.kind}, and the other "
            f"module for {subject.data.kind}: their figures cannot be compared. Say with --kind "
            "which to ask."
        )
    return other


def _found(handle: ModuleHandle, where: str | Path | HostHandle | None) -> ModuleHandle:
    """A module to set beside another; where its files name no host that can be found, it is made
    for the one on which it is to be tested."""
    try:
        _ = handle.outline
    except BadInput as error:
        if where is None:
            raise BadInput(str(error).replace("--from-host", "--against-host")) from error
        if handle.from_host is not None:
            raise
        host = where.name if isinstance(where, HostHandle) else str(where)
        return _found(replace(handle, from_host=host), where)
    return handle


def _host_like(host: HostHandle, other: str | Path | HostHandle) -> HostHandle:
    """Another host, on the same device and with the precision that was asked for."""
    return as_host(other, host.device, host.asked)


def _half(portion: Portion, which: int) -> Portion:
    """Told of the first or the second of two tests, where `portion` is told of both."""
    return lambda share, what: portion((which + share) / 2, what)


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

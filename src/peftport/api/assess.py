"""What survives of modules on one host, by one method or several, beside their controls."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from peftport.api.assessment import assessment_record, assessment_text
from peftport.api.binding import made_for, with_task
from peftport.api.hosts import HostHandle, as_host, device_named
from peftport.api.means import TEXTS, Asked, TextSource, means_for
from peftport.api.modules import ModuleHandle, as_handle
from peftport.api.reading import require_at_least, require_rates, told
from peftport.api.result import Result
from peftport.api.suggestions import STEPS, methods_for, related
from peftport.errors import BadInput
from peftport.hosts.fingerprint import of_weights
from peftport.hosts.genealogy import UNSTATED, Relation, folder_at_hand, relation_of, settled
from peftport.progress import Portion

if TYPE_CHECKING:
    import pandas as pd

    from peftport.api.modules import ModuleLike
    from peftport.hosts.host import Host
    from peftport.hosts.precision import PrecisionChoice
    from peftport.modules import Module, Record
    from peftport.porting.base import Need
    from peftport.porting.means import Means
    from peftport.porting.methods import Way
    from peftport.studies.assess import Assessment
    from peftport.tasks import Task
    from peftport.training import TrainingSettings

SEEDS = 3
BUDGETS = (0, 10, 100)
_log = logging.getLogger(__name__)
_OF_EMBEDDINGS = (
    "notice: the module brings trained embeddings. A port has them where its method carries them, "
    "and trains no more of them. The controls and native modules have the host's own and train "
    "none: a native module that trained its embeddings too could do better"
)


@dataclass(frozen=True)
class Assessed(Result):
    """What survives of modules on a host, and what to do.

    Attributes:
        record: everything that was found, as `to_dict` gives it.
        rows: a mapping for each run, with a study's columns.
    """

    record: Mapping[str, Any]
    rows: tuple[Mapping[str, Any], ...] = field(repr=False)

    @property
    def action(self) -> str:
        """What to do: "bare host", "copy", "port", "distil", "train anew", or first "test more" of
        the rows that are there, "label more" or take "more seeds"."""
        return str(self.record["decision"]["action"])

    @property
    def passed(self) -> bool:
        """Whether the gate lets it pass; True where none was asked for."""
        return self.record["gate"] is None or bool(self.record["gate"]["passed"])

    def frame(self) -> pd.DataFrame:
        """A row for each run: condition, method, budget (steps), seed and figures."""
        import pandas as pd

        return pd.DataFrame(list(self.rows))

    def to_dict(self) -> dict[str, Any]:
        """Figures as means with 95 % intervals, costs in seconds and bytes, verdicts, decision."""
        return dict(self.record)

    def __str__(self) -> str:
        return assessment_text(self.record)


def assess(
    modules: ModuleLike | Sequence[ModuleLike],
    host: str | Path | HostHandle,
    task: str,
    *,
    methods: Sequence[str] | None = None,
    texts: TextSource = None,
    text_count: int = TEXTS,
    text_column: str | None = None,
    label_column: str | None = None,
    budgets: Sequence[int] = BUDGETS,
    seeds: int | None = None,
    native_steps: int | None = None,
    learning_rates: Sequence[float] | None = None,
    relation: Relation | None = None,
    limit_test: int | None = None,
    label_words: str | tuple[str, ...] | None = None,
    template: str | None = None,
    kind: str | None = None,
    system: str | None = None,
    max_answer: int | None = None,
    scorer: str | None = None,
    fail_under: float | None = None,
    device: str | None = None,
    precision: PrecisionChoice = "auto",
    progress: Callable[[str], None] = lambda text: None,
    portion: Portion = lambda _share, _what: None,
) -> Assessed:
    """Show what survives of a module on a host, beside its controls, and say what to do.

    Args:
        modules: a folder or what `load_module` gave; or several of one kind, a seed each.
        host: the receiving host: a name, or what `load_host` gave.
        task: a hub data set's name, a folder of files, a task YAML, or `lab:NAME`.
        methods: port methods, with options as in "distill:steps=100". If not given, the one that
            `check` says to try first, with a notice.
        texts: unlabelled, for methods that look at hosts; the task's if not given. At most
            `text_count` are drawn.
        text_column, label_column: of the texts and of the task.
        budgets: training steps on the receiving host at which everything is tested.
        seeds: how many, 3 if not given; of several modules one each.
        native_steps: steps of a native module; the module's own if not given, or 200 where its
            files do not say them.
        learning_rates: one for all conditions, or several, of which each condition takes the best
            on the validation split; the module's own if not given.
        relation: "same", "continuation" or "independent", if the hosts' records do not say it.
        limit_test: test on at most so many texts.
        label_words, template: with which the modules were trained, if their files do not say it.
        kind: "classification", "choice", "completion" or "language"; what the module was trained
            for, or the data's columns tell, if not given. system: the system's turn of every chat.
            max_answer: the most tokens of an answer. scorer: "module:function" of what was written
            and the reference.
        device, precision: of a host that is given by name, as for `load_host`.
        fail_under: the recovery that some method must reach at the smallest budget, for `passed`.
        progress: told what is done next.
        portion: called, now and then, with the share of a port that is done and what comes next.

    Raises:
        BadInput: no method can port the modules, or they are of different kinds.

    >>> import peftport as pp
    >>> found = pp.assess("modules/films", "lab:small-tuned", "lab:films", budgets=[0],
    ...                   seeds=2, native_steps=2, limit_test=40)
    >>> sorted(found.frame()["condition"].unique())
    ['host', 'native', 'ported', 'sampled', 'scratch']
    """
    from peftport.studies import ports
    from peftport.studies.assess import Assessment

    if not budgets:
        raise BadInput("--budgets: expected one number of steps or more, such as 0,10,100.")
    require_at_least(0, budgets=min(budgets))
    require_at_least(1, seeds=seeds, native_steps=native_steps, limit_test=limit_test)
    require_rates(learning_rates=learning_rates)
    if fail_under is not None and not isfinite(fail_under):
        raise BadInput(f"--fail-under {fail_under}: expected a recovery, such as 0.5.")
    ways = _ways(methods)
    handles = _handles(modules)
    numbers = _seeds(handles, seeds)
    ports.warm()
    host = as_host(host, device, precision)
    there = host.loaded
    said = told(
        *(label_words, template, text_column, label_column),
        kind=kind,
        system=system,
        max_answer=max_answer,
        scorer=scorer,
    )
    read = [with_task(handle, task, said, limit_test) for handle in handles]
    donors, data = [donor for donor, _ in read], read[0][1]
    record = donors[0].record
    ways = ways or _ways(_to_try(handles[0], record, host, data))
    asked, on = Asked(texts, text_count, text_column), device_named(host.device)
    means = _means(ways, record, host, on, asked, data)
    if record.embeddings:
        _log.warning(_OF_EMBEDDINGS)
    assessment = Assessment(
        modules=[donors[place % len(donors)] for place in range(len(numbers))],
        host=there,
        task=data,
        relation=_relation(record, there, relation),
        budgets=sorted(set(budgets)),
        seeds=numbers,
        native_steps=native_steps or _native_steps(record.training, budgets),
        rates=list(learning_rates or [_own_rate(record)]),
        settings=_settings(record, host),
        ways=ways,
        texts=means.texts if means else (),
        source=means.source if means else "",
        origin=_origin(record, on),
        progress=progress,
        portion=portion,
    )
    return _assessed(assessment, len(donors), fail_under)


def _assessed(assessment: Assessment, modules: int, fail_under: float | None) -> Assessed:
    """Run it, and say what it found of so many modules."""
    import pandas as pd

    from peftport.reports.results import Results

    found = assessment.run()
    facts = {"study": "assess", "kind": assessment.task.kind}
    results = Results(pd.DataFrame(found.rows), {}, found.gold, facts, found.scored)
    record = assessment_record(results, assessment, found, modules, fail_under)
    return Assessed(record, tuple(found.rows))


def _own_rate(record: Record) -> float:
    """The learning rate that a module was trained with; its technique's where its files do not say
    it."""
    from peftport.techniques import technique

    usual = technique(record.technique).learning_rate
    return float(record.training.get("learning_rate", usual))


def _settings(record: Record, host: HostHandle) -> TrainingSettings:
    """How modules are trained beside one: with as many texts a step as it was."""
    from peftport.training import TrainingSettings

    size = record.training.get("batch_size", 16)
    return TrainingSettings(batch_size=size, precision=host.precision)


def _native_steps(trained: Mapping[str, Any], budgets: Sequence[int]) -> int:
    """As many steps as the module itself was trained, or as `train` takes where its files do not
    say it; no fewer than everything else gets."""
    if "steps" not in trained:
        _log.warning(
            "notice: the module's files do not say for how many steps it was trained: native "
            "modules have %d. Say with --native-steps how many you would train",
            STEPS,
        )
    return max(int(trained.get("steps", STEPS)), *budgets, 1)


def _means(
    ways: Sequence[Way], record: Record, host: HostHandle, device: str, asked: Asked, task: Task
) -> Means | None:
    """What the methods look at together."""
    needs: frozenset[Need] = frozenset()
    for each in ways:
        needs |= each.requires
    return means_for(needs, record, host, device, asked, 0, task)


def _origin(record: Record, device: str) -> Callable[[], Host] | None:
    """Loads the modules' own host; None, with a notice, where it is not at hand."""
    from peftport.porting.means import origin_side

    try:
        return origin_side(record.host, device).load
    except BadInput as error:
        _log.warning("notice: how far ports agree with their donors is not measured: %s", error)
        return None


def _to_try(handle: ModuleHandle, record: Record, host: HostHandle, task: Task) -> list[str]:
    """The methods to assess where none is named: the first to try; beside a copy of which nobody
    knows whether the hosts are related, the next one too. A copy where none can be tried, which
    says why."""
    names = methods_for(record, handle.outline[1], host, task)
    unsure = names[:1] == ["copy"] and related(record, host) is None
    names = names[: 2 if unsure else 1] or ["copy"]
    _log.warning("notice: no --methods are named; assessed by %s", " and ".join(names))
    return names


def _ways(methods: Sequence[str] | None) -> list[Way]:
    """Methods with their options, none where none are named; BadInput unless each stands there
    once, and no control among them."""
    from peftport.porting.methods import way

    if methods is None:
        return []
    ways = [way(written.strip()) for written in methods if written.strip()]
    written = [each.written for each in ways]
    if not written or len(set(written)) < len(written):
        raise BadInput(f"--methods {','.join(written)!r}: expected methods, each of them once.")
    for each in ways:
        if each.method.control:
            raise BadInput(
                f"--methods: {each.name} is a control; controls stand beside every port anyway."
            )
    return ways


def _handles(modules: ModuleLike | Sequence[ModuleLike]) -> list[ModuleHandle]:
    """Load modules; BadInput names the first that is of another kind than the one before it."""
    several = isinstance(modules, Sequence) and not isinstance(modules, str)
    given = cast("Sequence[ModuleLike]", modules if several else [modules])
    handles = [as_handle(module) for module in given]
    kinds = [_kind(handle.module) for handle in handles]
    for handle, kind in zip(handles[1:], kinds[1:], strict=True):
        for what, here in kind.items():
            if here != kinds[0][what]:
                raise BadInput(
                    f"{handle.called} and {handles[0].called} are assessed together and differ in "
                    f"their {what}: {here} and {kinds[0][what]}. Assess them one by one."
                )
    for one, other in combinations(handles, 2):
        if _alike(one.module, other.module):
            raise BadInput(
                f"{one.called} and {other.called} hold the same tensors: a module counts once, and "
                "intervals are over modules that were trained apart. Give each of them once."
            )
    return handles


def _alike(one: Module, other: Module) -> bool:
    """Whether two modules of one kind hold the same tensors."""
    return all(tensor.equal(other.tensors[name]) for name, tensor in one.tensors.items())


def _kind(module: Module) -> dict[str, Any]:
    """What modules that stand in one table must share."""
    record = module.record
    return {
        "technique": record.technique,
        "configuration": record.config,
        "host": of_weights(record.host.fingerprint) or record.host.name,
        "task": record.task["name"],
        "kind of task": record.kind,
        "labels": record.task["labels"],
    }


def _seeds(donors: Sequence[ModuleHandle], asked: int | None) -> range:
    if len(donors) > 1 and asked not in (None, len(donors)):
        raise BadInput(f"--seeds {asked}: each of the {len(donors)} modules has one seed.")
    return range(len(donors) if len(donors) > 1 else asked or SEEDS)


def _relation(record: Record, host: Host, stated: Relation | None) -> str:
    """How the module's host is related to another: as stated, or as far as their records tell."""
    name, mark = record.host.name, record.host.fingerprint
    if not mark and made_for(record, host.fingerprint):
        mark = host.fingerprint
    found = relation_of(folder_at_hand(name), mark, host.folder)
    return settled(stated, found, f"--relation: {name} -> {host.name}") or UNSTATED

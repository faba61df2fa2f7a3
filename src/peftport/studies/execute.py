"""Works a pack off: trains its lanes, reads them at their budgets, tests them there.

Runs in workers. Hosts are loaded once per worker, and texts tokenised once per host.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import save

from peftport.correction import agreement
from peftport.errors import BadInput, PeftportError, RunFailed
from peftport.hosts.fingerprint import same_host
from peftport.kept import corrected, pack_scores
from peftport.kind import Kind
from peftport.memory import keep_freed_memory
from peftport.metrics import Evaluation
from peftport.modules import Record
from peftport.studies.resolve import load_limited
from peftport.studies.starts import load_once, start_of, tokenizer_once
from peftport.studies.work import Kept, LaneResult, PackReading, Work
from peftport.tasks import Encoded, Task, encode, encode_unlabelled
from peftport.techniques import technique
from peftport.techniques.base import Parameters, Technique, stack_lanes, stacking_key, take_lane
from peftport.techniques.head import initial_head
from peftport.training import (
    Reading,
    Readout,
    TrainingSettings,
    evaluate,
    readout_of,
    scores,
    trajectory,
)
from peftport.training.module import as_module

# Every pack needs these, which are slow to import and otherwise imported when first used: here a
# fork server imports them once for all workers.
for _name in (
    "pyarrow.parquet",
    "transformers.generation.utils",
    "transformers.models.auto.tokenization_auto",
):
    importlib.import_module(_name)

_UNLABELLED = "unlabelled"
_NOT_FINITE = "the module's scores are not finite"


def execute(work: Work, threads: int) -> Iterator[PackReading]:
    """Yield a pack's readings in ascending order of budgets.

    A lane that fails has its reason in every reading from then on; the others go on.

    Raises:
        PeftportError: nothing of the pack can be done.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    place = _Place(work)
    if work.technique:
        yield from _trained(work, place)
    else:
        yield _bare_host(work, place)


class _Place:
    """The host and the task of a pack, as they were when the study was planned."""

    def __init__(self, work: Work) -> None:
        precision = TrainingSettings(**work.training).precision
        self.host = load_once(work.host, precision)
        self.task, self.record = _load_task(
            work.task, work.limit_train, work.split, work.limit_test, work.asked
        )
        for name, same in (
            (work.host_name, same_host(self.host.fingerprint, work.host_mark)),
            (
                f"the tokenizer of {work.host_name}",
                tokenizer_once(work.host, precision) == work.tokenizer,
            ),
            (work.task_name, self.record["fingerprint"] == work.task_mark),
        ):
            if not same:
                raise BadInput(f"{name} is no longer what it was when the study was planned.")
        self.readout: Readout = readout_of(self.host, self.task)

    def encoded(self, split: str) -> Encoded:
        """The split's rows as the host's tokens."""
        return _encode(self, split)

    @property
    def unlabelled(self) -> Encoded | None:
        """The texts of the label-free correction as the host's tokens."""
        found: Encoded | None = _encode(self, _UNLABELLED)
        return found


def _trained(work: Work, place: _Place) -> Iterator[PackReading]:
    """Train the lanes of a pack that has modules, and give at every budget what is wanted."""
    kinds, errors = _kinds(work, place)
    for budget, *found in zip(work.budgets, *(kind.readings() for kind in kinds), strict=True):
        results = {lane: LaneResult(lane, error=why) for lane, why in errors.items()}
        for part in found:
            results |= part
        lanes = sorted({*work.tests.get(budget, ()), *work.keeps.get(budget, ())})
        yield PackReading(work.number, budget, tuple(results[lane] for lane in lanes))


def _kinds(work: Work, place: _Place) -> tuple[list[_Kind], dict[int, str]]:
    """The lanes with their modules, and why others have none."""
    planned, classes = technique(work.technique), place.readout.classes
    kinds: dict[str, _Kind] = {}
    errors: dict[int, str] = {}
    for lane, start in enumerate(work.starts):
        try:
            if start.error:
                raise RunFailed(start.error)
            name, config, tensors = start_of(work, start, place.host, planned, classes)
        except PeftportError as error:
            errors[lane] = str(error)
            continue
        key = stacking_key(name, config, tensors)
        kinds.setdefault(key, _Kind(work, place, technique(name), config)).starts[lane] = tensors
    return list(kinds.values()), errors


@dataclass
class _Kind:
    """Lanes whose modules are of one technique, configuration and shape: they train side by side.

    starts: lane -> its module's tensors before training, without lane axis.
    """

    work: Work
    place: _Place
    technique: Technique
    config: Any
    starts: dict[int, Parameters] = field(default_factory=dict)

    def readings(self) -> Iterator[dict[int, LaneResult]]:
        """Train, and give for every budget what is wanted of each lane."""
        starts = [self.work.starts[lane] for lane in self.starts]
        for reading in trajectory(
            self.place.host,
            self.technique,
            self.config,
            stack_lanes(list(self.starts.values())),
            self.place.encoded("train"),
            self.place.readout,
            settings=TrainingSettings(**self.work.training),
            budgets=self.work.budgets,
            learning_rates=[start.learning_rate for start in starts],
            seeds=[start.seed for start in starts],
        ):
            yield self._results(reading)

    def _results(self, reading: Reading) -> dict[int, LaneResult]:
        """Test and keep what is wanted, and say of a lane that died why."""
        budget = reading.budget
        seconds = reading.seconds / len(self.starts)
        results = {
            lane: self._tested(lane, evaluation, seconds)
            for lane, evaluation in self._test(reading).items()
        }
        for place, lane in enumerate(self.starts):
            failure = reading.failures[place]
            if failure:
                results[lane] = LaneResult(lane, error=failure)
            elif lane in self.work.keeps.get(budget, ()):
                kept = self._keep(lane, budget, take_lane(reading.parameters, place))
                results[lane] = replace(results.get(lane, LaneResult(lane)), module=kept)
        return results

    def _tested(self, lane: int, evaluation: Evaluation | None, seconds: float) -> LaneResult:
        """A lane's figures; of a ported module also its agreement with its donor."""
        task = self.place.task
        result = _tested(task.asks, lane, evaluation, seconds)
        start, answers = self.work.starts[lane], result.answers
        if start.kind == "ported" and start.donor and answers and answers.unlabelled:
            theirs = start.donor.answers
            same = Record.model_validate_json(start.donor.record).task.get("fingerprint")
            if theirs and same == self.place.record["fingerprint"]:
                pair = (corrected(data, task.classes) for data in (theirs, answers.unlabelled))
                return replace(result, figures={**result.figures, "agreement": agreement(*pair)})
        return result

    def _test(self, reading: Reading) -> dict[int, Evaluation | None]:
        """Test the wanted lanes, whether they live or not: which lanes are tested together is
        decided by the plan alone."""
        wanted = self.work.tests.get(reading.budget, ())
        places = [place for place, lane in enumerate(self.starts) if lane in wanted]
        if not places:
            return {}
        parameters = reading.parameters
        if len(places) < len(self.starts):
            parameters = {name: tensor[places] for name, tensor in parameters.items()}
        found = evaluate(
            self.place.host,
            self.technique,
            self.config,
            parameters,
            self.place.encoded(self.work.split),
            self.place.readout,
            self.place.unlabelled,
        )
        lanes = list(self.starts)
        return dict(zip((lanes[place] for place in places), found, strict=True))

    def _keep(self, lane: int, budget: int, tensors: Parameters) -> Kept:
        """A lane's module as a donor, under the study's name for its host."""
        start = self.work.starts[lane]
        module = as_module(
            self.technique,
            self.config,
            replace(self.place.host, name=self.work.host_name),
            tensors,
            self.place.record,
            start.seed,
            {"steps": budget, "learning_rate": start.learning_rate, **self.work.training},
        )
        return Kept(module.record.model_dump_json(), save(module.tensors), self._answers(tensors))

    def _answers(self, tensors: Parameters) -> bytes | None:
        """What a module says of the unlabelled texts: what its ports are to agree with."""
        texts = self.place.unlabelled
        if texts is None:
            return None
        found = scores(
            self.place.host,
            self.technique,
            self.config,
            stack_lanes([tensors]),
            texts,
            self.place.readout,
        )[0]
        if not torch.isfinite(found).all():
            return None
        task = self.place.task
        return pack_scores(task.asks.class_scores(found.numpy(), task.classes))


def _bare_host(work: Work, place: _Place) -> PackReading:
    """Test the host without a module. Seeds differ by an encoder's fresh head alone."""
    heads = [
        initial_head(
            place.host.geometry,
            place.readout.classes,
            torch.Generator().manual_seed(start.seed),
        )
        for start in work.starts
    ]
    found = evaluate(
        place.host,
        None,
        None,
        stack_lanes(heads),
        place.encoded(work.split),
        place.readout,
        place.unlabelled,
    )
    each = found if len(found) == len(work.starts) else found * len(work.starts)
    kind = place.task.asks
    lanes = (_tested(kind, lane, evaluation, 0.0) for lane, evaluation in enumerate(each))
    return PackReading(work.number, 0, tuple(lanes))


def _tested(kind: Kind, lane: int, evaluation: Evaluation | None, seconds: float) -> LaneResult:
    if evaluation is None:
        return LaneResult(lane, error=_NOT_FINITE)
    figures = {**evaluation.figures, "train_seconds": seconds}
    return LaneResult(lane, figures, kind.pack(evaluation))


@lru_cache(maxsize=8)
def _load_task(
    location: str,
    limit_train: int | None,
    split: str,
    limit_test: int | None,
    asked: tuple[tuple[str, Any], ...],
) -> tuple[Task, dict[str, Any]]:
    """The task and its record, which is a hash over all rows and worth keeping."""
    task = load_limited(location, limit_train, split, limit_test, asked)
    return task, task.record()


_ENCODED: dict[tuple[str, str, str], Any] = {}


def _encode(place: _Place, what: str) -> Any:
    """Tokenise once per worker; the little that a text takes as tokens is kept."""
    key = (place.host.name, place.record["fingerprint"], what)
    if key not in _ENCODED:
        task, tokenizer = place.task, place.host.tokenizer
        kind = place.host.geometry.kind
        _ENCODED[key] = (
            encode_unlabelled(tokenizer, task, kind)
            if what == _UNLABELLED
            else encode(tokenizer, task, what, kind)
        )
    return _ENCODED[key]

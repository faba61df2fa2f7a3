"""Works a pack off: trains its lanes, reads them at their budgets, tests them there.

Runs in workers. Hosts are loaded once per worker, and texts tokenised once per host.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import load, save

from peftport.errors import BadInput, PeftportError, RunFailed
from peftport.hosts.host import Host, load_host
from peftport.modules import HostName, Module, Record
from peftport.porting import port
from peftport.porting.means import Means, Side, side
from peftport.studies.resolve import class_bytes, load_limited, needs, texts_at
from peftport.studies.work import Kept, LaneResult, PackReading, Start, Texts, Work
from peftport.tasks import Encoded, Task, encode
from peftport.techniques import technique
from peftport.techniques.base import Parameters, stack_lanes, take_lane
from peftport.techniques.head import initial_head
from peftport.training import Evaluation, Readout, Settings, evaluate, readout_of, trajectory
from peftport.training.module import as_module, fresh

# Every pack needs these, which are slow to import and otherwise imported when first used: here a
# fork server imports them once for all workers.
for _name in (
    "pyarrow.parquet",
    "sklearn.metrics",
    "transformers.generation.utils",
    "transformers.models.auto.tokenization_auto",
):
    importlib.import_module(_name)

_NOT_FINITE = "the module's scores are not finite"


def execute(work: Work, threads: int) -> Iterator[PackReading]:
    """Yield a pack's readings in ascending order of budgets.

    A lane that fails has its reason in every reading from then on; the others go on.

    Raises:
        PeftportError: nothing of the pack can be done.
    """
    torch.set_num_threads(threads)
    place = _Place(work)
    if work.technique:
        yield from _Trained(work, place).readings()
    else:
        yield _bare_host(work, place)


class _Place:
    """The host and the task of a pack, as they were when the study was planned."""

    def __init__(self, work: Work) -> None:
        self.host = _load_host(work.host)
        self.task, self.record = _load_task(
            work.task, work.limit_train, work.split, work.limit_test
        )
        for name, found, planned in (
            (work.host_name, self.host.fingerprint, work.host_mark),
            (work.task_name, self.record["fingerprint"], work.task_mark),
        ):
            if found != planned:
                raise BadInput(f"{name} is no longer what it was when the study was planned.")
        self.readout: Readout = readout_of(self.host, self.task)

    def encoded(self, split: str) -> Encoded:
        """The split's rows as the host's tokens."""
        return _encode(self, split)


class _Trained:
    """The lanes of a pack that has modules."""

    def __init__(self, work: Work, place: _Place) -> None:
        self.work, self.place = work, place
        self.technique = technique(work.technique)
        self.config = self._config()
        self.errors: dict[int, str] = {}
        self.lanes: list[int] = []
        starts = []
        for lane, start in enumerate(work.starts):
            try:
                if start.error:
                    raise RunFailed(start.error)
                starts.append(self._start(start))
                self.lanes.append(lane)
            except PeftportError as error:
                self.errors[lane] = str(error)
        self.start: Parameters = stack_lanes(starts) if starts else {}

    def readings(self) -> Iterator[PackReading]:
        """Train, and give at every budget what is wanted there."""
        if not self.lanes:
            for budget in self.work.budgets:
                yield self._reading(budget, {}, {})
            return
        starts = [self.work.starts[lane] for lane in self.lanes]
        for reading in trajectory(
            self.place.host,
            self.technique,
            self.config,
            self.start,
            self.place.encoded("train"),
            self.place.readout,
            settings=Settings(**self.work.training),
            budgets=self.work.budgets,
            learning_rates=[start.learning_rate for start in starts],
            seeds=[start.seed for start in starts],
        ):
            for lane, failure in zip(self.lanes, reading.failures, strict=True):
                if failure:
                    self.errors[lane] = failure
            tested = self._test(reading.parameters, self.work.tests.get(reading.budget, ()))
            seconds = reading.seconds / len(self.lanes)
            results = {
                lane: _tested(lane, evaluation, self.place.readout.classes, seconds)
                for lane, evaluation in tested.items()
            }
            yield self._reading(reading.budget, results, reading.parameters)

    def _config(self) -> Any:
        """As planned, but a module that was ported is without what only training needed."""
        config = self.technique.configure(self.work.options)
        if any(start.donor for start in self.work.starts):
            config, _ = self.technique.fold(config, self.place.host.geometry, {})
        return config

    def _start(self, start: Start) -> Parameters:
        host, classes = self.place.host, self.place.readout.classes
        if start.donor is None:
            return fresh(self.technique, self.config, host.geometry, classes, start.seed)
        donor = Module(Record.model_validate_json(start.donor.record), load(start.donor.tensors))
        name = HostName(name=host.name, fingerprint=host.fingerprint)
        means = self._means(start, donor)
        ported = port(donor, host.geometry, name, start.how, seed=start.seed, means=means).module
        if (ported.technique, ported.config) != (self.technique.name, self.config):
            raise RunFailed(
                f"{start.how} makes another kind of module ({ported.technique}), which a study "
                "cannot train beside the others"
            )
        return ported.tensors

    def _means(self, start: Start, donor: Module) -> Means | None:
        """Both hosts, and texts, for a port method that needs them."""
        wanted = needs(start.how)
        if not wanted:
            return None
        texts = _load_texts(self.work.texts) if "texts" in wanted and self.work.texts else ()
        return Means(
            _side(donor.record.host.name, start.origin),
            _side(self.work.host_name, self.work.host),
            texts,
        )

    def _test(self, parameters: Parameters, wanted: Sequence[int]) -> dict[int, Evaluation | None]:
        """Test the wanted lanes, whether they live or not: which lanes are tested together is
        decided by the plan alone."""
        places = [self.lanes.index(lane) for lane in wanted if lane in self.lanes]
        if not places:
            return {}
        if len(places) < len(self.lanes):
            parameters = {name: tensor[places] for name, tensor in parameters.items()}
        found = evaluate(
            self.place.host,
            self.technique,
            self.config,
            parameters,
            self.place.encoded(self.work.split),
            self.place.readout,
        )
        return dict(zip((self.lanes[place] for place in places), found, strict=True))

    def _reading(
        self, budget: int, results: dict[int, LaneResult], parameters: Parameters
    ) -> PackReading:
        """Join what was tested with what is kept and with what failed."""
        keeps = self.work.keeps.get(budget, ())
        lanes = []
        for lane in sorted({*self.work.tests.get(budget, ()), *keeps}):
            if lane in self.errors:
                lanes.append(LaneResult(lane, error=self.errors[lane]))
                continue
            result = results.get(lane, LaneResult(lane))
            if lane in keeps:
                tensors = take_lane(parameters, self.lanes.index(lane))
                result = LaneResult(
                    lane,
                    result.metrics,
                    result.predictions,
                    self._keep(lane, budget, tensors),
                    result.error,
                )
            lanes.append(result)
        return PackReading(self.work.number, budget, tuple(lanes))

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
        return Kept(module.record.model_dump_json(), save(module.tensors))


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
        place.host, None, None, stack_lanes(heads), place.encoded(work.split), place.readout
    )
    each = found if len(found) == len(work.starts) else found * len(work.starts)
    lanes = (
        _tested(lane, evaluation, place.readout.classes, 0.0)
        for lane, evaluation in enumerate(each)
    )
    return PackReading(work.number, 0, tuple(lanes))


def _tested(lane: int, evaluation: Evaluation | None, classes: int, seconds: float) -> LaneResult:
    if evaluation is None:
        return LaneResult(lane, error=_NOT_FINITE)
    metrics = {**evaluation.figures(), "train_seconds": seconds}
    return LaneResult(lane, metrics, class_bytes(classes, evaluation.predictions.tolist()))


@lru_cache(maxsize=2)
def _load_host(location: str) -> Host:
    return load_host(location, device="cuda" if torch.cuda.is_available() else "cpu")


def _side(name: str, location: str) -> Side:
    """A host of a port, which a worker loads once."""
    return replace(side(location), name=name, load=lambda: _load_host(location))


@lru_cache(maxsize=2)
def _load_texts(texts: Texts) -> tuple[str, ...]:
    found, mark = texts_at(texts.location, texts.count)
    if mark != texts.mark:
        raise BadInput("the texts are no longer what they were when the study was planned.")
    return found


@lru_cache(maxsize=8)
def _load_task(
    location: str, limit_train: int | None, split: str, limit_test: int | None
) -> tuple[Task, dict[str, Any]]:
    """The task and its record, which is a hash over all rows and worth keeping."""
    task = load_limited(location, limit_train, split, limit_test)
    return task, task.record()


_ENCODED: dict[tuple[str, str, str], Encoded] = {}


def _encode(place: _Place, split: str) -> Encoded:
    """Tokenise once per worker; the little that a text takes as tokens is kept."""
    key = (place.host.name, place.record["fingerprint"], split)
    if key not in _ENCODED:
        host = place.host
        _ENCODED[key] = encode(host.tokenizer, place.task, split, host.geometry.kind)
    return _ENCODED[key]

"""Assess modules on a host: their ports by one method or several, the controls and native modules,
as a study's rows.

Scratch modules of all seeds, which trained in full are the native ones, are one pass of the host;
the ports and samplings of all seeds are another, side by side as lanes. A port that brings
embeddings along has a pass to itself. No control has any: nothing of what a module learnt is in
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any

from peftport.correction import agreement
from peftport.errors import BadInput, RunFailed
from peftport.modules import HostName, Module
from peftport.porting import SAMPLINGS, judge, port
from peftport.porting.methods import Way, others
from peftport.progress import Portion
from peftport.studies.donors import answers_of, corrected_answers
from peftport.studies.ports import PortJob, Taken, port_apart
from peftport.studies.schema import figures_of
from peftport.studies.trial import Found, Lane, Trial
from peftport.studies.ways import OF
from peftport.techniques import technique
from peftport.techniques.base import Parameters
from peftport.techniques.embeddings import without_embeddings
from peftport.techniques.head import WEIGHT
from peftport.training import TrainingSettings
from peftport.training.module import initial_module

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.tasks import Task


@dataclass(frozen=True)
class Cost:
    """What ports by one method took, a figure for each: seconds, bytes of memory, and the training
    steps that the method itself took on the receiving host."""

    seconds: tuple[float, ...]
    memory: tuple[float, ...]
    steps: int = 0


@dataclass(frozen=True)
class Findings:
    """What was found, as a study exports it.

    rows: one mapping a run, with a study's columns. scored: run id -> what is kept of the test
    rows. gold: task -> what is true of them, n_test long. rates: the learning rate of each
    condition. costs: of each method. refused: methods that cannot port these modules there -> why.
    """

    rows: list[dict[str, Any]]
    scored: dict[str, Any]
    gold: dict[str, Any]
    rates: dict[str, float]
    costs: dict[str, Cost]
    refused: dict[str, str]


@dataclass
class Assessment:
    """What is to be assessed.

    modules: one for each of `seeds`, all of one technique and configuration, made for one host.
    budgets: steps of training on the receiving host at which everything is tested.
    seeds: of the order of the data, of what methods and controls draw, and of native modules.
    native_steps: how long a native module trains.
    rates: candidate learning rates; with more than one, each condition takes the one that is best
        on the validation split where its training ends: at the last budget, native modules at
        `native_steps`, and fresh ones beside a method that trains itself after as many steps.
    ways: the port methods. texts, source: without labels, for methods that look at them.
    origin: loads the modules' own host, for their agreement with what is made of them; None where
        it is not at hand.
    progress: told what is done next. portion: told which share of a port is done.
    """

    modules: Sequence[Module]
    host: Host
    task: Task
    relation: str
    budgets: Sequence[int]
    seeds: Sequence[int]
    native_steps: int
    rates: Sequence[float]
    settings: TrainingSettings
    ways: Sequence[Way]
    texts: tuple[str, ...] = ()
    source: str = ""
    origin: Callable[[], Host] | None = None
    progress: Callable[[str], None] = lambda text: None
    portion: Portion = lambda _share, _what: None

    def __post_init__(self) -> None:
        self.module = self.modules[0]
        self.trial = Trial(self.host, self.task, self.settings, self.progress)
        classes = self.trial.readout.classes
        if self.task.asks.of_classes and classes not in (0, self.module.classes):
            raise BadInput(
                f"task {self.task.name} has {classes} classes and the module was "
                f"trained for {self.module.classes}."
            )
        self.task.split("train")  # native modules learn from it: said before anything is ported

    def run(self) -> Findings:
        """Port, train and test everything.

        Raises:
            BadInput: no method can port the modules to the host; the message says why.
        """
        ways, refused = self._applying()
        taken = {way.written: [self._port(way, i) for i in range(len(self.seeds))] for way in ways}
        costs = {written: _cost(ports) for written, ports in taken.items()}
        ported = [
            self._lane("ported", written, place, result)
            for written, ports in taken.items()
            for place, result in enumerate(ports)
        ]
        sampled, scratch = list(self._sampled(taken)), self._scratch()
        apart = self._apart(cost.steps for cost in costs.values())
        rates = self._choose(ported + sampled + scratch, scratch, apart)
        found = [
            *self.trial.bare(self.seeds, self.module.record.head),
            *self.trial.train(ported + sampled, self.budgets, rates),
            *self._fresh_ones(scratch, rates, apart),
        ]
        return self._collect(found, rates, costs, refused)

    def _applying(self) -> tuple[list[Way], dict[str, str]]:
        """The ways that can port the module here, and why the others cannot."""
        shapes = {name: tuple(tensor.shape) for name, tensor in self.module.tensors.items()}
        refused = {}
        for each in self.ways:
            request = each.method.request(
                self.module.record, shapes, self.host.geometry, each.options
            )
            problem = judge(each.method, request).problem
            if problem:
                refused[each.written] = problem
        if len(refused) == len(self.ways):
            told = "; ".join(f"port by {written}: {why}" for written, why in refused.items())
            raise BadInput(f"{told}. {others(request)}")
        return [each for each in self.ways if each.written not in refused], refused

    def _port(self, each: Way, place: int) -> Taken | RunFailed:
        self.progress(f"port by {each.written}, {place + 1} of {len(self.seeds)}")
        try:
            return port_apart(
                PortJob(
                    self.modules[place],
                    self.host.name,
                    each.name,
                    each.options,
                    self.seeds[place],
                    self.texts if "texts" in each.requires else (),
                    self.source,
                    str(self.host.device),
                ),
                self.portion,
            )
        except RunFailed as error:
            return error

    def _lane(self, condition: str, how: str, place: int, result: Taken | RunFailed) -> Lane:
        if isinstance(result, RunFailed):
            return Lane(condition, how, self.seeds[place], error=str(result))
        made = result.module
        return Lane(condition, how, self.seeds[place], made.technique, made.config, made.tensors)

    def _sampled(self, taken: Mapping[str, Sequence[Taken | RunFailed]]) -> Iterator[Lane]:
        """Samples of the modules, or of the first method's ports where those do not fit; named as
        in a study."""
        name = HostName(name=self.host.name, fingerprint=self.host.fingerprint)
        method, first = next(iter(taken.items()))
        for sampling in SAMPLINGS:
            how = sampling if self._fits else f"{sampling}{OF}{method}"
            for place, seed in enumerate(self.seeds):
                model: Module | RunFailed = self.modules[place]
                if not self._fits:
                    result = first[place]
                    model = result if isinstance(result, RunFailed) else result.module
                if isinstance(model, RunFailed):
                    yield Lane("sampled", how, seed, error=str(model))
                    continue
                made = port(model, self.host.geometry, name, sampling, seed=seed).module
                yield Lane("sampled", how, seed, made.technique, made.config, made.tensors)

    @cached_property
    def _fits(self) -> bool:
        """Whether the modules' tensors, but for embeddings, are those that they would have on the
        receiving host."""
        body = without_embeddings(self.module.tensors)
        shapes = {name: tuple(tensor.shape) for name, tensor in body.items()}
        wanted = {name: tuple(t.shape) for name, t in self._fresh(0).items()}
        return shapes == wanted

    def _fresh(self, seed: int) -> Parameters:
        made, record = technique(self.module.technique), self.module.record
        classes = self.module.classes
        return initial_module(made, self.module.config, self.host, classes, seed, record.head)

    def _scratch(self) -> list[Lane]:
        name, config = self.module.technique, self.module.config
        return [Lane("scratch", "", seed, name, config, self._fresh(seed)) for seed in self.seeds]

    def _apart(self, steps: Iterable[int]) -> dict[str, int]:
        """Trainings of fresh modules that end elsewhere than at the last budget, by what their
        learning rate is chosen for: the native ones, and those of as many steps as a method takes
        itself, unless a budget is as many."""
        more = sorted(set(steps) - {0, *self.budgets})
        return {"native": self.native_steps} | {f"scratch, {each} steps": each for each in more}

    def _choose(
        self, lanes: list[Lane], scratch: list[Lane], apart: Mapping[str, int]
    ) -> dict[str, float]:
        """The learning rate of each condition: the best by the mean of the kind's primary metric on
        the validation split, where its training ends. What is not trained has the first."""
        rates = dict.fromkeys([*(lane.name for lane in lanes), *apart], self.rates[0])
        if len(self.rates) == 1:
            return rates
        scores: dict[str, dict[float, float]] = {}
        for rate in self.rates:
            if max(self.budgets):
                for name, score in self._tried(lanes, max(self.budgets), rate).items():
                    scores.setdefault(name, {})[rate] = score
            for name, steps in apart.items():
                (score,) = self._tried(scratch, steps, rate).values()
                scores.setdefault(name, {})[rate] = score
        return rates | {name: max(found, key=found.__getitem__) for name, found in scores.items()}

    def _tried(self, lanes: list[Lane], steps: int, rate: float) -> dict[str, float]:
        """The mean validation figure of each condition's lanes after training at one rate, more
        being better."""
        split, rates = (
            self.trial.encoded("validation"),
            dict.fromkeys((x.name for x in lanes), rate),
        )
        figures: dict[str, list[float]] = {}
        for tested in self.trial.train(lanes, [steps], rates, split):
            found = tested.evaluation.figures if tested.evaluation else None
            score = self.task.asks.score(found)
            figures.setdefault(tested.lane.name, []).append(score)
        return {name: fmean(found) for name, found in figures.items()}

    def _fresh_ones(
        self, lanes: list[Lane], rates: dict[str, float], apart: Mapping[str, int]
    ) -> Iterator[Found]:
        """Scratch modules at the budgets, and those that are trained apart: of one trajectory where
        they have one learning rate."""
        ends = [(rates["scratch"], budget, "scratch") for budget in self.budgets]
        for name, steps in apart.items():
            ends.append((rates[name], steps, "native" if name == "native" else "scratch"))
        for rate in dict.fromkeys(rate for rate, _, _ in ends):
            wanted = [(steps, condition) for other, steps, condition in ends if other == rate]
            budgets = sorted({steps for steps, _ in wanted})
            for tested in self.trial.train(lanes, budgets, {"scratch": rate}):
                for steps, condition in wanted:
                    if steps == tested.budget:
                        yield replace(tested, lane=replace(tested.lane, condition=condition))

    def head_alone(self) -> float | None:
        """Accuracy of the host with the module's head and nothing else; None where it has none, or
        one for another width."""
        head = {n: t for n, t in self.module.tensors.items() if n.startswith("head.")}
        if WEIGHT not in head or head[WEIGHT].shape[-1] != self.host.geometry.width:
            return None
        tested = self.trial.without_module(head)
        return None if tested is None else self.task.asks.score(tested.figures)

    def _agreement(self, found: Sequence[Found]) -> dict[int, float | None]:
        """Place of a ported module in `found` -> its agreement with its donor on its own host."""
        if self.origin is None or self.trial.unlabelled is None:
            return {}
        self.progress("what the modules answer on their own host")
        donors = answers_of(self.origin(), self.modules, self.task)
        donor_of = dict(zip(self.seeds, donors, strict=True))
        agreed = {}
        for place, each in enumerate(found):
            if each.lane.condition == "ported" and each.evaluation is not None:
                theirs, ours = donor_of[each.lane.seed], corrected_answers(each.evaluation)
                if theirs is not None and ours is not None:
                    agreed[place] = agreement(theirs, ours)
        return agreed

    def _collect(
        self,
        found: Sequence[Found],
        rates: dict[str, float],
        costs: dict[str, Cost],
        refused: dict[str, str],
    ) -> Findings:
        rows, scored = [], {}
        agreed = self._agreement(found)
        for number, each in enumerate(found):
            run_id = f"assess-{number}"
            row = self._row(run_id, each)
            if "agreement" in row:
                row["agreement"] = agreed.get(number)
            rows.append(row)
            if each.evaluation is not None:
                scored[run_id] = each.evaluation.scored
        kind, task = self.task.asks, self.task
        gold = {task.name: kind.read_gold(kind.gold(task, "test"), task.record())}
        return Findings(rows, scored, gold, rates, costs, refused)

    def _row(self, run_id: str, found: Found) -> dict[str, Any]:
        record, lane = self.module.record, found.lane
        nothing = dict.fromkeys(figures_of(self.task.asks))
        return {
            "run_id": run_id,
            "study": "assess",
            "status": "failed" if found.error else "done",
            "technique": "" if lane.condition == "host" else record.technique,
            "condition": lane.condition,
            "method": lane.how if lane.condition == "ported" else "",
            "control": lane.how if lane.condition == "sampled" else "",
            "origin": record.host.name,
            "receiver": self.host.name,
            "relation": self.relation,
            "origin_task": record.task["name"],
            "task": self.task.name,
            "budget": found.budget,
            "seed": lane.seed,
            **nothing,
            **(found.evaluation.figures if found.evaluation else {}),
            "train_seconds": found.seconds,
            "error": found.error,
        }


def _cost(ports: Sequence[Taken | RunFailed]) -> Cost:
    done = [each for each in ports if isinstance(each, Taken)]
    steps = max((int((each.module.record.port or {}).get("steps", 0)) for each in done), default=0)
    return Cost(tuple(each.seconds for each in done), tuple(each.memory for each in done), steps)

"""Distillation: a new module learns, on the receiving host, what the donor answers.

The originating host with its module gives every unlabelled text the probabilities of its classes,
or writes an answer to it, as the donor's task has it; a new module, of any technique, is trained on
the receiving host to do the same (Hinton et al. 2015, arXiv 1503.02531; of what is written Kim &
Rush 2016, arXiv 1606.07947; for modules Trans-LoRA, arXiv 2405.17258, which makes its texts
itself). Nothing of the donor's tensors is used, so the hosts may be as unlike as they like.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import AfterValidator, Field, WithJsonSchema

from peftport.errors import BadInput, RunFailed
from peftport.kind import Asking, Lessons
from peftport.porting.account import Account, Entry
from peftport.porting.answers import no_answers
from peftport.porting.base import Made, MethodOptions, PortMethod, Request
from peftport.porting.estimate import CostEstimate, Load, estimated, weights_of
from peftport.porting.prompts import made_prompts
from peftport.porting.reading import task_of
from peftport.tasks import Task
from peftport.techniques import TECHNIQUES, technique
from peftport.techniques.base import Parameters, Technique, stack_lanes, take_lane
from peftport.techniques.head import head_shapes
from peftport.training import TrainingSettings, readout_of, trajectory
from peftport.training.module import initial_module
from peftport.training.teacher import Teacher

if TYPE_CHECKING:
    from peftport.hosts.host import Host
    from peftport.porting.means import Means, Side


_log = logging.getLogger(__name__)
_PLACES = ("targets", "attentions")
"""Options of techniques that name places of a host."""


def _known(name: str) -> str:
    try:
        return TECHNIQUES.require(name)
    except BadInput as error:
        raise ValueError(str(error).rstrip(".")) from error


AnyTechnique = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"enum": list(TECHNIQUES)}, mode="serialization")
]


class DistillOptions(MethodOptions):
    """What learns, and for how long."""

    later = frozenset({"samples", "temperature", "keep", "make_prompts", "distributions"})

    technique: AnyTechnique | None = Field(
        None, description="of the new module, with its defaults; the donor's own if not given"
    )
    steps: int = Field(100, ge=1, description="training steps")
    batch_size: int = Field(16, ge=1, description="texts a step")
    learning_rate: float | None = Field(None, gt=0, description="the technique's own if not given")
    samples: int = Field(
        1, ge=1, description="answers that a donor writes to each text; 1: the most probable one"
    )
    temperature: float = Field(1.0, gt=0, description="of the draw where there are several")
    keep: float = Field(
        1.0, gt=0, le=1, description="share of written answers, the donor's most probable ones"
    )
    make_prompts: int = Field(
        0,
        ge=0,
        description="so many prompts more, which the bare originating host makes",
    )
    distributions: bool = Field(
        True,
        description="whether it learns how probable the donor finds other tokens than those that "
        "it writes, where both hosts have one vocabulary",
    )


class Distill(PortMethod):
    """A new module, taught by the donor on unlabelled text."""

    name = "distill"
    about = (
        "A new module of any technique learns from what the donor answers or writes to unlabelled "
        "text. For any two hosts."
    )
    limits = (
        "It trains: minutes and not seconds. Texts of the task's domain are best. The new module "
        "can be no better than the donor's answers."
    )
    source = (
        "Hinton et al. 2015 (arXiv 1503.02531), Kim & Rush 2016 (arXiv 1606.07947), Trans-LoRA "
        "(arXiv 2405.17258)"
    )
    needs = frozenset({"weights", "texts"})
    Options = DistillOptions
    carries = False

    def refusal(self, request: Request) -> str | None:
        """A donor that tells no classes apart has no answers to learn."""
        return no_answers(request) or super().refusal(request)

    def makes(self, request: Request) -> str:
        """The technique that was asked for, the donor's if none was."""
        return str(request.options.technique or request.donor.technique)

    def configuration(self, request: Request) -> Any:
        """The donor's where its technique stays and has the same places there."""
        return _student(request)[1]

    def account(self, request: Request) -> Account:
        """Every tensor is new."""
        made, config, _ = _student(request)
        shapes = made.shapes(config, request.receiver)
        shapes |= head_shapes(request.receiver, request.classes)
        why = "learnt from the donor's answers"
        entries = (Entry(None, name, "initialised", s, why=why) for name, s in shapes.items())
        return Account(self.name, tuple(entries))

    def estimate(self, request: Request, load: Load) -> CostEstimate:
        """A pass over the texts on one host, and every step forwards and backwards on the other."""
        options, origin, receiver = request.options, request.origin, request.receiver
        tokens = options.steps * options.batch_size * load.tokens
        products = 2.0 * load.all_tokens * weights_of(origin) + 5.0 * tokens * weights_of(receiver)
        weights = max(weights_of(g) + g.vocabulary * g.width for g in (origin, receiver))
        kept = options.batch_size * load.tokens * len(receiver.blocks)
        held = 4.0 * (weights + kept * (6 * receiver.ffn + 12 * receiver.width))
        return estimated((origin, receiver), products, held, self.written(request))

    def loads(self, request: Request) -> bool:
        """One to answer, the other to be trained on."""
        return True

    def problem(self, account: Account) -> str | None:
        """A new module is always whole."""
        return None

    def port(
        self,
        request: Request,
        donor: Parameters,
        generator: torch.Generator,
        means: Means | None = None,
    ) -> Made:
        """Label the texts on the originating host, train on the receiving one.

        Raises:
            BadInput: one of the hosts cannot tell the words of the donor's classes apart.
            RunFailed: the loss was not finite.
        """
        assert means is not None
        task, options = task_of(request.donor.task), request.options
        host = means.origin.load()
        seed = int(torch.randint(2**31, (1,), generator=generator))
        texts = means.texts
        if options.make_prompts:
            means.progress(0.0, "prompts are made")
            texts += made_prompts(host, texts, options.make_prompts, seed)
        means.progress(0.05, "the module's own answers")
        body = technique(request.donor.technique)
        teacher = Teacher(host, body, request.config, donor | means.origin.besides)
        shared = options.distributions and _one_vocabulary(host, means.receiver)
        how = Asking(options.samples, options.temperature, options.keep, seed, shared)
        lessons = task.asks.lessons(teacher, task, texts, how)
        made, config, moved = _student(request)
        if moved:
            usual = f"the new module stands at the usual places of {means.receiver.name}"
            _log.warning("notice: %s and not at the donor's: %s", usual, moved)
        host = means.receiver.load()
        means.progress(0.5, "a new module learns them")
        tensors, found = _taught(host, made, config, task, lessons, options, seed)
        config, tensors = made.fold(config, host.geometry, tensors)
        record = {"technique": made.name, "config": config.model_dump(mode="json"), "head": "mean"}
        details = {"steps": options.steps, "seed_of_start": seed, **found}
        details |= {"usual_places": moved} if moved else {}
        return Made(tensors, self.account(request), record, {**details, **lessons.told})


def _one_vocabulary(host: Host, other: Side) -> bool:
    """Whether the tokens of one host mean the same to another."""
    from peftport.hosts.host import load_tokenizer

    theirs = load_tokenizer(other.folder, other.name)
    return bool(host.tokenizer.get_vocab() == theirs.get_vocab())


def _student(request: Request) -> tuple[Technique, Any, str]:
    """The new module's technique and configuration; and why it stands at the receiving host's usual
    places, where the donor's are none of that host.

    Raises:
        BadInput: the configuration does not fit the receiving host at its usual places either.
    """
    wanted = request.options.technique
    if wanted is not None and wanted != request.donor.technique:
        return technique(wanted), technique(wanted).configure({}), ""
    made = technique(request.donor.technique)
    try:
        made.shapes(request.config, request.receiver)
    except BadInput as error:
        usual = {key: value for key, value in request.donor.config.items() if key not in _PLACES}
        config = made.configure(usual)
        made.shapes(config, request.receiver)
        return made, config, str(error)
    return made, request.config, ""


def _taught(
    host: Host,
    made: Technique,
    config: Any,
    task: Task,
    lessons: Lessons,
    options: DistillOptions,
    seed: int,
) -> tuple[Parameters, dict[str, Any]]:
    """The tensors of a new module after its training, and what a record says of that: the last mean
    loss in nats."""
    encoded = lessons.encode(host.tokenizer, host.geometry.kind)
    usual = readout_of(host, task)
    readout = lessons.readout(encoded, usual)
    start = initial_module(made, config, host, readout.classes, seed)
    (reading,) = trajectory(
        host,
        made,
        config,
        stack_lanes([start]),
        encoded,
        readout,
        settings=TrainingSettings(batch_size=options.batch_size, precision=host.precision),
        budgets=[options.steps],
        learning_rates=[options.learning_rate or made.learning_rate],
        seeds=[seed],
    )
    if reading.failures[0]:
        raise RunFailed(f"port by distill on {host.name}: {reading.failures[0]}.")
    told: dict[str, Any] = {"loss": round(reading.losses[0], 4)}
    if readout is not usual:
        told["distributions"] = True
    return take_lane(reading.parameters, 0), told

"""What a study runs: the model of a specification, and how one is read from YAML.

No name in a specification is looked up here; hosts, tasks and their files are found by
`peftport.studies.resolve`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import product
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from peftport.errors import BadInput
from peftport.hosts.genealogy import Genealogy, Relation
from peftport.hosts.precision import PrecisionChoice
from peftport.kind import KINDS
from peftport.registry import did_you_mean
from peftport.techniques import TECHNIQUES

Condition = Literal["ported", "sampled", "scratch", "native", "host"]
_MOST = 2**63 - 1
"""What a store and a generator of random numbers can hold."""
Positive = Annotated[int, Field(gt=0, le=_MOST)]
NotNegative = Annotated[int, Field(ge=0, le=_MOST)]
Rate = Annotated[float, Field(gt=0, le=10)]

AUTO: Literal["auto"] = "auto"

ROLES = ("donor", "native", "scratch", "ported", "sampled")
"""What a module is trained as; each may have its own learning rate."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pair(_Strict):
    """A directed pair of hosts: donors are trained on `origin` and received by `receiver`.

    Attributes:
        methods, controls: in place of the study's, where not all of them apply to this pair.
    """

    origin: str
    receiver: str
    relation: Relation
    methods: tuple[str, ...] | None = None
    controls: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _same_means_same(self) -> Pair:
        if (self.relation == "same") != (self.origin == self.receiver):
            raise ValueError(
                f"relation {self.relation!r} does not fit origin {self.origin!r} and receiver "
                f"{self.receiver!r}: 'same' is for a host paired with itself"
            )
        return self


class Continued(_Strict):
    """That a host was pretrained further from the host `of`, and by how much, in any one unit."""

    of: str
    amount: Annotated[float, Field(gt=0)] | None = None


class Setting(_Strict):
    """The task on which donors are trained, and the one on which they are received."""

    origin_task: str
    task: str


class Rates(_Strict):
    """A technique's learning rates by what the module is trained as."""

    donor: Rate | None = None
    native: Rate | None = None
    scratch: Rate | None = None
    ported: Rate | None = None
    sampled: Rate | None = None


class Training(_Strict):
    """How every module of the study is trained; learning rates are constant after warm-up.

    learning_rates_on: host -> technique -> the rate of all that is trained on this host, where it
        needs another one than the others do.
    precision: of the products with the hosts' frozen weights; "auto" is settled when a study is
        begun (`peftport.studies.precision`).
    """

    batch_size: Positive = 16
    warmup: NotNegative = 5
    clip: Annotated[float, Field(gt=0)] = 1.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    precision: PrecisionChoice = AUTO
    learning_rates: dict[str, Rate | Rates]
    learning_rates_on: dict[str, dict[str, Rate]] = {}

    def settings(self) -> dict[str, Any]:
        """What training takes, without learning rates. A precision is only said where it is not
        full: runs keep the names that they had before there was a choice."""
        assert self.precision != AUTO, "with_precision settles it first"
        found = self.model_dump(exclude={"learning_rates", "learning_rates_on"})
        return {k: v for k, v in found.items() if (k, v) != ("precision", "fp32")}


class Spec(_Strict):
    """A study's specification.

    Attributes:
        techniques: name -> settings that differ from the technique's own.
        hosts, tasks: name used in the study -> where it is: a hub name, a path or `lab:NAME`.
        kind: of the tasks, where their data do not tell it; `system`, `max_answer` and `scorer` of
            tasks that ask for text, as `tasks.load_task` takes them.
        continued: host -> which one it continues, where the host's own record does not tell.
        pairs, settings: of hosts and of tasks; every pair is run in every setting.
        methods, controls: port methods of `ported` runs, samplings of `sampled` runs.
        texts: unlabelled, for port methods that look at them: a file, a folder or a task's name;
            `texts_count` of them are drawn.
        budgets: training steps on the receiving host at which a run is tested.
        seeds: the seeds of every run; a number n stands for 0 to n-1.
        donor_steps, native_steps: length of a donor's training and of native training.
        split: where runs are tested; "validation" is for choices, such as of learning rates.
        limit_train, limit_test: use only so many rows to train and to test on.
        lanes: most trajectories that one worker trains side by side, or "auto": chosen by a
            measurement when the study is begun. Changes no run, but the order of floating-point
            sums.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    about: str = ""
    techniques: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    hosts: dict[str, str] = {}
    tasks: dict[str, str] = {}
    kind: str | None = None
    system: str | None = None
    max_answer: Positive | None = None
    scorer: str | None = None
    continued: dict[str, Continued] = {}
    pairs: Annotated[tuple[Pair, ...], Field(min_length=1)]
    settings: Annotated[tuple[Setting, ...], Field(min_length=1)]
    conditions: Annotated[tuple[Condition, ...], Field(min_length=1)] = (
        "ported",
        "sampled",
        "scratch",
        "native",
        "host",
    )
    methods: tuple[str, ...] = ("copy",)
    controls: tuple[str, ...] = ("gaussian",)
    texts: str | None = None
    texts_count: Positive = 1000
    budgets: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    seeds: Annotated[tuple[NotNegative, ...], Field(min_length=1)]
    donor_steps: Positive | None = None
    native_steps: Positive | None = None
    training: Training
    split: Literal["test", "validation"] = "test"
    limit_train: Positive | None = None
    limit_test: Positive | None = None
    lanes: Positive | Literal["auto"] = 16

    @property
    def most_lanes(self) -> int:
        """`lanes` as a number, a usual one while it is not settled."""
        return 16 if self.lanes == AUTO else int(self.lanes)

    @property
    def asked(self) -> tuple[tuple[str, Any], ...]:
        """What it says of all its tasks, as `tasks.load_task` takes it."""
        said = {key: getattr(self, key) for key in ("kind", "system", "max_answer", "scorer")}
        return tuple((key, value) for key, value in said.items() if value is not None)

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str | None) -> str | None:
        if value is not None and value not in KINDS:
            raise ValueError(
                f"unknown task kind {value!r}.{did_you_mean(value, KINDS)} "
                f"Known: {', '.join(KINDS)}"
            )
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_of_seeds(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 < value <= 1_000_000:
                raise ValueError("a number of seeds lies between 1 and a million")
            return tuple(range(value))
        return value

    @field_validator("pairs", "settings", "conditions", "methods", "controls", "budgets", "seeds")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            twice = Counter(value).most_common(1)[0][0]
            raise ValueError(f"{twice!r} stands in it twice")
        return value

    @field_validator("pairs")
    @classmethod
    def _each_pair_once(cls, value: tuple[Pair, ...]) -> tuple[Pair, ...]:
        ways = [(pair.origin, pair.receiver) for pair in value]
        if len(set(ways)) != len(ways):
            origin, receiver = Counter(ways).most_common(1)[0][0]
            raise ValueError(f"{origin} -> {receiver} stands in it twice")
        return value

    @field_validator("budgets")
    @classmethod
    def _ascending(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _complete(self) -> Spec:
        wants = set(self.conditions)
        kinds = {kind for pair in self.pairs for kind, _ in self.ways(pair)}
        needs = {
            "methods": "ported" in wants and "ported" not in kinds,
            "controls": "sampled" in wants and "sampled" not in kinds,
            "donor_steps": wants & {"ported", "sampled"} and self.donor_steps is None,
            "native_steps": "native" in wants and self.native_steps is None,
        }
        for key, missing in needs.items():
            if missing:
                raise ValueError(f"{key!r} is needed for conditions {', '.join(self.conditions)}")
        self._check_techniques()
        self._check_genealogy()
        return self

    def _check_genealogy(self) -> None:
        used = self.hosts_used()
        stated = Genealogy({label: found.of for label, found in self.continued.items()})
        for label, found in self.continued.items():
            for name in (label, found.of):
                if name not in used:
                    raise ValueError(
                        f"continued.{label}: {name!r} stands in no pair.{did_you_mean(name, used)}"
                    )
            line = stated.line(label)
            if (last := stated.parents.get(line[-1])) is not None:
                raise ValueError(f"continued: {' continues '.join([*line, last])}")

    def _check_techniques(self) -> None:
        own = self.training.learning_rates_on
        named: dict[str, Iterable[str]] = {
            "techniques": self.techniques,
            "training.learning_rates": self.training.learning_rates,
            **{f"training.learning_rates_on.{host}": rates for host, rates in own.items()},
        }
        for key, names in named.items():
            for technique in names:
                if technique not in TECHNIQUES:
                    raise ValueError(
                        f"{key}: unknown technique {technique!r}."
                        f"{did_you_mean(technique, TECHNIQUES)} Known: {', '.join(TECHNIQUES)}"
                    )
        known = self.hosts | self.hosts_used()
        for host in own:
            if host not in known:
                raise ValueError(
                    f"training.learning_rates_on: {host!r} is no host here."
                    f"{did_you_mean(host, known)}"
                )
        for technique, role, host in product(self.techniques, self.roles(), self.hosts_used()):
            self.learning_rate(technique, role, host)

    def hosts_used(self) -> dict[str, str]:
        """Every host of the study and where it is."""
        labels = {label for pair in self.pairs for label in (pair.origin, pair.receiver)}
        return {label: self.hosts.get(label, label) for label in sorted(labels)}

    def tasks_used(self) -> dict[str, str]:
        """Every task of the study and where it is."""
        labels = {label for s in self.settings for label in (s.origin_task, s.task)}
        return {label: self.tasks.get(label, label) for label in sorted(labels)}

    def ways(self, pair: Pair) -> list[tuple[str, str]]:
        """How modules are received by a pair: ("ported", method) and ("sampled", sampling)."""
        own = {"ported": pair.methods, "sampled": pair.controls}
        shared = {"ported": self.methods, "sampled": self.controls}
        return [
            (kind, how)
            for kind, chosen in own.items()
            if kind in self.conditions
            for how in (shared[kind] if chosen is None else chosen)
        ]

    def roles(self) -> tuple[str, ...]:
        """What modules are trained as in this study."""
        wants = set(self.conditions)
        if wants & {"ported", "sampled"}:
            wants.add("donor")  # type: ignore[arg-type]
        return tuple(role for role in ROLES if role in wants)

    def learning_rate(self, technique: str, role: str, host: str) -> float:
        """The learning rate of `technique` trained as `role` on `host`, by its label; ValueError
        when there is none."""
        own = self.training.learning_rates_on.get(host, {}).get(technique)
        if own is not None:
            return own
        rates = self.training.learning_rates.get(technique)
        rate = getattr(rates, role) if isinstance(rates, Rates) else rates
        if rate is None:
            raise ValueError(f"training.learning_rates.{technique} has no rate for {role!r}")
        return float(rate)


_MODELS: tuple[tuple[tuple[str, ...], type[BaseModel]], ...] = (
    (("training", "learning_rates"), Rates),
    (("training",), Training),
    (("continued",), Continued),
    (("pairs",), Pair),
    (("settings",), Setting),
    ((), Spec),
)


def parse_spec(data: Any, source: str) -> Spec:
    """Make a specification of what was read from `source` (named in messages).

    Raises:
        BadInput: an unknown key, a missing one or a value that cannot be, with its key path.
    """
    if not isinstance(data, dict):
        raise BadInput(f"{source}: expected keys and values, found {type(data).__name__}.")
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{source}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    """The errors as one line, each with its key path, unknown keys first."""
    found = sorted(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    # A value that fits neither of two types is reported once for each: the first says enough.
    seen: dict[tuple[int | str, ...], str] = {}
    for entry in found:
        place = tuple(part for part in entry["loc"] if part not in ("Rates", "float"))
        place = tuple(part for part in place if not str(part).startswith("constrained"))
        if not any(place[: len(known)] == known or known[: len(place)] == place for known in seen):
            seen[place] = _sentence(place, dict(entry))
    return " ".join(list(seen.values())[:5])


def _sentence(place: tuple[int | str, ...], entry: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in place)
    if entry["type"] == "extra_forbidden":
        known = _known_keys(place)
        return (
            f"unknown key {path!r}.{did_you_mean(str(place[-1]), known)} "
            f"Known here: {', '.join(known)}."
        )
    if entry["type"] == "missing":
        return f"{path!r} is missing."
    message = str(entry["msg"]).removeprefix("Value error, ")
    if entry["type"] == "tuple_type":
        message = "expected a list, or how many" if path == "seeds" else "expected a list"
    return f"{path}: {message}." if path else f"{message}."


def _known_keys(place: tuple[int | str, ...]) -> Iterable[str]:
    for prefix, model in _MODELS:
        if place[: len(prefix)] == prefix and len(place) > len(prefix):
            return tuple(model.model_fields)
    raise AssertionError(place)

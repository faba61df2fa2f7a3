"""Finds what a specification names: hosts, tasks, techniques, methods, and fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftport.errors import BadInput
from peftport.files import exists
from peftport.hosts.fingerprint import of_weights, same_host
from peftport.hosts.genealogy import Genealogy, recorded, settled
from peftport.hosts.source import find_host
from peftport.kind import Kind, shared_kind
from peftport.registry import did_you_mean
from peftport.studies.spec import Pair, Spec
from peftport.studies.work import Texts

if TYPE_CHECKING:
    from peftport.tasks import Task


@dataclass(frozen=True)
class Facts:
    """What names in a study stand for.

    Attributes:
        hosts: label -> location, fingerprint, family and kind; `tokenizer`, what names it
            (`peftport.hosts.vocabulary.tokenizer_mark`), once a study runs; `parent`, the label of
            the host that it continues, and `continued`, by how much, where that is known.
        tasks: label -> location and what `Task.record` says.
        techniques: name -> configuration with every default filled in.
        texts: where the texts of port methods lie, with their hash; None where no method asks.
        ways: how modules are received -> the methods with every option
            (`peftport.studies.ways.resolved`).
        looking: the port methods of the study that look at texts.
        gold: task label -> what is true of every test example, as bytes (`Kind.gold`).
        unknown: label -> why it has no fingerprint yet; empty once a study runs.
    """

    hosts: dict[str, dict[str, Any]]
    tasks: dict[str, dict[str, Any]]
    techniques: dict[str, dict[str, Any]]
    ways: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    texts: Texts | None = None
    looking: tuple[str, ...] = ()
    gold: dict[str, bytes] = field(default_factory=dict, repr=False)
    unknown: dict[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        """The kind of the study's tasks."""
        return shared_kind(self.tasks)

    def marks(self) -> tuple[Mapping[str, Any], ...]:
        """What names of runs rest on: fingerprints of hosts and of tasks by label (what is unknown
        stands for itself), configurations of techniques, the texts' hash by port method, and what
        methods compute. In the order of `Identity`'s arguments."""
        return (
            {label: h.get("fingerprint", f"name:{label}") for label, h in self.hosts.items()},
            {label: t.get("fingerprint", f"name:{label}") for label, t in self.tasks.items()},
            self.techniques,
            {how: self.texts.mark for how in self.looking if self.texts},
            self.ways,
        )

    def record(self) -> dict[str, Any]:
        """What a store keeps of it, JSON-ready."""
        from peftport.modules.module import versions

        return {
            "hosts": self.hosts,
            "tasks": self.tasks,
            "techniques": self.techniques,
            "ways": self.ways,
            "texts": self.texts.mark if self.texts else None,
            "versions": versions(),
        }


def resolve(spec: Spec, *, fetch: bool) -> Facts:
    """Find everything that a specification names.

    Args:
        fetch: get from the hub, and build in the lab, what is not on this machine; otherwise it
            is left unknown.

    Raises:
        BadInput: a name that stands for nothing, data that cannot be read, a technique's option
            that does not exist, or a combination that cannot be run.
    """
    facts = Facts({}, {}, _configurations(spec), _ways(spec))
    for label, location in spec.hosts_used().items():
        facts.hosts[label] = _host(label, location, fetch, facts.unknown)
    _add_genealogy(spec, facts.hosts)
    for label, location in spec.tasks_used().items():
        facts.tasks[label], gold = _task(spec, label, location, fetch, facts.unknown)
        if gold is not None:
            facts.gold[label] = gold
    looking = _looking(spec)
    texts = _texts(spec, looking, fetch, facts.unknown) if looking else None
    facts = replace(facts, texts=texts, looking=looking)
    _check_combinations(spec, facts)
    return facts


def as_begun(facts: Facts, hosts: Mapping[str, Mapping[str, Any]]) -> Facts:
    """The facts of a study that goes on, with the hosts' fingerprints of its beginning where those
    are of weights alone, as older packages made them, and the weights are still these: its runs
    are named by them."""
    kept = {}
    for label, host in facts.hosts.items():
        mark, before = host.get("fingerprint", ""), hosts.get(label, {}).get("fingerprint") or ""
        older = bool(before) and "-" not in before and same_host(before, mark)
        kept[label] = host | {"fingerprint": before} if older else host
    return replace(facts, hosts=kept)


def texts_at(location: str, count: int) -> tuple[tuple[str, ...], str]:
    """The texts for port methods and their hash; BadInput when there are none."""
    from peftport.porting.texts import calibration_texts

    texts = calibration_texts(location, count)
    return texts, hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def load_limited(
    location: str,
    limit_train: int | None,
    split: str,
    limit_test: int | None,
    asked: tuple[tuple[str, Any], ...] = (),
) -> Task:
    """The task, with at most so many rows to train on and in the split to test on.

    Args:
        asked: what the study says of it (`Spec.asked`).
    """
    from peftport.tasks import load_task

    return load_task(
        location,
        limit_train=limit_train,
        limit_validation=limit_test if split == "validation" else None,
        limit_test=limit_test if split == "test" else None,
        **dict(asked),
    )


def _ways(spec: Spec) -> dict[str, list[dict[str, Any]]]:
    """How modules are received -> what that computes; BadInput for a name that stands for
    nothing."""
    from peftport.studies.ways import resolved

    used = dict.fromkeys(way for pair in spec.pairs for way in spec.ways(pair))
    for kind, how in used:
        _check_way(kind, how)
    return {how: resolved(how) for _, how in used}


def _check_way(kind: str, how: str) -> None:
    """A port is by a method; a sample is by a sampling, of the donor or of what a port made."""
    from peftport.porting import SAMPLINGS
    from peftport.porting.methods import way
    from peftport.studies.ways import OF

    sampling, _, method = how.partition(OF) if kind == "sampled" else ("", "", how)
    if kind == "sampled" and sampling not in SAMPLINGS:
        raise BadInput(
            f"controls: unknown sampling {sampling!r}.{did_you_mean(sampling, SAMPLINGS)} "
            f"Known: {', '.join(SAMPLINGS)}."
        )
    if method and way(method).method.control:
        key = "methods" if kind == "ported" else "controls"
        raise BadInput(f"{key}: {method!r} is a control, not a port method.")


def _configurations(spec: Spec) -> dict[str, dict[str, Any]]:
    from peftport.techniques import technique

    return {
        name: technique(name).configure(options).computed()
        for name, options in spec.techniques.items()
    }


def _host(label: str, location: str, fetch: bool, unknown: dict[str, str]) -> dict[str, Any]:
    from peftport.hosts.fingerprint import fingerprint
    from peftport.hosts.host import load_tokenizer
    from peftport.hosts.source import geometry_in
    from peftport.hosts.vocabulary import tokenizer_mark

    source = find_host(location)
    if source.origin == "hub" and not fetch:
        unknown[label] = "on the hub; looked up when the study runs"
        return {"location": location}
    folder = source.files()
    geometry = geometry_in(folder, location)
    found = {
        "location": location,
        "fingerprint": fingerprint(folder),
        "family": geometry.family,
        "kind": geometry.kind,
        "geometry": geometry.record(),
    }
    if fetch:  # a plan goes without what takes seconds
        found["tokenizer"] = tokenizer_mark(load_tokenizer(folder, location))
    return found


def _add_genealogy(spec: Spec, hosts: dict[str, dict[str, Any]]) -> None:
    """Say of every host which other one of the study it continues, from the specification or from
    the record that a pretrained host keeps."""
    labels = {
        of_weights(host["fingerprint"]): label
        for label, host in hosts.items()
        if "fingerprint" in host
    }
    known = recorded(*(find_host(hosts[label]["location"]).files() for label in labels.values()))
    for label, host in hosts.items():
        given, mark = spec.continued.get(label), of_weights(host.get("fingerprint", ""))
        # Of a line of hosts some may not stand in the study.
        origin = next((each for each in known.ancestors(mark) if each in labels), None)
        if given:
            found = {"parent": given.of, "continued": given.amount}
        elif origin:
            found = {"parent": labels[origin], "continued": known.amount(origin, mark)}
        else:
            continue
        host |= {key: value for key, value in found.items() if value is not None}


def _task(
    spec: Spec, label: str, location: str, fetch: bool, unknown: dict[str, str]
) -> tuple[dict[str, Any], bytes | None]:
    if _on_hub(location) and not fetch:
        unknown[label] = "on the hub; looked up when the study runs"
        return {"location": location}, None
    task = load_limited(location, spec.limit_train, spec.split, spec.limit_test, spec.asked)
    gold = task.asks.gold(task, spec.split)
    return {"location": location, **task.record()}, gold


def _looking(spec: Spec) -> tuple[str, ...]:
    """The port methods and samplings of the study that look at texts."""
    from peftport.studies.ways import ways

    used = dict.fromkeys(how for pair in spec.pairs for _, how in spec.ways(pair))
    return tuple(how for how in used if any("texts" in way.requires for way in ways(how)))


def _texts(
    spec: Spec, looking: tuple[str, ...], fetch: bool, unknown: dict[str, str]
) -> Texts | None:
    if spec.texts is None:
        raise BadInput(
            f"methods: {', '.join(looking)} needs unlabelled texts. Say under 'texts' where they "
            "are: a file, a folder or a task such as lab:films."
        )
    if _on_hub(spec.texts) and not fetch:
        unknown["texts"] = "on the hub; looked up when the study runs"
        return None
    _, mark = texts_at(spec.texts, spec.texts_count)
    return Texts(spec.texts, spec.texts_count, mark)


def _on_hub(location: str) -> bool:
    path = Path(location)
    looks_local = path.is_absolute() or location.startswith(".") or len(path.parts) > 2
    return not (location.startswith("lab:") or exists(path) or looks_local or path.suffix)


def _check_combinations(spec: Spec, facts: Facts) -> None:
    _check_relations(spec, facts.hosts)
    _check_kind(facts)
    _check_labels(spec, facts.tasks)
    _check_shapes(spec, facts)


def _check_relations(spec: Spec, hosts: Mapping[str, Mapping[str, Any]]) -> None:
    parents = {label: host["parent"] for label, host in hosts.items() if host.get("parent")}
    for pair in spec.pairs:
        ends = (pair.origin, pair.receiver)
        marks = [of_weights(hosts[label].get("fingerprint") or "") for label in ends]
        same = "" not in marks and marks[0] == marks[1]
        found = "same" if same else Genealogy(parents).relation(*ends)
        if found != "same" or same:  # hosts that are not at hand are told by no label
            settled(pair.relation, found, f"pair {pair.origin} -> {pair.receiver}")


def _check_kind(facts: Facts) -> None:
    """The tasks are of one kind, which every host can do."""
    kind = facts.kind
    for label, host in facts.hosts.items():
        if "kind" in host:
            kind.require_host(label, host["kind"])


def _check_labels(spec: Spec, tasks: Mapping[str, Mapping[str, Any]]) -> None:
    for setting in spec.settings:
        ours, theirs = (tasks[label].get("labels") for label in (setting.origin_task, setting.task))
        if ours and theirs and len(ours) != len(theirs):
            raise BadInput(
                f"setting {setting.origin_task} -> {setting.task}: a module for {len(ours)} "
                f"classes cannot be tested on {len(theirs)}."
            )


def _check_shapes(spec: Spec, facts: Facts) -> None:
    """Refuse a module that its host cannot have, and a port that would be empty or partial."""
    known = {label: host for label, host in facts.hosts.items() if "geometry" in host}
    for name, label in product(spec.techniques, known):
        _check_module(name, facts.techniques[name], label, known[label])
    tasks = [facts.tasks[setting.origin_task] for setting in spec.settings]
    for name, pair, task in product(spec.techniques, spec.pairs, tasks):
        if pair.origin in known and pair.receiver in known:
            for _, how in spec.ways(pair):
                _check_port(name, facts.techniques[name], pair, known, how, task)


def _check_module(
    name: str, options: Mapping[str, Any], label: str, host: Mapping[str, Any]
) -> None:
    from peftport.hosts.geometry import LARGEST, geometry_from_record
    from peftport.techniques import technique

    made = technique(name)
    try:
        shapes = made.shapes(made.configure(options), geometry_from_record(host["geometry"]))
    except BadInput as error:
        raise BadInput(f"technique {name} on host {label}: {error}") from error
    for tensor, shape in shapes.items():
        if max(shape) > LARGEST:
            raise BadInput(f"technique {name} on host {label}: {tensor} would be of shape {shape}.")


def _check_port(
    name: str,
    options: Mapping[str, Any],
    pair: Pair,
    hosts: Mapping[str, Mapping[str, Any]],
    how: str,
    task: Mapping[str, Any],
) -> None:
    from peftport.porting.methods import judge
    from peftport.studies.ways import requested

    ends = (hosts[pair.origin]["geometry"], hosts[pair.receiver]["geometry"])
    # Of a sample of a port only the port is looked at: what is sampled afterwards fits.
    wanted, request = requested(how, name, options, *ends, task)[0]
    problem = judge(wanted.method, request).problem
    if problem:
        raise BadInput(
            f"pair {pair.origin} -> {pair.receiver}: {name} cannot be ported by {how}: {problem}. "
            "Take the pair, the technique or the method out of the study."
        )

"""What a study will take: time, memory and disk, from a short measurement."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from math import prod
from typing import Any

from peftport.correction import FEWEST, TEXTS
from peftport.hosts.geometry import geometry_from_record
from peftport.porting.estimate import Load
from peftport.studies.identity import Identity
from peftport.studies.measure import Measurement, geometry_key
from peftport.studies.plan import Arm, Pack, Plan, runs_of
from peftport.studies.resolve import Facts
from peftport.studies.ways import requested, stages
from peftport.techniques import technique
from peftport.techniques.head import head_shapes

# What a row and a donor take in the store beside what is counted: figures, indexes, empty space.
_ROW, _DONOR = 700, 6000


def seconds(plan: Plan, facts: Facts, measured: Measurement) -> float:
    """Time of all ports and packs, one after the other, on the machine that was measured."""
    packs = sum(_pack_seconds(pack, plan, facts, measured) for pack in plan.packs())
    return packs + port_seconds(plan, facts)


def port_seconds(plan: Plan, facts: Facts) -> float:
    """Time of the ports that look at hosts, as `check` estimates it; others take next to none.
    What several lanes of a pack begin with is ported once."""

    @cache
    def taken(stage: str, arm: Arm) -> float:
        return _stage_seconds(stage, arm, plan, facts)

    return sum(taken(*port) for pack in plan.packs() for port in _ports(pack))


def _ports(pack: Pack) -> Iterator[tuple[str, Arm]]:
    """The ports of a pack: how, and an arm between whose hosts it is."""
    done = set()
    for arm, seed in pack.lanes:
        for stage in stages(arm.how) if arm.needs_donor else ():
            port = (stage, seed, arm.origin, arm.origin_task)
            if port not in done:
                done.add(port)
                yield stage, arm


def _stage_seconds(stage: str, arm: Arm, plan: Plan, facts: Facts) -> float:
    """Of the last method of `stage`, on what those before it make."""
    ends = (facts.hosts[arm.origin]["geometry"], facts.hosts[arm.host]["geometry"])
    load, donor = Load(plan.spec.texts_count), facts.techniques[arm.technique]
    way, request = requested(stage, arm.technique, donor, *ends, facts.tasks[arm.origin_task])[-1]
    return way.method.estimate(request, load).seconds if way.requires else 0.0


def _pack_seconds(pack: Pack, plan: Plan, facts: Facts, measured: Measurement) -> float:
    arm = pack.arm
    key = geometry_key(facts.hosts[arm.host])
    pace = measured.paces[key, arm.technique]
    train_tokens, test_tokens = measured.tokens[key, arm.task]
    tests = {
        (number if arm.technique else 0, budget)
        for number, lane in enumerate(pack.lanes)
        for budget, condition in lane.arm.reads
        if condition != "donor"
    }
    rows = arm.steps * len(pack.lanes) * plan.spec.training.batch_size
    task = facts.tasks[arm.task]
    tested = len(tests) * (task["data"][plan.spec.split]["rows"] + _corrected_on(task))
    return rows * train_tokens * pace.train + tested * test_tokens * pace.test


def _corrected_on(task: Mapping[str, Any]) -> int:
    """Texts that a test looks at for the label-free correction, at most; none without classes."""
    data = task["data"]
    texts = data["train"]["rows"] if task["labels"] and "train" in data else 0
    return min(TEXTS, texts) if texts >= FEWEST else 0


def disk(plan: Plan, facts: Facts) -> int:
    """Bytes of the store when the study is done."""
    identity = Identity(plan, *facts.marks())
    return sum(_arm_bytes(arm, plan, facts, identity) for arm in plan.arms) * len(plan.spec.seeds)


def _arm_bytes(arm: Arm, plan: Plan, facts: Facts, identity: Identity) -> int:
    lane = next(plan.trajectories([arm]))
    answers = _answers_bytes(arm.task, facts)
    rows = sum(len(identity.run(run)[1]) + answers + _ROW for run in runs_of(lane))
    if not arm.gives_donor:
        return rows
    module = _module_bytes(facts.techniques[arm.technique], arm, facts)
    return rows + len(identity.donor(lane)[1]) + module + _DONOR


def _answers_bytes(label: str, facts: Facts) -> int:
    """Of what a run keeps of its test. What it will write, nobody knows: as much as it should."""
    task, gold = facts.tasks[label], facts.gold[label]
    kept = facts.kind.lengths(facts.kind.read_gold(gold, task), task)
    written = len(gold) if kept.predictions is None else kept.predictions
    texts = _corrected_on(task)
    beside = (4 + 2 * texts) * kept.classes if texts else 0
    return written + kept.scores + beside


def _module_bytes(options: dict[str, Any], arm: Arm, facts: Facts) -> int:
    geometry = geometry_from_record(facts.hosts[arm.host]["geometry"])
    made = technique(arm.technique)
    config, _ = made.fold(made.configure(options), geometry, {})
    classes = len(facts.tasks[arm.task]["labels"])
    shapes = made.shapes(config, geometry) | head_shapes(geometry, classes)
    return 4 * sum(prod(shape) for shape in shapes.values())


def estimate_study(plan: Plan, facts: Facts, measured: Measurement) -> dict[str, Any]:
    """Time, memory and disk of a study; JSON-ready."""
    return {
        "seconds": seconds(plan, facts, measured),
        "memory": measured.memory,
        "gpu_memory": measured.gpu_memory,
        "disk": disk(plan, facts),
        "threads": measured.threads,
        "device": measured.device,
        "measured_in_seconds": measured.seconds,
    }
